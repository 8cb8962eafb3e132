"""A pod at RunPod, or with several nodes a cluster: their own create body, sent as it was rendered."""

from pathlib import Path

from infra.engine import Engine
from infra.job import Job, Rendered
from infra.launches import Launch, State
from infra.runpod import launched
from infra.runpod.body import document
from infra.yaml_text import yaml_text

MANIFEST = "pod.yaml"
HEADER = """\
# Runs the experiment {name}: `trainwright runpod create pod -f {file}`. Rendered; edit the experiment instead, or for
# another experiment that the image carries RUN_CONFIG and RUN_EXPERIMENT. A volume may be given by its name.
"""


def render(job: Job) -> tuple[Rendered, ...]:
    """Return RunPod's create body and our block of what it lacks."""
    return (Rendered(MANIFEST, HEADER.format(name=job.name, file=MANIFEST) + yaml_text(document(job))),)


def image_of(job: Job) -> str | None:
    """Return the image."""
    return job.needed_image()


def send(job: Job, folder: Path, engine: Engine) -> str:
    """Create the pod or cluster; return its id."""
    del job
    return launched.send(folder / MANIFEST, engine)


def state(launch: Launch, engine: Engine) -> State:
    """Return what RunPod says of it, and what it has cost so far."""
    return launched.state(launch, engine)


def logs(launch: Launch, engine: Engine, *, follow: bool) -> int:
    """Print the container's log; with `follow`, through dropped connections and restarts."""
    return launched.show_logs(launch, engine, follow=follow)


def end(launch: Launch, engine: Engine, reason: str) -> str:
    """Have the run saved and ended for good; return what was said."""
    return launched.end(launch, engine, reason)


def remove(launch: Launch, engine: Engine) -> None:
    """Delete the pod or cluster; its volume stays."""
    launched.remove(launch, engine)
