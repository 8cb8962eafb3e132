"""What a SLURM site needs to know: nearly all of it comes from a site profile and the user's `local.yaml`."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, StringConstraints

from trainwright.spec.settings import Count, CountOrZero, Off, OptionalCount, OptionalName, OptionalPositive, Problem
from trainwright.spec.settings import Settings

PATTERN = r"^[^\s'\"\\#$`;<>]+$"
"""A word that an #SBATCH line and a shell both take as it is."""


def _listed(value: Any) -> Any:
    """Read `A,B` or `A B` as a list: overrides and short profiles have no other way to write one."""
    return value.replace(",", " ").split() if isinstance(value, str) else value


Word = Annotated[str, StringConstraints(pattern=PATTERN, max_length=512)]
Words = Annotated[tuple[Word, ...], BeforeValidator(_listed)]
OptionalWord = Annotated[Word | None, Off]
OptionalPlace = Annotated[
    Annotated[str, StringConstraints(pattern=r"^(\$[A-Z_][A-Z0-9_]*|/)[A-Za-z0-9_./@+-]*$", max_length=512)] | None, Off
]
"""A folder, absolute, or below one that a variable of the job names, such as $SLURM_TMPDIR."""
Continuation = Literal["requeue", "chain", "array", "off"]


class SlurmTarget(Settings):
    """A SLURM site: one job, one task a node, the image through Apptainer."""

    site: OptionalName = None
    """The profile in experiments/sites; null lets `render`, `launch` and `fetch` look at the host's name."""
    hosts: Words = ()
    """Names of the site's hosts, with * for any text; by these the site is recognised."""
    fetch_hosts: Words = ()
    """Hosts of the site that reach the internet, with *; empty means that any host may try."""
    internet: bool = True
    """Whether the nodes that jobs run on reach the internet; false makes every library work offline."""
    account: OptionalWord = None
    """Who pays; your own, in experiments/sites/local.yaml."""
    needs_account: bool = False
    """Whether the site refuses jobs without an account."""
    partition: OptionalWord = None
    """Where jobs with GPUs run; null is the site's default."""
    qos: OptionalWord = None
    """Quality of service."""
    constraint: OptionalWord = None
    """Features that nodes must have."""
    options: Words = ()
    """More options of sbatch, as --name or --name=value."""
    gpu_flag: Literal["gpus-per-node", "gres"] = "gpus-per-node"
    """How GPUs are asked for: --gpus-per-node=TYPE:N, or --gres=gpu:TYPE:N."""
    gpu_type: OptionalWord = None
    """The type in that request; null takes any."""
    gpu_types: Words = ()
    """The types that the site knows; empty leaves the judgement to sbatch."""
    cpus_per_gpu: OptionalCount = None
    """CPU cores for each rank where the experiment names none."""
    whole_memory: bool = False
    """Ask for all memory of each node (--mem=0) where the experiment names none."""
    walltime_minutes: OptionalPositive = None
    """The job's time limit where the experiment names none; null is the partition's default."""
    mail_user: OptionalWord = None
    """Where SLURM sends its mails; null sends none."""
    mail_type: Word = "BEGIN,END,FAIL"
    """On which occasions."""
    modules: Words = ()
    """Modules to load on each node, in order."""
    container: Literal["apptainer", "off"] = "apptainer"
    """Run the SIF with apptainer or singularity, whichever is there; off runs a virtual environment of the site."""
    sif: OptionalPlace = None
    """The SIF; null is the one that `fetch` makes below assets/sif from the experiment's image."""
    venv: OptionalPlace = None
    """The virtual environment without a container; null is the one that `fetch` makes in venv/ of the root."""
    container_flags: Words = ()
    """More flags of apptainer exec, such as --no-privs."""
    binds: Words = ()
    """More folders to show to the container, as HOST or HOST:INSIDE."""
    scratch: OptionalPlace = None
    """A folder of each node's own disk; null is /tmp."""
    scratch_gib: CountOrZero = 1
    """Free space that it must have when a job starts."""
    network_interface: OptionalWord = None
    """What NCCL and gloo talk through (NCCL_SOCKET_IFNAME); null lets them choose."""
    wandb_entity: OptionalWord = None
    """Your team at Weights & Biases."""
    continuation: Continuation = "requeue"
    """How a run goes on after a job: the same job again, a chain of jobs, the tasks of an array, or by hand."""
    links: Count = 10
    """Jobs of a chain or array."""
    signal_lead_seconds: Count = 300
    """How long before its time limit a job is told to save."""
    prepare: Literal["job", "here", "off"] = "job"
    """Where shards and tokenizer are made: in a CPU job, on this host before the job is sent, or in the job itself."""
    prepare_partition: OptionalWord = None
    """Where the CPU job runs; null is the site's default."""
    prepare_walltime_minutes: Count = 180
    """Its time limit."""
    prepare_cpus: Count = 8
    """Its CPU cores."""
    prepare_memory_gib: Count = 32
    """Its memory."""

    def problems(self) -> Iterator[Problem]:
        """Check the spelling of GPUs and of options, and that the lead lies within the job."""
        if self.gpu_type is not None and self.gpu_types and self.gpu_type not in self.gpu_types:
            yield Problem("gpu_type", self.gpu_type, f"this site knows {', '.join(self.gpu_types)}")
        for option in self.options:
            if not option.startswith("--"):
                yield Problem("options", option, "an option of sbatch is written --name or --name=value")
        if self.walltime_minutes is not None and self.signal_lead_seconds >= 60 * self.walltime_minutes:
            hint = f"is as long as the whole job of {self.walltime_minutes:g} minutes; give less"
            yield Problem("signal_lead_seconds", self.signal_lead_seconds, hint)
