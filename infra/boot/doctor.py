"""How a machine and its run are, one line a check: `trainwright doctor`. The image's HEALTHCHECK asks `--alive`."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.boot.preflight import IN_IMAGE_VARIABLE, gpus, shared_memory, volume
from trainwright.spec.arguments import WordParser
from trainwright.spec.exits import Exit, UserError, guarded
from trainwright.spec.experiment import Experiment, Resources
from trainwright.spec.paths import Places, RunFolder, root_from
from trainwright.spec.resolved import read_training
from trainwright.store.files import read_json

PREPARING_S = 60.0
"""Before training, boot renews its lease every two seconds."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    good: bool
    sentence: str


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks; return the code of the first that finds something wrong."""
    parser = WordParser(prog="trainwright doctor", description="Say how this machine is, for an experiment or for any.")
    parser.add_argument("words", nargs="*", metavar="EXP [a.b=c ...]", help="hold the machine against this experiment")
    parser.add_argument("--alive", action="store_true", help="only whether a run gives signs of life")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.alive:
        found = alive(root_from())
        print(found.sentence)
        return Exit.OK if found.good else Exit.FAILED
    codes = [_checked(name, check) for name, check in checks(_experiment(arguments.words)).items()]
    return max(codes)


def _experiment(words: Sequence[str]) -> Experiment:
    """Return the experiment that the machine is held against; without one, an experiment that asks for nothing."""
    from trainwright.spec.load import find_experiment, load_experiment, split_words, validate

    if not words:
        tree = {"name": "any", "resources": {"device": "cpu"}, "train": {"steps": "1", "global_batch_sequences": "8"}}
        return validate(tree, "doctor")
    name, overrides = split_words(words)
    return load_experiment(find_experiment(name), overrides).experiment


def checks(experiment: Experiment) -> dict[str, Callable[[], str]]:
    """Return every check by its name, in the order in which they are printed."""
    resources: Resources = experiment.resources
    return {
        "user": lambda: f"{os.getuid()}, group {os.getgid()}",
        "volume": lambda: volume(Places(root_from(), experiment), in_image=IN_IMAGE_VARIABLE in os.environ),
        "shared memory": lambda: shared_memory(resources),
        "GPUs": lambda: gpus(resources),
        "compiler": lambda: compiler(needed=experiment.train.compile),
    }


def _checked(name: str, check: Callable[[], str]) -> int:
    try:
        print(f"good   {name}: {check()}")
    except UserError as error:
        print(f"WRONG  {name}: {error}")
        return error.exit
    return Exit.OK


def compiler(*, needed: bool) -> str:
    """Hold that there is a C++ compiler where the experiment compiles; return what was found."""
    found = shutil.which("g++") or shutil.which("c++")
    if found is None and needed:
        raise UserError("train.compile=true: no C++ compiler (g++) on this machine; install one, or use the image")
    return found or "none, and none needed"


def alive(root: Path) -> Finding:
    """Hold that the run below the root that spoke last has spoken within its own limits of patience.

    In training that is the heartbeat, judged as boot judges a hung rank; before it, the lease that boot renews.
    """
    signs = [sign for path in (root / "runs").glob("*/experiment.yaml") if (sign := _last_sign(RunFolder(path.parent)))]
    if not signs:
        return Finding(good=False, sentence=f"no run below {root / 'runs'} gives signs of life")
    time_of, run, phase = max(signs, key=lambda sign: sign[0])
    age, limit = max(0.0, time.time() - time_of), _limit_s(run, phase)
    where = f"{run.path.name}, in {phase}, {age:.0f} s ago"
    return Finding(age <= limit, f"{where}{'' if age <= limit else f', and {limit:.0f} s is the limit'}")


def _last_sign(run: RunFolder) -> tuple[float, RunFolder, str] | None:
    """Return when and in which phase a run that is held by a boot spoke last; None for one that nobody holds."""
    try:
        held = run.lease.stat().st_mtime
    except OSError:
        return None
    starts = sorted(run.attempts.glob("[0-9]*/start.json"))
    started = _read(starts[-1]).get("time", 0.0) if starts else 0.0
    beat = _read(run.heartbeat)
    if beat.get("time", 0.0) >= started and "phase" in beat:
        return float(beat["time"]), run, str(beat["phase"])
    return held, run, "preparation"


def _limit_s(run: RunFolder, phase: str) -> float:
    if phase == "preparation":
        return PREPARING_S
    try:
        resources = read_training(run.training_yaml).experiment.resources
    except (OSError, UserError):
        return PREPARING_S
    return 60 * (resources.hang_minutes if phase == "step" else resources.slow_minutes)


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except (OSError, UserError):
        return {}


if __name__ == "__main__":
    sys.exit(guarded("trainwright", main))
