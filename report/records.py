"""Reads the small records of a run folder: samples, stages, attempts, and the request to end.

Records are written by other programs over days and may be cut, old or edited. What cannot be read is told, in one
sentence each, and never stops a report.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from trainwright.spec.exits import UserError, describe_os_error
from trainwright.spec.paths import RunFolder
from trainwright.store.files import read_json

STAGES = ("prepare", "shard", "tokenizer", "train", "report")
MAX_TEXT = 20_000
"""Characters of one text that a report shows."""

T = TypeVar("T")


class Gaps:
    """Sentences on what is missing or cannot be read."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def add(self, sentence: str) -> None:
        """Note one gap, once."""
        if sentence not in self.sentences:
            self.sentences.append(sentence)

    def read(self, what: str, reader: Callable[[], T]) -> T | None:
        """Return what `reader` returns, or None after noting why there is nothing."""
        try:
            return reader()
        except FileNotFoundError:
            self.add(f"{what}: not there")
        except UserError as error:
            self.add(f"{what}: {error}")
        except OSError as error:
            self.add(f"{what}: {describe_os_error(error)}")
        return None


@dataclass(frozen=True, slots=True)
class Sample:
    """A prompt and what the model wrote after it."""

    prompt: str
    continuation: str
    step: int | None
    temperature: float | None


@dataclass(frozen=True, slots=True)
class StageRecord:
    """One stage of boot that is done."""

    name: str
    seconds: float | None
    finished: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One start of boot; without an end record it still runs, or was lost."""

    name: str
    ended: bool
    code: int | None = None
    reason: str = ""
    step: int | None = None
    seconds: float | None = None


def read_samples(path: Path, gaps: Gaps) -> tuple[Sample, ...]:
    """Return the continuations of a run; lines that hold none are counted as a gap."""
    lines = gaps.read("samples.jsonl", lambda: path.read_bytes().splitlines())
    found = [sample for line in lines or () if line.strip() and (sample := _sample(line))]
    num_broken = sum(1 for line in lines or () if line.strip()) - len(found)
    if num_broken:
        gaps.add(f"samples.jsonl: {num_broken} of {num_broken + len(found)} lines hold no sample and were left out")
    return tuple(found)


def read_stages(run: RunFolder, gaps: Gaps) -> tuple[StageRecord, ...]:
    """Return the records of the stages that are done, in the order of the stages."""
    records = []
    for name in STAGES:
        path = run.stage(name)
        value = gaps.read(f"stages/{name}.json", partial(read_json, path)) if path.exists() else None
        if value is not None:
            records.append(StageRecord(name, as_number(value.get("seconds")), as_text(value.get("finished"))))
    return tuple(records)


def read_attempts(folder: Path, gaps: Gaps) -> tuple[Attempt, ...]:
    """Return the attempts of a run in their order."""
    attempts = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not path.name.isdigit():
            continue
        end = path / "end.json"
        value = gaps.read(f"attempts/{path.name}/end.json", partial(read_json, end)) if end.exists() else None
        attempts.append(_attempt(path.name, value) if value is not None else Attempt(path.name, ended=False))
    return tuple(attempts)


def read_ended(path: Path, gaps: Gaps) -> str | None:
    """Return the reason why a run was ended on request, or None while no such record stands."""
    if not path.exists():
        return None
    value = gaps.read("ended.json", lambda: read_json(path)) or {}
    return as_text(value.get("reason")) or "no reason given"


def as_text(value: Any) -> str:
    """Return a record's value as one string, empty when there is none."""
    return "" if value is None else str(value)[:MAX_TEXT]


def as_number(value: Any) -> float | None:
    """Return a record's value when it is a finite number."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < 1e300 else None


def as_count(value: Any) -> int | None:
    """Return a record's value when it is a whole number."""
    return value if type(value) is int else None


def _sample(line: bytes) -> Sample | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not all(isinstance(value.get(key), str) for key in ("prompt", "continuation")):
        return None
    step, temperature = as_count(value.get("step")), as_number(value.get("temperature"))
    return Sample(as_text(value["prompt"]), as_text(value["continuation"]), step, temperature)


def _attempt(name: str, end: dict[str, Any]) -> Attempt:
    return Attempt(
        name,
        ended=True,
        code=as_count(end.get("code")),
        reason=as_text(end.get("reason")),
        step=as_count(end.get("step")),
        seconds=as_number(end.get("seconds")),
    )
