"""The launch targets, by name: one module each, with the functions of `Target`."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from infra.engine import Engine
from infra.job import Job, Rendered
from infra.launches import Launch, State
from infra.targets import kubernetes, local, runpod, slurm
from trainwright.spec.exits import UserError


class Target(Protocol):
    """Where a job runs. A target is a module with these functions."""

    def render(self, job: Job) -> tuple[Rendered, ...]:
        """Translate a job into files; pure, touches nothing."""

    def image_of(self, job: Job) -> str | None:
        """Return the image that the job runs there, or None where it runs none."""

    def send(self, job: Job, folder: Path, engine: Engine) -> str:
        """Start what was rendered into a folder; return the name under which the engine knows it."""

    def state(self, launch: Launch, engine: Engine) -> State:
        """Ask the engine how a launch is doing."""

    def logs(self, launch: Launch, engine: Engine, *, follow: bool) -> int:
        """Print a launch's log, and go on as it grows; return an exit code."""

    def remove(self, launch: Launch, engine: Engine) -> None:
        """Take what is left of a launch away from its engine; data and checkpoints stay."""


TARGETS: dict[str, Target] = {"local": local, "slurm": slurm, "kubernetes": kubernetes, "runpod": runpod}

ENDS: dict[str, Callable[[Launch, Engine, str], str]] = {"kubernetes": kubernetes.end, "runpod": runpod.end}
"""How `stop` ends a run whose folder only its target sees, where a target knows how: from the launch and a reason."""


def target_of(launch: Launch) -> Target:
    """Return the target that a launch went to."""
    if launch.target not in TARGETS:
        known = ", ".join(TARGETS)
        raise UserError(f"{launch.record}: was sent to target {launch.target}, which is none of {known}")
    return TARGETS[launch.target]
