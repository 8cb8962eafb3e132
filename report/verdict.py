"""The first lines of a report: did the run come to its end, and how good did it get."""

from dataclasses import dataclass

from report.document import Tone
from report.facts import Facts
from report.metrics import Series, series
from report.numbers import fixed, grouped, percent
from trainwright.spec.exits import Exit


@dataclass(frozen=True, slots=True)
class Verdict:
    """A word, its colour, and a sentence."""

    status: str
    tone: Tone
    sentence: str


def judge(facts: Facts) -> Verdict:
    """Say in one line how far a run came and what it reached."""
    status, tone, progress = _progress(facts)
    return Verdict(status, tone, f"{progress}; {quality(bits_per_byte(facts))}.")


def bits_per_byte(facts: Facts) -> Series:
    """Return the bits per byte of every evaluation."""
    return series(facts.metrics.evaluations, lambda row: row.bits_per_byte)


def quality(bits: Series) -> str:
    """Return the final bits per byte, and its share of step 0's, in words."""
    if bits.last is None:
        return "no evaluation has been recorded"
    words = f"{fixed(bits.last, 4)} bits per byte on validation"
    share = share_of_start(bits)
    if share is not None:
        return f"{words}, {percent(share)} of step 0's {fixed(bits.values[0], 4)}"
    return f"{words} (step {grouped(bits.steps[-1])})"


def share_of_start(bits: Series) -> float | None:
    """Return the final value as a share of step 0's, when both were recorded."""
    if len(bits.steps) < 2 or bits.steps[0] != 0 or bits.values[0] <= 0:
        return None
    return bits.values[-1] / bits.values[0]


def _progress(facts: Facts) -> tuple[str, Tone, str]:
    step, total = facts.metrics.last_step, facts.num_steps
    at = f"at step {grouped(step)}" + (f" of {grouped(total)}" if total is not None else "")
    last = facts.attempts[-1] if facts.attempts else None
    if _is_complete(facts):
        return "Complete", "good", f"All {grouped(step)} steps are done"
    if facts.ended is not None:
        return "Ended", "good", f"Ended on request {at} ({facts.ended})"
    if _has_failed(facts):
        assert last is not None
        return "Failed", "bad", f"Stopped {at} with exit code {last.code}{f' ({last.reason})' if last.reason else ''}"
    if step == 0:
        return "Not started", "warn", "No training step has been recorded"
    if last is not None and not last.ended:
        return "Unfinished", "warn", f"Interrupted, or still running, {at}"
    return "Interrupted", "warn", f"Interrupted {at}"


def _is_complete(facts: Facts) -> bool:
    """The stage's record proves the last checkpoint; without boot there is none, and the steps must do."""
    is_recorded = any(stage.name == "train" for stage in facts.stages)
    if facts.num_steps is None:
        return is_recorded
    return facts.metrics.last_step >= facts.num_steps and (is_recorded or not _has_failed(facts))


def _has_failed(facts: Facts) -> bool:
    last = facts.attempts[-1] if facts.attempts else None
    return last is not None and last.ended and last.code not in (None, Exit.OK, Exit.INTERRUPTED)
