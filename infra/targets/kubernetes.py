"""A Kubernetes cluster: plain manifests, sent by kubectl to whatever cluster it knows."""

from pathlib import Path

from infra.engine import Engine
from infra.job import Job, Rendered
from infra.kubernetes import launched, logs as printed
from infra.kubernetes.files import files_of
from infra.launches import Launch, State


def render(job: Job) -> tuple[Rendered, ...]:
    """Return the manifests in the order in which they are applied."""
    return files_of(job)


def image_of(job: Job) -> str | None:
    """Return the image."""
    return job.needed_image()


def send(job: Job, folder: Path, engine: Engine) -> str:
    """Refuse what the cluster lacks, prepare, then train; return how kubectl finds it again."""
    return launched.send(job, folder, engine)


def state(launch: Launch, engine: Engine) -> State:
    """Return what the cluster says of the run, and of a pod that cannot start."""
    return launched.state(launch, engine)


def logs(launch: Launch, engine: Engine, *, follow: bool) -> int:
    """Print what the first node says; with `follow`, through restarts."""
    return printed.show(launch, engine, follow=follow)


def end(launch: Launch, engine: Engine, reason: str) -> str:
    """Have the run saved and ended for good; return what was said."""
    return launched.end(launch, engine, reason)


def remove(launch: Launch, engine: Engine) -> None:
    """Delete the run's Jobs; its volume and its secret stay."""
    launched.remove(launch, engine)
