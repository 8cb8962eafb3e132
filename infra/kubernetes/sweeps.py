"""A sweep as one Indexed Job: each index boots one point, with the words that a file of its own holds."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from infra.engine import Engine
from infra.job import Job, Rendered, movable_image
from infra.kubernetes import documents
from infra.kubernetes.cluster import JOB
from infra.kubernetes.documents import POINT_SUFFIX
from infra.kubernetes.files import TRAIN, before, is_shared, rendered
from infra.kubernetes.launched import apply, ready
from infra.kubernetes.names import refuse_long
from infra.launches import launch_folder, record
from trainwright.spec.exits import UserError
from trainwright.store.files import write_text


def sweep_files(jobs: Sequence[Job], name: str, at_once: int) -> tuple[Rendered, ...]:
    """Return the manifests of a sweep under its own name; the first point prepares for all."""
    for job in jobs:
        documents.refuse_what_a_cluster_cannot(job)
        if job.resources.nodes > 1:
            way = "a point of a sweep is one pod; launch the points one by one"
            raise UserError(f"resources.nodes={job.resources.nodes}: {way}")
    refuse_long(name, f"-{len(jobs) - 1}", f"{len(jobs)} points")
    whole = replace(jobs[0], name=name)
    words = {f"{number}{POINT_SUFFIX}": _lines(job) for number, job in enumerate(jobs)}
    # What the variables would say differs from point to point, and they are stronger than words.
    points = documents.points(replace(whole, environ=()), len(jobs), at_once)
    return (
        *before(whole, documents.config_map(whole, words), min(at_once, len(jobs))),
        rendered(TRAIN, f"{len(jobs)} points, {at_once} at once,", whole, points),
    )


def _lines(job: Job) -> str:
    for word in job.overrides:
        if len(word.splitlines()) != 1:
            raise UserError(f"{word!r}: is more than one line, which no sweep passes on; put it into the experiment")
    return "".join(f"{word}\n" for word in job.overrides)


def send_sweep(jobs: Sequence[Job], name: str, root: Path, engine: Engine, at_once: int) -> str:
    """Apply the manifests of a sweep, the preparation to its end; return how kubectl finds it."""
    if problem := movable_image(jobs[0].image):
        raise UserError(problem)
    folder = launch_folder(root, name)
    for file in sweep_files(jobs, name, at_once):
        write_text(folder / file.path, file.text)
    whole = replace(jobs[0], name=name)
    cluster = ready(whole, folder, engine, shared=is_shared(whole, min(at_once, len(jobs))))
    sent = apply(whole, folder, cluster, JOB)
    record(name, "kubernetes", sent, folder)
    return sent
