"""Budgets: how often a run is tried again by itself. Pure functions of the attempts' records.

A loss is an attempt without an end record: boot was killed, or its node went away; such things are no fault of the
run. A failure has a record that says so. Interrupts are wanted, but three without any progress are a loop. Any
progress (a shard, a stage, a checkpoint) starts all counts anew, and so does `--continue`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from trainwright.spec.exits import Exit
from trainwright.spec.experiment import Restart

INTERRUPTS = 3
FINAL = (Exit.OK, Exit.REFUSED, Exit.MISSING)


@dataclass(frozen=True, slots=True)
class Past:
    """One attempt as its records tell it."""

    progress: str
    """What was done when it started; compared for equality only."""
    code: int | None
    """Its exit code; None when it left no end record."""
    reason: str = ""
    step: int | None = None
    fresh_budget: bool = False
    """Whether the run was continued by hand here."""


def exhausted(attempts: Sequence[Past], progress: str, restart: Restart) -> str | None:
    """Return why the run must not be tried again, or None; `progress` is what is done now."""
    row = _without_progress(attempts, progress)
    losses = [past for past in row if past.code is None]
    failures = [past for past in row if past.code is not None and past.code not in (*FINAL, Exit.INTERRUPTED)]
    interrupts = [past for past in row if past.code == Exit.INTERRUPTED]
    if len(losses) >= restart.losses:
        return f"{len(losses)} attempts were lost without progress (restart.losses={restart.losses})"
    if len(failures) >= restart.failures:
        last = failures[-1].reason
        return f"{len(failures)} attempts failed without progress (restart.failures={restart.failures}), last: {last}"
    if len(interrupts) >= INTERRUPTS:
        return f"{len(interrupts)} attempts were interrupted without progress; they are too short for one"
    alike = _alike_at_end(failures)
    if alike >= restart.same_step:
        where = f"{alike} failures in a row at step {failures[-1].step} with the same cause"
        return f"{where} (restart.same_step={restart.same_step}): {failures[-1].reason}"
    return None


def _without_progress(attempts: Sequence[Past], progress: str) -> list[Past]:
    """Return the newest attempts since which nothing was added, oldest first."""
    row: list[Past] = []
    for past in reversed(attempts):
        if past.progress != progress:
            break
        row.insert(0, past)
        if past.fresh_budget:
            break
    return row


def _alike_at_end(failures: Sequence[Past]) -> int:
    count = 0
    for past in reversed(failures):
        if (past.step, cause(past.reason)) != (failures[-1].step, cause(failures[-1].reason)):
            break
        count += 1
    return count


def cause(reason: str) -> str:
    """Return a reason without what differs from one time to the next: numbers and addresses."""
    return re.sub(r"0x[0-9a-fA-F]+|\d+", "#", reason)[:200]
