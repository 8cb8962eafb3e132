"""A drill on paper: how each target ends a run, what a short run of an experiment is, and how the outcome is judged.

Pure: nothing here starts or reads anything.
"""

import math
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trainwright.spec.derived import Derived
from trainwright.spec.exits import Exit, UserError
from trainwright.spec.experiment import Experiment
from trainwright.spec.load import validate
from trainwright.spec.paths import Places
from trainwright.spec.resolved import plain
from trainwright.store.weights import PREFIX

Whom = Literal["boot", "group", "rank", "all"]

TOUCHED = "stop file"
SEGMENT_S = 1.5
"""Training between two blows, at least: boot and ranks need a moment to hear of one."""
SEGMENT_STEPS = 8
SHOWN_REASONS = 3


@dataclass(frozen=True, slots=True)
class Blow:
    """One way in which a target ends a run: signals sent at once, and SIGKILL of everything once the notice is over."""

    what: str
    sends: tuple[tuple[Whom, signal.Signals], ...]
    code: int
    """What boot must end with, unless it is killed when the notice is over."""
    notice_s: float | None = None
    stop_file: bool = False
    """Whether the attempt's stop file is touched first."""

    @property
    def asks(self) -> bool:
        """Return whether the run is asked to save, rather than killed."""
        return self.code == Exit.INTERRUPTED


_LOST = Blow("SIGKILL of everything", (("all", signal.SIGKILL),), -signal.SIGKILL)
BLOWS: dict[str, tuple[Blow, ...]] = {
    "local": (
        Blow("Ctrl-C: SIGINT to the group", (("group", signal.SIGINT),), Exit.INTERRUPTED),
        Blow("SIGTERM", (("boot", signal.SIGTERM),), Exit.INTERRUPTED),
        Blow("SIGKILL of boot", (("boot", signal.SIGKILL),), -signal.SIGKILL),
        Blow("SIGKILL of a rank", (("rank", signal.SIGKILL),), Exit.FAILED),
        _LOST,
    ),
    "slurm": (
        # The time limit: sbatch --signal gives as long as the site profile says; two minutes is a common choice.
        Blow("limit near: SIGUSR1, 120 s", (("boot", signal.SIGUSR1),), Exit.INTERRUPTED, 120.0),
        # Preemption: KillWait of slurm.conf, 30 s unless a site says otherwise.
        Blow("preempted: SIGTERM, 30 s", (("boot", signal.SIGTERM),), Exit.INTERRUPTED, 30.0),
        Blow("node lost: SIGKILL of all", _LOST.sends, _LOST.code),
    ),
    "kubernetes": (
        # preStop and SIGTERM share terminationGracePeriodSeconds, which is rendered as 300.
        Blow("evicted: stop file, SIGTERM", (("boot", signal.SIGTERM),), Exit.INTERRUPTED, 300.0, stop_file=True),
        Blow("node lost: SIGKILL of all", _LOST.sends, _LOST.code),
    ),
    "runpod": (
        Blow("pod stopped: SIGTERM, 5 s", (("boot", signal.SIGTERM),), Exit.INTERRUPTED, 5.0),
        Blow("host gone: SIGKILL of all", _LOST.sends, _LOST.code),
    ),
}
"""Target -> what it does to runs, in the order in which a drill does it."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How a short run is cut: steps in all, and steps from one save to the next."""

    steps: int
    save_every: int


def pace(step_seconds: float, num_blows: int) -> Pace:
    """Return the shortest run in which each blow falls after a save of its own and has time to be heard."""
    segment = max(SEGMENT_STEPS, math.ceil(SEGMENT_S / step_seconds))
    return Pace(steps=segment * (num_blows + 1), save_every=segment // 4)


def shortened(experiment: Experiment, places: Places, cut: Pace) -> dict[str, Any]:
    """Return the experiment as the tree of a short run beside it: its data and tokenizer, its model, batch and ranks.

    What does not matter to preemption is as in the experiment; only `paths.runs` is left for the caller to say.
    """
    if experiment.resources.nodes > 1:
        where = f"resources.nodes={experiment.resources.nodes}"
        raise UserError(f"{where}: a drill runs on this machine alone; add resources.nodes=1, which keeps the batch")
    tree = plain(experiment)
    tree["name"] = f"{experiment.name[:46].rstrip('-')}-drill"
    tree["data"]["name"], tree["tokenizer"]["name"] = experiment.data_name, experiment.tokenizer_name
    horizon = {"steps": cut.steps, "tokens": None, "tokens_per_parameter": None, "flops": None}
    tree["train"] |= {**horizon, "init_from": _weights(experiment, places)}
    if experiment.schedule.warmup_steps is not None:
        tree["schedule"]["warmup_steps"] = min(experiment.schedule.warmup_steps, cut.steps)
    few = min(experiment.evaluation.max_tokens, Derived(experiment).tokens_per_step)
    tree["evaluation"] |= {"every_steps": None, "max_tokens": few}
    tree["checkpoint"]["dump"] |= {"every_steps": cut.save_every, "every_minutes": None, "keep": 2}
    tree["checkpoint"]["eval"] |= {"every_steps": None}
    tree["logging"] |= {"num_samples": 0}
    tree["resources"]["walltime_minutes"] = None
    # The blows must not spend the budgets that a real run has.
    tree["restart"] |= dict.fromkeys(("losses", "failures", "same_step"), 1000)
    validate(tree, "drill")
    return tree


def _weights(experiment: Experiment, places: Places) -> str | None:
    """Return the run that gives the initial weights as a folder, since the drill's own runs lie elsewhere."""
    given = experiment.train.init_from
    if given is None:
        return None
    if given.startswith(PREFIX):
        return given
    return str(Path(given).absolute() if Path(given).is_dir() else places.run.path.parent / given)


@dataclass(frozen=True, slots=True)
class Struck:
    """What came of one blow."""

    blow: Blow
    step: int
    """Finished steps when it was sent."""
    code: int
    saved_s: float | None
    """Seconds from the blow to the commit of the checkpoint that answers it; None when none came."""
    cut_off: bool
    """Whether the notice was over before boot had ended."""
    newest: int
    """Step of the newest checkpoint afterwards."""
    finished: int
    """Finished steps afterwards."""
    left: int
    """Processes that outlived boot."""
    resumed: int | None = None
    """Where the next boot went on, by its own word."""

    @property
    def lost(self) -> int:
        """Return the steps that have to be done again."""
        return max(0, self.finished - self.newest)


def reasons(struck: Struck, save_every: int) -> list[str]:
    """Return what is not right about the outcome of a blow."""
    blow, found = struck.blow, []
    expected = (blow.code, -signal.SIGKILL) if struck.cut_off else (blow.code,)
    if struck.code not in expected:
        found.append(f"boot ended with {struck.code}, not {blow.code}")
    if struck.left:
        found.append(f"{struck.left} processes outlived boot")
    if blow.asks and not struck.cut_off and struck.lost:
        found.append(f"{struck.lost} steps were lost, although the run was asked to save")
    if struck.lost > save_every:
        found.append(f"{struck.lost} steps were lost, with a checkpoint every {save_every}")
    if struck.resumed != struck.newest:
        found.append(f"the next boot went on from step {struck.resumed}, not from {struck.newest}")
    return found


def table(rows: Sequence[Struck], save_every: int) -> str:
    """Return the outcome of every blow, aligned, in fewer than 80 columns."""
    head = ["SENT", "STEP", "EXIT", "SAVED", "NOTICE", "LOST", "RESUMED", "OK"]
    lines = [head, *(_cells(row, save_every) for row in rows)]
    wide = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(_aligned(line, wide) for line in lines)


def _cells(row: Struck, save_every: int) -> list[str]:
    limit = "no limit" if row.blow.notice_s is None else f"{row.blow.notice_s:.0f} s"
    notice = limit if row.blow.asks else "none"
    saved = "-" if not row.blow.asks else "too late" if row.saved_s is None else f"{row.saved_s:.2f} s"
    code = "killed" if row.code == -signal.SIGKILL else str(row.code)
    resumed = "-" if row.resumed is None else str(row.resumed)
    verdict = "no" if reasons(row, save_every) else "yes"
    return [row.blow.what, str(row.step), code, saved, notice, str(row.lost), resumed, verdict]


def _aligned(cells: Sequence[str], wide: Sequence[int]) -> str:
    first, *rest, last = cells
    middle = [cell.rjust(width) for cell, width in zip(rest, wide[1:-1], strict=True)]
    return "  ".join([first.ljust(wide[0]), *middle, last])


def as_json(row: Struck, save_every: int) -> Mapping[str, Any]:
    """Return one row for programs."""
    return {
        "sent": row.blow.what,
        "step": row.step,
        "exit_code": row.code,
        "expected_exit_code": int(row.blow.code),
        "saved_seconds": None if row.saved_s is None else round(row.saved_s, 3),
        "notice_seconds": row.blow.notice_s,
        "cut_off": row.cut_off,
        "steps_lost": row.lost,
        "resumed_step": row.resumed,
        "wrong": reasons(row, save_every),
    }


def advice(rows: Sequence[Struck], target: str, experiment: Experiment, step_seconds: float) -> list[str]:
    """Return what a user should know of the real run: a save slower than the notice, and the price of a kill."""
    found = []
    late = next((row for row in rows if row.blow.asks and row.cut_off), None)
    if late is not None:
        save = "the save was not committed" if late.saved_s is None else f"the save takes {late.saved_s:.0f} s"
        gives = f"{target} gives {late.blow.notice_s:.0f} s"
        found.append(f"{save} and {gives}: only the newest committed checkpoint counts ({late.lost} steps lost here)")
    dump = experiment.checkpoint.dump
    if dump.every_steps is not None:
        price = f"up to {dump.every_steps:,} steps, about {_span(dump.every_steps * step_seconds)}"
        found.append(f"without notice the real run loses {price} (checkpoint.dump.every_steps)")
    if dump.every_minutes is not None:
        found.append(f"without notice the real run loses up to {dump.every_minutes:g} minutes (dump.every_minutes)")
    if dump.every_steps is None and dump.every_minutes is None:
        found.append("without notice the real run loses everything: set checkpoint.dump.every_minutes")
    return found


def _span(seconds: float) -> str:
    for size, unit in ((3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else "less than a second"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to: hashes of its final weights, the figures of each step, and whether it was on a GPU."""

    weights: Mapping[str, str]
    figures: Mapping[int, tuple[float, float]]
    """Step -> loss and norm of the gradient."""
    repeated: tuple[int, ...]
    """Steps that are on file more than once."""
    on_gpu: bool


ROUNDING = 1e-2
"""Relative difference of losses between two runs whose kernels need not repeat bit for bit."""


def compare(calm: Outcome, struck: Outcome, *, deterministic: bool) -> tuple[bool, str]:
    """Return whether a run came to the same as the undisturbed one, and how that is said."""
    if calm.figures.keys() != struck.figures.keys() or struck.repeated:
        odd = sorted(calm.figures.keys() ^ struck.figures.keys() | set(struck.repeated))
        return False, f"NOT THE SAME: {len(odd)} steps are missing or on file twice, the first is {odd[0]}"
    count = len(calm.figures)
    if calm.weights == struck.weights and calm.figures == struck.figures:
        return True, f"final weights and all {count} losses are those of the undisturbed run, bit for bit"
    first = next((step for step in sorted(calm.figures) if calm.figures[step] != struck.figures[step]), None)
    if not struck.on_gpu or deterministic:
        where = "only the final weights differ" if first is None else f"the losses differ from step {first} on"
        return False, f"NOT THE SAME as the undisturbed run: {where}"
    largest = max(abs(struck.figures[step][0] / calm.figures[step][0] - 1) for step in calm.figures)
    to_rounding = f"all {count} losses agree within {largest:.1g} (set train.deterministic=true for bit for bit)"
    return largest < ROUNDING, to_rounding if largest < ROUNDING else f"NOT THE SAME: {to_rounding}"
