"""Attempts: one start of boot on a run, its records, and the exit code that they add up to.

attempts/0003/start.json            when, where, by which lease, and what was done before
attempts/0003/prepared.json         node 0 has done the stages before training; the other nodes may go on
attempts/0003/alive_00001.json      each rank's last sign of life
attempts/0003/rank_00001.json       how each rank ended
attempts/0003/traceback_00001.txt   what nobody foresaw, whole
attempts/0003/stacks_00001.txt      where each rank's threads were when the run hung
attempts/0003/end.json              how the attempt ended; one without it is a loss (boot killed, node gone)
"""

import logging
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.boot.budget import Past
from trainwright.spec.exits import Exit
from trainwright.spec.paths import RunFolder
from trainwright.store.files import read_json, write_json


log = logging.getLogger("boot")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended: the process's exit code, and why in words."""

    code: int
    reason: str
    step: int | None = None
    counted: int | None = None
    """The code that budgets go on to count, where a spent budget made the exit code a final one."""


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

    def rank(self, rank: int) -> Path:
        """Return a rank's end record."""
        return self.folder / f"rank_{rank:05d}.json"

    def alive(self, rank: int) -> Path:
        """Return a rank's sign of life."""
        return self.folder / f"alive_{rank:05d}.json"

    def stacks(self, rank: int) -> Path:
        """Return the file into which a rank writes its stacks."""
        return self.folder / f"stacks_{rank:05d}.txt"

    def end(self, outcome: Outcome) -> None:
        """Write the end record; on a full disk there is none, and the attempt counts as a loss."""
        seconds = round(time.monotonic() - self.started, 3)
        record = {"code": outcome.code, "reason": outcome.reason, "step": outcome.step, "seconds": seconds}
        counted = {} if outcome.counted is None else {"counted": outcome.counted}
        try:
            write_json(self.end_record, {**record, **counted})
        except OSError as error:
            log.warning("boot: %s: not written (%s); this attempt counts as a loss", self.end_record, error.strerror)


def start_attempt(run: RunFolder, lease_id: str, progress: str) -> Attempt:
    """Make the folder of the next attempt; only the lease holder calls this."""
    run.attempts.mkdir(parents=True, exist_ok=True)
    numbers = [int(path.name) for path in _folders(run)]
    folder = run.attempts / f"{max(numbers, default=0) + 1:04d}"
    folder.mkdir()
    continued = run.go_on.exists()
    start = {"lease": lease_id, "host": socket.gethostname(), "time": round(time.time(), 3)}
    try:
        write_json(folder / "start.json", {**start, "progress": progress, "continued": continued})
    except OSError:
        # Without this record the attempt would count as a loss of which nobody knows the progress.
        folder.rmdir()
        raise
    run.go_on.unlink(missing_ok=True)
    return Attempt(folder, time.monotonic())


def past_attempts(run: RunFolder) -> list[Past]:
    """Return what the records tell of every attempt so far, oldest first."""
    found = []
    for folder in _folders(run):
        start, end = read_record(folder / "start.json"), read_record(folder / "end.json")
        progress, continued = (start["progress"], start["continued"]) if start else ("", False)
        if end is None:
            found.append(Past(progress, None, fresh_budget=continued))
        else:
            code = end.get("counted", end["code"])
            found.append(Past(progress, code, end["reason"], end["step"], continued))
    return found


def used_hours(run: RunFolder) -> float:
    """Return the hours of the attempts that came to train, since the run began or somebody said `--continue`.

    An attempt that was lost has no end record; it counts up to the last thing that it wrote.
    """
    seconds = 0.0
    for folder in reversed(_folders(run)):
        start, end = read_record(folder / "start.json"), read_record(folder / "end.json")
        if start is None:
            continue
        if Attempt(folder, 0.0).prepared.exists():
            last = max(path.stat().st_mtime for path in folder.iterdir())
            seconds += end["seconds"] if end is not None else max(0.0, last - start["time"])
        if start["continued"]:
            break
    return seconds / 3600


def _folders(run: RunFolder) -> list[Path]:
    return sorted(path for path in run.attempts.glob("[0-9]*") if path.name.isdigit())


def attempt_of(run: RunFolder, lease_id: str) -> Attempt | None:
    """Return the attempt that a lease belongs to, for the nodes that do not hold it."""
    for folder in sorted(run.attempts.glob("[0-9]*"), reverse=True):
        start = read_record(folder / "start.json")
        if start is not None and start.get("lease") == lease_id:
            return Attempt(folder, time.monotonic())
    return None


def outcome_of_ranks(attempt: Attempt, ranks: range, agent_code: int, *, memory_ran_out: bool = False) -> Outcome:
    """Return what this node's rank records add up to; torchrun's own code says only whether all were zero.

    A rank without a record was killed; what its neighbours say of broken connections is a consequence. So it is when a
    rank, on this node or another, left in the middle of things because it was asked to and had nothing to save.
    """
    records = {rank: read_record(attempt.rank(rank)) for rank in ranks}
    found = [record for record in records.values() if record is not None]
    step = _last_step(attempt, ranks)
    for code in (Exit.REFUSED, Exit.MISSING):
        for record in found:
            if record["code"] == code:
                return Outcome(code, record["reason"], step)
    left = _left(attempt)
    if not found and agent_code == Exit.INTERRUPTED:
        left = "interrupted before training began"
    if left is not None:
        return Outcome(Exit.INTERRUPTED, left, step)
    lost = [str(rank) for rank, record in records.items() if record is None]
    crashed = [record for record in found if record["code"] not in (Exit.OK, Exit.INTERRUPTED)]
    if lost or crashed:
        way = "was killed: the host's memory ran out; give it more (resources.memory_gib), or fewer ranks and workers"
        how = way if memory_ran_out else "ended without a record (killed, or out of memory)"
        words = [f"rank {', '.join(lost)} {how}"] if lost else []
        # What all ranks were told in the same words is said once.
        first = {record["reason"]: record["rank"] for record in reversed(crashed)}
        words += [f"rank {rank}: {reason}" for reason, rank in sorted(first.items(), key=lambda item: item[1])]
        return Outcome(Exit.FAILED, "; ".join(words), step)
    if any(record["code"] == Exit.INTERRUPTED for record in found):
        return Outcome(Exit.INTERRUPTED, found[0]["reason"], step)
    if agent_code != 0:
        return Outcome(Exit.FAILED, f"torchrun ended with code {agent_code}", step)
    return Outcome(Exit.OK, found[0]["reason"], step)


def _left(attempt: Attempt) -> str | None:
    """Return why a rank of any node left at once, or None."""
    records = [read_record(path) for path in sorted(attempt.folder.glob("rank_*.json"))]
    return next((str(record["reason"]) for record in records if record is not None and record.get("left")), None)


def _last_step(attempt: Attempt, ranks: range) -> int | None:
    signs = [read_record(attempt.rank(rank)) or read_record(attempt.alive(rank)) for rank in ranks]
    return max((sign["step"] for sign in signs if sign is not None and sign["step"] is not None), default=None)


def read_record(path: Path) -> Mapping[str, Any] | None:
    """Return the JSON object in a record, or None when there is none."""
    try:
        return read_json(path)
    except FileNotFoundError:
        return None
