"""The #SBATCH lines: what is asked of the queue, in each site's own spelling."""

from collections.abc import Iterator
from dataclasses import replace

from infra.job import Job
from infra.slurm.layout import log_path
from trainwright.spec.exits import UserError
from trainwright.spec.slurm import SlurmTarget

PREPARE_SUFFIX = "-prepare"


def train_directives(job: Job) -> list[str]:
    """Return the lines that ask for the nodes of training."""
    site, resources = job.targets.slurm, job.resources
    if site.needs_account and site.account is None:
        way = f"write `{site.site}: {{account: NAME}}` into experiments/sites/local.yaml"
        raise UserError(f"targets.slurm.account: {site.site} refuses jobs without one; {way}")
    minutes = resources.walltime_minutes or site.walltime_minutes
    lead = site.signal_lead_seconds
    if minutes is not None and lead >= 60 * minutes:
        hint = f"is as long as the whole job of {minutes:g} minutes; give less, or a longer walltime"
        raise UserError(f"targets.slurm.signal_lead_seconds={lead}: {hint}")
    cpus = resources.cpus_per_node or (site.cpus_per_gpu or 0) * resources.ranks_per_node
    options = [
        f"--job-name={job.name}",
        *_who_and_where(site, site.partition),
        *([f"--constraint={site.constraint}"] if site.constraint else []),
        f"--nodes={resources.nodes}",
        "--ntasks-per-node=1",
        *_gpus(job),
        *([f"--cpus-per-task={cpus}"] if cpus else []),
        *_memory(job),
        *([f"--time={_time(minutes)}"] if minutes else []),
        f"--signal=B:USR1@{lead}",
        *_continuation(site),
        *_output(job, "train"),
        *_mail(site),
        *site.options,
    ]
    return [f"#SBATCH {option}" for option in options]


def prepare_directives(job: Job) -> list[str]:
    """Return the lines that ask for the one CPU node of the preparation."""
    site = job.targets.slurm
    options = [
        f"--job-name={job.name}{PREPARE_SUFFIX}",
        *_who_and_where(site, site.prepare_partition),
        "--nodes=1",
        "--ntasks-per-node=1",
        f"--cpus-per-task={site.prepare_cpus}",
        f"--mem={site.prepare_memory_gib}G",
        f"--time={site.prepare_walltime_minutes}",
        "--requeue",
        *_output(job, "prepare"),
    ]
    return [f"#SBATCH {option}" for option in options]


def sweep_directives(job: Job, name: str, num_points: int, at_once: int) -> list[str]:
    """Return the lines that ask for one task of an array for each point, in the words of a point's own job."""
    own = ("--job-name=", "--array=", "--output=")
    kept = [line for line in train_directives(job) if not line.removeprefix("#SBATCH ").startswith(own)]
    base = job.name.removesuffix("-1")
    return [
        f"#SBATCH --job-name={name}",
        *kept,
        f"#SBATCH --array=1-{num_points}%{at_once}",
        f"#SBATCH --output={log_path(replace(job, name=f'{base}-%a'), 'train')}",
    ]


def _continuation(site: SlurmTarget) -> list[str]:
    if site.continuation == "array":
        return [f"--array=1-{site.links}%1"]
    return ["--requeue"] if site.continuation == "requeue" else []


def _who_and_where(site: SlurmTarget, partition: str | None) -> Iterator[str]:
    given = {"account": site.account, "partition": partition, "qos": site.qos}
    yield from (f"--{name}={value}" for name, value in given.items() if value)


def _gpus(job: Job) -> list[str]:
    site, count = job.targets.slurm, job.resources.num_gpus_per_node
    if not count or job.resources.device == "auto":
        return []
    of_type = f"{site.gpu_type}:" if site.gpu_type else ""
    return [f"--gres=gpu:{of_type}{count}" if site.gpu_flag == "gres" else f"--gpus-per-node={of_type}{count}"]


def _memory(job: Job) -> list[str]:
    if job.resources.memory_gib:
        return [f"--mem={int(job.resources.memory_gib * 1024)}M"]
    return ["--mem=0"] if job.targets.slurm.whole_memory else []


def _time(minutes: float) -> str:
    """Return a time limit as SLURM reads it: whole minutes, rounded down so that boot's own limit comes later."""
    return str(max(1, int(minutes)))


def _output(job: Job, what: str) -> list[str]:
    # One file for all jobs of a run, so that a log can be followed across requeues and links.
    return [f"--output={log_path(job, what)}", "--open-mode=append"]


def _mail(site: SlurmTarget) -> list[str]:
    return [f"--mail-user={site.mail_user}", f"--mail-type={site.mail_type}"] if site.mail_user else []
