"""Completion records: a stage is done when `stages/NAME.json` says so, and its outputs are what the record names."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainwright.spec.exits import UserError
from trainwright.spec.resolved import changes
from trainwright.store.files import read_json, sha256_file, write_json

Bases = Mapping[str, Path]
"""Word -> a folder that may lie elsewhere next time; of two that hold a file the first names it."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a finished stage was made from and what it made; written last."""

    stage: str
    inputs: Mapping[str, Any]
    """Dotted field -> value: everything that decides the outputs."""
    outputs: Mapping[str, str]
    """File -> sha256, of manifests and other small files that stand for the rest; `run:` or `data:` says below what,
    so that a run which moves with its data stays done."""
    facts: Mapping[str, Any]
    """Figures for people and for the report."""
    seconds: float
    finished: str

    @classmethod
    def read(cls, path: Path) -> "Record | None":
        """Return the record in a file, or None when there is none."""
        try:
            return cls(**read_json(path))
        except FileNotFoundError:
            return None
        except (TypeError, UserError) as error:
            why = str(error).removeprefix(f"{path}: ")
            raise UserError(f"{path}: not a stage record ({why}); boot --redo {path.stem} makes it anew") from None

    def broken_output(self, bases: Bases) -> str | None:
        """Return what is wrong with the first output that is missing or changed, or None."""
        for name, digest in self.outputs.items():
            base, _, rest = name.partition(":")
            path = bases[base] / rest if base in bases else Path(name)
            if not path.is_file():
                return f"{path}: missing"
            if sha256_file(path) != digest:
                return f"{path}: changed since the stage finished"
        return None


def is_done(
    path: Path, stage: str, inputs: Mapping[str, Any], redo_hint: str, bases: Bases, *, refuse: bool
) -> Record | None:
    """Return the record of a stage that is done, None when it is still to do.

    Changed inputs and broken outputs raise `UserError` for `refuse`; otherwise the stage counts as still to do.
    """
    record = Record.read(path)
    if record is None:
        return None
    changed = changes(record.inputs, inputs)
    if not refuse:
        return None if changed or record.broken_output(bases) else record
    if changed:
        found = "; ".join(str(change) for change in changed)
        raise UserError(f"stage {stage} was done with other inputs: {found}; undo the change, or {redo_hint}")
    broken = record.broken_output(bases)
    if broken:
        raise UserError(f"stage {stage} is done, but {broken}; restore it, or {redo_hint}")
    return record


def finish(
    path: Path,
    inputs: Mapping[str, Any],
    outputs: list[Path],
    bases: Bases,
    started: float,
    facts: Mapping[str, Any] | None = None,
    now: Callable[[], float] = time.time,
) -> Record:
    """Write the record of a stage that has just finished; `started` is a reading of `time.monotonic`."""
    digests = {_name(output, bases): sha256_file(output) for output in outputs}
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now()))
    record = Record(path.stem, dict(inputs), digests, dict(facts or {}), round(time.monotonic() - started, 3), stamp)
    write_json(path, asdict(record))
    return record


def _name(path: Path, bases: Bases) -> str:
    base = next((base for base, folder in bases.items() if path.is_relative_to(folder)), None)
    return str(path) if base is None else f"{base}:{path.relative_to(bases[base])}"
