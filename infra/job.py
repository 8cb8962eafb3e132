"""The neutral description of a run: planned once here, only translated by the targets."""

from collections.abc import Sequence
from dataclasses import dataclass

from trainwright.spec.load import Loaded


@dataclass(frozen=True, slots=True)
class Job:
    """What runs, wherever it runs. Pure: the same experiment gives the same job."""

    name: str
    experiment_text: str
    """The experiment as its author wrote it; it travels with the job."""
    overrides: tuple[str, ...]
    flags: tuple[str, ...]
    """Flags of boot: --continue, --fresh."""
    nodes: int
    ranks_per_node: int

    @property
    def experiment_file(self) -> str:
        """Return the name under which the experiment travels."""
        return f"{self.name}.yaml"

    def boot_arguments(self, experiment_path: str) -> tuple[str, ...]:
        """Return the arguments of `trainwright` that run this job, given where the experiment lies."""
        return ("boot", experiment_path, *self.overrides, *self.flags)


@dataclass(frozen=True, slots=True)
class Rendered:
    """One file for an engine."""

    path: str
    text: str


def build_job(loaded: Loaded, flags: Sequence[str] = ()) -> Job:
    """Return the job of a loaded experiment."""
    experiment = loaded.experiment
    return Job(
        name=experiment.name,
        experiment_text=loaded.source,
        overrides=loaded.overrides,
        flags=tuple(flags),
        nodes=experiment.resources.nodes,
        ranks_per_node=experiment.resources.ranks_per_node,
    )
