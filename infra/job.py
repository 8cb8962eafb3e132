"""The neutral description of a run: planned once here, only translated by the targets."""

from collections.abc import Sequence
from dataclasses import dataclass

from trainwright.spec.exits import UserError
from trainwright.spec.experiment import Experiment, Resources
from trainwright.spec.load import Loaded
from trainwright.spec.targets import Targets
from trainwright.spec.variables import BOOT_VARIABLES

IMAGE_ROOT = "/workspace"
"""Where the root volume lies inside the image."""
SCRATCH = "/tmp"  # noqa: S108 - a place inside the container, fresh with each start
"""The one other place inside the image that may be written."""


@dataclass(frozen=True, slots=True)
class Job:
    """What runs, wherever it runs. Pure: the same experiment gives the same job."""

    name: str
    experiment_text: str
    """The experiment as its author wrote it; it travels with the job."""
    overrides: tuple[str, ...]
    flags: tuple[str, ...]
    """Flags of boot: --continue, --fresh."""
    environ: tuple[tuple[str, str], ...]
    """The boot variables with their values, rendered as plain entries to edit by hand."""
    image: str | None
    registry: str | None
    secrets: tuple[str, ...]
    """Names only."""
    resources: Resources
    targets: Targets
    folders: tuple[str, ...] = ()
    """Files and folders of the host that the experiment names by absolute paths."""
    runs: str | None = None
    """The folder of runs, where it is not `runs/` of the root."""

    @property
    def experiment_file(self) -> str:
        """Return the name under which the experiment travels."""
        return f"{self.name}.yaml"

    def boot_arguments(self, experiment_path: str) -> tuple[str, ...]:
        """Return the arguments of `trainwright` that run this job, given where the experiment lies."""
        return ("boot", experiment_path, *self.overrides, *self.flags)

    def needed_image(self) -> str:
        """Return the image, for a target that cannot do without; refuse when there is none."""
        if self.image is None:
            raise UserError("image: this target runs the image, and none is named; `make push` prints what to write")
        return self.image


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
        environ=_boot_variables(experiment),
        image=experiment.image,
        registry=experiment.registry,
        secrets=experiment.secrets,
        resources=experiment.resources,
        targets=experiment.targets,
        folders=_folders(experiment),
        runs=experiment.paths.runs,
    )


def movable_image(image: str | None) -> str | None:
    """Return what is wrong with an image reference that may mean another image tomorrow; None when it is a digest.

    An image that only this machine has (`localhost/...`) cannot be pushed over, and has no digest until it is pushed.
    """
    if image is None or "@sha256:" in image or image.startswith("localhost/"):
        return None
    return f"image={image}: a tag may mean another image tomorrow; push with `make push`, and use the digest it prints"


def _folders(experiment: Experiment) -> tuple[str, ...]:
    paths, data = experiment.paths, experiment.data
    named = (paths.data, paths.runs, paths.cache, data.path, data.validation, experiment.tokenizer.path)
    return tuple(dict.fromkeys(path for path in named if path is not None and path.startswith("/")))


def _boot_variables(experiment: Experiment) -> tuple[tuple[str, str], ...]:
    found = []
    for name, path in BOOT_VARIABLES.items():
        value: object = experiment
        for part in path.split("."):
            value = getattr(value, part)
        found.append((name, str(int(value) if isinstance(value, bool) else value)))
    return tuple(found)
