"""A SLURM site: one job, one task a node, the image through Apptainer. Runs on a login node of the site."""

from pathlib import Path

from infra.engine import Engine
from infra.job import Job, Rendered
from infra.launches import Launch, State
from infra.slurm import jobs
from infra.slurm.layout import node_script, prepare_script, train_script, venv_script
from infra.slurm.node import node_text, venv_text
from infra.slurm.scripts import prepare_text, train_text


def render(job: Job) -> tuple[Rendered, ...]:
    """Return the job scripts, the script that every node runs, and the experiment."""
    name, site = job.name, job.targets.slurm
    venv = [Rendered(venv_script(name), venv_text(job))] if site.container == "off" else []
    prepare = [] if site.prepare == "off" else [Rendered(prepare_script(name), prepare_text(job))]
    return (
        Rendered(train_script(name), train_text(job)),
        *prepare,
        Rendered(node_script(name), node_text(job)),
        *venv,
        Rendered(job.experiment_file, job.experiment_text),
    )


def image_of(job: Job) -> str | None:
    """Return the image, unless a SIF or a virtual environment is named instead."""
    site = job.targets.slurm
    return None if site.container == "off" or site.sif is not None else job.image


def send(job: Job, folder: Path, engine: Engine) -> str:
    """Check all that can be checked without a GPU, then queue preparation and training."""
    return jobs.submit(job, folder, engine)


def state(launch: Launch, engine: Engine) -> State:
    """Return what the queue says of the launch's jobs."""
    return jobs.state(launch, engine)


def logs(launch: Launch, engine: Engine, *, follow: bool) -> int:
    """Print what the jobs said; with `follow`, through requeues and links until none is left."""
    return jobs.logs(launch, engine, follow=follow)


def remove(launch: Launch, engine: Engine) -> None:
    """Cancel the launch's jobs."""
    jobs.cancel(launch, engine)
