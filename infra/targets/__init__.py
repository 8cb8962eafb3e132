"""The launch targets, by name: one file each, with `render(job)` and `start(folder, job)`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from infra.job import Job, Rendered
from infra.targets import local


@dataclass(frozen=True, slots=True)
class Target:
    """Where a job runs: `render` translates it into files, `start` gives the command that submits them."""

    render: Callable[[Job], tuple[Rendered, ...]]
    start: Callable[[Path, Job], list[str]]


TARGETS = {"local": Target(local.render, local.start)}
