"""Attempts: one start of boot on a run, its records, and the exit code that they add up to.

attempts/0003/start.json        when, where, by which lease
attempts/0003/prepared.json     node 0 has done the stages before training; the other nodes may go on
attempts/0003/rank_00001.json   how each rank ended
attempts/0003/end.json          how the attempt ended; an attempt without one is a loss (boot killed, node gone)
"""

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainwright.spec.exits import Exit
from trainwright.spec.paths import RunFolder
from trainwright.store.files import read_json, write_json


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended: the process's exit code, and why in words."""

    code: int
    reason: str
    step: int | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """The folder of one attempt."""

    folder: Path
    started: float

    @property
    def number(self) -> str:
        """Return the attempt's number as its folder has it."""
        return self.folder.name

    @property
    def prepared(self) -> Path:
        """Return the file that tells the other nodes to go on."""
        return self.folder / "prepared.json"

    @property
    def end_record(self) -> Path:
        """Return the attempt's end record."""
        return self.folder / "end.json"

    def end(self, outcome: Outcome) -> None:
        """Write the end record."""
        seconds = round(time.monotonic() - self.started, 3)
        record = {"code": outcome.code, "reason": outcome.reason, "step": outcome.step, "seconds": seconds}
        write_json(self.end_record, record)


def start_attempt(run: RunFolder, lease_id: str) -> Attempt:
    """Make the folder of the next attempt; only the lease holder calls this."""
    run.attempts.mkdir(parents=True, exist_ok=True)
    numbers = [int(path.name) for path in run.attempts.iterdir() if path.name.isdigit()]
    folder = run.attempts / f"{max(numbers, default=0) + 1:04d}"
    folder.mkdir()
    attempt = Attempt(folder, time.monotonic())
    facts = {"lease": lease_id, "host": socket.gethostname(), "time": round(time.time(), 3)}
    write_json(folder / "start.json", facts)
    return attempt


def attempt_of(run: RunFolder, lease_id: str) -> Attempt | None:
    """Return the attempt that a lease belongs to, for the nodes that do not hold it."""
    for folder in sorted(run.attempts.glob("[0-9]*"), reverse=True):
        start = _read(folder / "start.json")
        if start is not None and start.get("lease") == lease_id:
            return Attempt(folder, time.monotonic())
    return None


def outcome_of_ranks(attempt: Attempt, ranks: range, agent_code: int) -> Outcome:
    """Return what this node's rank records add up to; torchrun's own code says only whether all were zero."""
    records = {rank: _read(attempt.folder / f"rank_{rank:05d}.json") for rank in ranks}
    found = [record for record in records.values() if record is not None]
    step = max((record["step"] for record in found if record.get("step") is not None), default=None)
    for code in (Exit.REFUSED, Exit.MISSING):
        for record in found:
            if record["code"] == code:
                return Outcome(code, record["reason"], step)
    lost = [str(rank) for rank, record in records.items() if record is None]
    crashed = next((record for record in found if record["code"] not in (Exit.OK, Exit.INTERRUPTED)), None)
    if crashed is not None:
        return Outcome(Exit.FAILED, f"rank {crashed['rank']}: {crashed['reason']}", step)
    if lost:
        return Outcome(Exit.FAILED, f"rank {', '.join(lost)} ended without a record (killed, or out of memory)", step)
    if any(record["code"] == Exit.INTERRUPTED for record in found):
        return Outcome(Exit.INTERRUPTED, "interrupted, saved", step)
    if agent_code != 0:
        return Outcome(Exit.FAILED, f"torchrun ended with code {agent_code}", step)
    return Outcome(Exit.OK, found[0]["reason"], step)


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        return read_json(path)
    except FileNotFoundError:
        return None
