"""Watches the ranks of this node: one that gives no sign of life for too long is hung, and those that wait for it too.

Time is this process's monotonic clock, and life is a file that changes. Before the ranks are killed each writes the
stacks of its threads; a rank that is stopped (SIGSTOP, a debugger, a frozen container) is woken to do so.
"""

import logging
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from infra.boot.attempts import Attempt, read_record
from trainwright.spec.experiment import Resources
from trainwright.store.process import STACKS_SIGNAL

log = logging.getLogger("boot")

LOOK_EVERY_S = 1.0
STACKS_WAIT_S = 2.0


@dataclass(slots=True)
class _Seen:
    sign: object
    at: float


class Watch:
    """The signs of life of some ranks."""

    def __init__(self, attempt: Attempt, ranks: range, resources: Resources) -> None:
        self._attempt = attempt
        self._ranks = ranks
        self._limits = {"step": 60 * resources.hang_minutes}
        self._slow_s = 60 * resources.slow_minutes
        now = time.monotonic()
        self._seen = {rank: _Seen(None, now) for rank in ranks}
        self._looked = now
        self._interrupted: set[int] = set()

    def hung(self) -> str | None:
        """Return a sentence about the ranks that have been silent for too long, or None; cheap to call often."""
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY_S:
            return None
        self._looked = now
        silent = [rank for rank in self._ranks if self._silence(rank, now)]
        if not silent:
            return None
        words = ", ".join(self._describe(rank) for rank in silent)
        return f"no sign of life: {words}"

    def _silence(self, rank: int, now: float) -> bool:
        sign = read_record(self._attempt.alive(rank))
        # On a full disk a rank can only touch its old sign.
        told = (sign, _changed(self._attempt.alive(rank)))
        seen = self._seen[rank]
        if told != seen.sign:
            self._seen[rank] = _Seen(told, now)
            return False
        phase = sign["phase"] if sign is not None else "start"
        return now - seen.at > self._limits.get(phase, self._slow_s)

    def _describe(self, rank: int) -> str:
        sign = read_record(self._attempt.alive(rank)) or {}
        quiet = time.monotonic() - self._seen[rank].at
        state = _process_state(sign.get("pid"))
        step = sign.get("step")
        return f"rank {rank} for {quiet:.0f} s after step {step} in {sign.get('phase', 'start')} (process {state})"

    def dump_stacks(self) -> list[Path]:
        """Make every rank write its stacks; return the files."""
        for pid in self._living():
            os.kill(pid, STACKS_SIGNAL)
            os.kill(pid, signal.SIGCONT)
        time.sleep(STACKS_WAIT_S)
        return [self._attempt.stacks(rank) for rank in self._ranks if self._attempt.stacks(rank).exists()]

    def interrupt_ranks(self) -> None:
        """Ask each rank that has not been asked to save and stop, past torchrun; call it again for those to come."""
        for pid in self._living() - self._interrupted:
            os.kill(pid, signal.SIGTERM)
            self._interrupted.add(pid)

    def _living(self) -> set[int]:
        """Return the processes of the ranks that have given a sign of life and are still there."""
        found = [(read_record(self._attempt.alive(rank)) or {}).get("pid") for rank in self._ranks]
        return {pid for pid in found if isinstance(pid, int) and _process_state(pid) != "gone"}


def _changed(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _process_state(pid: object) -> str:
    names = {"R": "running", "S": "waiting", "D": "waiting for a device", "T": "stopped", "Z": "gone"}
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "gone"
    letter = stat.rpartition(")")[2].split()[0]
    return names.get(letter, letter)
