"""An engine that writes down what it is asked, and answers what a test wants."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
import shlex
from typing import Any

from infra.engine import Answer, Engine
from infra.job import Job
from trainwright.spec.experiment import Resources
from trainwright.spec.targets import LocalTarget, Targets

IMAGE = f"registry.invalid/trainwright@sha256:{'0' * 64}"


@dataclass(frozen=True, slots=True)
class Recorder(Engine):
    """Runs nothing; `said` holds (the command, the variables it was given) in order."""

    answers: Callable[[str], Answer] = lambda _: Answer(0, "", "")
    programs: tuple[str, ...] = ()
    said: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)

    def ask(self, *command: str) -> Answer:
        self.said.append((shlex.join(command), self.environ))
        return self.answers(shlex.join(command))

    def show(self, *command: str) -> int:
        return self.ask(*command).code

    def detach(self, log: Path, *command: str) -> int:
        del log
        self.ask(*command)
        return 4242

    def has(self, program: str) -> bool:
        return program in self.programs

    @property
    def commands(self) -> list[str]:
        return [command for command, _ in self.said]


def a_job(**changes: Any) -> Job:
    """Return a job with everything in it, changed as a test wants."""
    whole: dict[str, Any] = {
        "name": "small",
        "experiment_text": "name: small   # as its author wrote it\n",
        "overrides": ("train.steps=20", "data.path=/data/it's here"),
        "flags": ("--continue",),
        "environ": (("RUN_EXPERIMENT", "small"), ("RUN_SHARD", "1"), ("SHARD_LINES", "10000")),
        "image": IMAGE,
        "registry": None,
        "secrets": ("HF_TOKEN", "WANDB_API_KEY"),
        "resources": Resources(),
        "targets": Targets(),
    }
    return Job(**{**whole, **changes})


IN_CONTAINER = Targets(local=LocalTarget(container=True))
