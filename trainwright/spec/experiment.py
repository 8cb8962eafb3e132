"""The experiment: the whole file, its resources and places, and the kinds that its variants may take."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, Field, TypeAdapter

from trainwright.spec.data import BytesTokenizer, Data, Tokenizer
from trainwright.spec.model import Llama, Model
from trainwright.spec.optimizers import AdamW, Optimizer
from trainwright.spec.schedules import Cosine, Schedule
from trainwright.spec.settings import Count, CountOrZero, Name, OptionalCount, OptionalImage, OptionalName
from trainwright.spec.settings import OptionalPositive, OptionalText, Positive, Problem, Settings, VariableNames
from trainwright.spec.targets import Targets
from trainwright.spec.training import Checkpoint, Evaluation, Logging, Train


class Resources(Settings):
    """The machines of a run. Nothing here changes what is learned."""

    nodes: Count = 1
    """Machines."""
    ranks_per_node: Count = 1
    """Training processes on each machine: one for each GPU, or any number on CPUs."""
    device: Literal["cuda", "cpu", "auto"] = "cuda"
    """What the ranks compute on; `auto` takes GPUs when every rank of the machine can have one, else the CPU."""
    shard_ranks: OptionalCount = None
    """Ranks that share one copy of the model, such as those of one machine; null shares it among all."""
    gpu: OptionalText = None
    """The GPU that is planned for, such as H100; null takes what the target asks for."""
    walltime_minutes: OptionalPositive = None
    """The machine is taken away this long after boot started; the run saves and stops in time. Null is no limit."""
    hang_minutes: Positive = 10.0
    """A rank that finishes no step for this long is taken for hung: stacks are written, and the attempt fails."""
    slow_minutes: Positive = 30.0
    """The same for what may rightly take longer: starting, loading, compiling, evaluating, saving."""
    cpus_per_node: OptionalCount = None
    """CPU cores asked for on each machine; null leaves it to the target."""
    memory_gib: OptionalPositive = None
    """Memory asked for on each machine; null leaves it to the target."""
    shm_gib: OptionalPositive = None
    """Shared memory (/dev/shm) that containers are given and that boot insists on; null is 1 with GPUs, else none."""
    wait_minutes: Annotated[float, Field(ge=0, le=1440)] = 10.0
    """How long a node waits for what may still come: another node, a mount, a lease."""

    @property
    def num_gpus_per_node(self) -> int:
        """GPUs on each machine: one for each rank."""
        return 0 if self.device == "cpu" else self.ranks_per_node

    @property
    def needed_shm_gib(self) -> float:
        """Shared memory that a machine must have; NCCL talks through it, and containers come with 64 MiB."""
        return self.shm_gib or (1.0 if self.device == "cuda" else 0.0)


class Restart(Settings):
    """How often a run may be tried again by itself. Progress (a new shard or checkpoint) sets every count to zero."""

    losses: Count = 20
    """Attempts in a row that vanished without an end record: boot killed, node gone."""
    failures: Count = 3
    """Attempts in a row that failed."""
    same_step: Count = 2
    """Failures in a row at one step with one cause; more tries would only cost."""


class Paths(Settings):
    """Places other than those below `TRAINWRIGHT_ROOT`."""

    data: OptionalText = None
    """Instead of the root for datasets/, artifacts/ and assets/."""
    runs: OptionalText = None
    """Instead of runs/."""
    cache: OptionalText = None
    """Instead of cache/."""


class Experiment(Settings):
    """One pretraining run: everything that decides what is learned, and where and how long it runs."""

    name: Name
    """The run's name: its folder, and the name of jobs and pods."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 42
    """Seeds initial weights, data order and the choice of validation documents."""
    image: OptionalImage = None
    """The container image that runs this, by digest: what `make push` prints."""
    registry: OptionalName = None
    """The credential of a private registry, by the name under which the target keeps it."""
    secrets: VariableNames = ()
    """Secrets by name; the values come from the environment or from .env, and are never written anywhere."""
    data: Data = Data()
    """The corpus."""
    tokenizer: Tokenizer = BytesTokenizer()
    """The tokenizer."""
    model: Model = Llama()
    """The model."""
    train: Train
    """Batch and horizon."""
    optimizer: Optimizer = AdamW()
    """The optimizer."""
    schedule: Schedule = Cosine()
    """The learning rate over the run."""
    evaluation: Evaluation = Evaluation()
    """Validation during the run."""
    checkpoint: Checkpoint = Checkpoint()
    """Saving and keeping."""
    logging: Logging = Logging()
    """Figures."""
    resources: Resources = Resources()
    """Machines."""
    restart: Restart = Restart()
    """Trying again."""
    targets: Targets = Targets()
    """What each target needs to know."""
    paths: Paths = Paths()
    """Places."""

    @property
    def data_name(self) -> str:
        """The corpus's folder name."""
        return self.data.name or self.name

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer bundle's folder name."""
        return self.tokenizer.name or self.name


FREE_ON_RESUME = (
    "train.steps",
    "train.tokens",
    "train.tokens_per_parameter",
    "train.flops",
    "train.tokens_per_matrix_weight",
    "train.micro_batch",
    "train.recompute",
    "train.reduce_every_pass",
    "train.compile",
    "evaluation",
    "checkpoint",
    "logging",
    "resources",
    "restart",
    "image",
    "registry",
    "secrets",
    "targets",
    "paths",
    "train.nonfinite",
    "data.path",
    "data.validation",
    "data.shard",
    "data.workers",
    "data.encoder",
    "data.max_epochs",
    "data.reuse_shards",
    "data.memory_mib",
    "data.disk_reserve_gib",
    "data.work",
    "data.temporary",
    "data.remove_work_files",
    "data.source.download",
    "tokenizer.path",
)
"""Fields that may change on a run that exists; every other field decides what is learned and is fixed."""


def is_free(path: str) -> bool:
    """Return whether the field at a dotted path may change when a run resumes."""
    return any(path == free or path.startswith(free + ".") for free in FREE_ON_RESUME)


def walk_problems(settings: Settings) -> Iterator[Problem]:
    """Yield every problem in a settings tree, with paths from its root."""
    yield from settings.problems()
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Settings):
            yield from (problem.below(name) for problem in walk_problems(value))


def default_kind(section: str) -> str:
    """Return the `kind` of a section that an experiment does not mention."""
    owner: type[BaseModel] = Experiment
    *parents, last = section.split(".")
    for parent in parents:
        owner = _settings_types(owner, parent)[0]
    kind: str = owner.model_fields[last].default.kind
    return kind


def kinds(section: str) -> tuple[str, ...]:
    """Return the values of `kind` that a section of the experiment accepts (`model`, `data.source`, ...)."""
    owner: type[BaseModel] = Experiment
    *parents, last = section.split(".")
    for parent in parents:
        owner = _settings_types(owner, parent)[0]
    return tuple(variant.model_fields["kind"].default for variant in _settings_types(owner, last))


def default_value(path: str, values: Mapping[str, object]) -> object:
    """Return the default of the field at a dotted path as a plain value; None for what has none, or is no field.

    `values` tells the `kind` of sections. Fields of a section that is off by default have no default: without it they
    would mean nothing.
    """
    return _default(Experiment, None, "", path, values)


def _default(owner: type[BaseModel], section: object, above: str, path: str, values: Mapping[str, object]) -> object:
    """Return the default of a path below `owner`; `section` is that owner's default, which may be of another kind."""
    name, _, rest = path.partition(".")
    field = owner.model_fields.get(name)
    if field is None:
        return None
    of_kind = isinstance(section, owner)
    own = getattr(section, name) if of_kind else None if field.is_required() else field.get_default()
    if not rest:
        return TypeAdapter(object).dump_python(own, mode="json")
    if rest == "kind":
        return getattr(own, "kind", None)
    if own is None and not field.is_required():
        return None
    kind = values.get(f"{above}{name}.kind")
    for chosen in _settings_types(owner, name):
        if "kind" not in chosen.model_fields or chosen.model_fields["kind"].default == kind:
            return _default(chosen, own, f"{above}{name}.", rest, values)
    return None


def _settings_types(owner: type[BaseModel], name: str) -> list[type[BaseModel]]:
    annotation = owner.model_fields[name].annotation
    members = getattr(annotation, "__args__", None) or (annotation,)
    return [member for member in members if isinstance(member, type) and issubclass(member, BaseModel)]


__all__ = ["CountOrZero", "Experiment", "Paths", "Resources", "is_free", "kinds", "walk_problems"]
