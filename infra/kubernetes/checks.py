"""What a cluster must have before a run is sent there: a volume, JobSet, a secret, and time enough for a save."""

import math
import re
from contextlib import suppress
from pathlib import Path

from infra.job import Job
from infra.kubernetes.cluster import Cluster, NotAllowedError
from infra.kubernetes.documents import OWN, SHARED
from infra.kubernetes.files import VOLUME
from infra.kubernetes.names import CONTAINER, pods_of
from infra.kubernetes.pod import secret_line
from trainwright.spec.exits import MissingError, UserError

JOB_SET_CRD = "jobsets.jobset.x-k8s.io"
SAVED = re.compile(r"checkpoint saved seconds=(\d+\.\d+)")
TAIL_LINES = 5000
MARGIN_S = 10
"""From the notice until the save begins: a step, and the ranks' agreement."""


def refuse_missing(job: Job, folder: Path, cluster: Cluster, *, shared: bool) -> None:
    """Raise `MissingError` for what a pod would wait for in vain; make the volume, if the experiment says its size.

    What this user may not look at is passed over: then the cluster itself will say it.
    """
    with suppress(NotAllowedError):
        _volume(job, folder, cluster, shared=shared)
    with suppress(NotAllowedError):
        _job_set(job, cluster)
    with suppress(NotAllowedError):
        _secret(job, cluster)


def _volume(job: Job, folder: Path, cluster: Cluster, *, shared: bool) -> None:
    settings = job.targets.kubernetes
    found = cluster.get("persistentvolumeclaim", settings.volume)
    if found is None and (folder / VOLUME).is_file():
        cluster.apply(folder / VOLUME)
        return
    if found is None:
        way = "`kubectl apply -k k8s/base` makes one, or let targets.kubernetes.volume_gib say its size"
        raise MissingError(f"targets.kubernetes.volume={settings.volume}: no such claim in {settings.namespace}; {way}")
    modes = found.get("spec", {}).get("accessModes", [])
    if shared and SHARED not in modes:
        way = f"name a volume that is {SHARED}, or make one with targets.kubernetes.volume_gib"
        has, why = ", ".join(modes) or OWN, "several pods write to it at once"
        raise UserError(f"targets.kubernetes.volume={settings.volume}: is {has}, and {why}; {way}")


def _job_set(job: Job, cluster: Cluster) -> None:
    if job.resources.nodes > 1 and cluster.get("crd", JOB_SET_CRD) is None:
        way = "its administrator installs it (docs/kubernetes.md), or use resources.nodes=1"
        raise MissingError(f"resources.nodes={job.resources.nodes}: this cluster has no JobSet; {way}")


def _secret(job: Job, cluster: Cluster) -> None:
    secret = job.targets.kubernetes.secret
    if not job.secrets or secret is None:
        return
    keys = cluster.keys(secret)
    missing = [name for name in job.secrets if name not in (keys or [])]
    if missing:
        what = f"has no {', '.join(missing)}" if keys is not None else "there is no such secret"
        raise MissingError(f"targets.kubernetes.secret={secret}: {what}; make it with\n  {secret_line(job)}")


def refuse_short_grace(job: Job, root: Path, cluster: Cluster) -> None:
    """Raise `UserError` when pods would be killed before a save as long as this run's longest is done."""
    longest = max([*_saves_below(root / "runs" / job.name), *saves_in(cluster, job.name)], default=None)
    grace = job.targets.kubernetes.grace_seconds
    if longest is None or grace >= (needed := math.ceil(longest) + MARGIN_S):
        return
    found = f"this run's saves took up to {longest:.0f} s, and a pod would be killed before one is done"
    raise UserError(f"targets.kubernetes.grace_seconds={grace}: {found}; give at least {needed}")


def _saves_below(run: Path) -> list[float]:
    """Return the seconds of saves that a run folder tells of, where this machine sees it."""
    return [float(found) for file in sorted(run.glob("logs/*.out")) for found in SAVED.findall(file.read_text("utf-8"))]


def saves_in(cluster: Cluster, name: str) -> list[float]:
    """Return the seconds of saves that the logs of the run's pods tell of, while those are there."""
    selector = ",".join(f"{label}={value}" for label, value in pods_of(name).items())
    words = (f"--selector={selector}", f"--container={CONTAINER}", f"--tail={TAIL_LINES}", "--ignore-errors")
    answer = cluster.engine.ask(*cluster.command("logs", *words))
    return [float(found) for found in SAVED.findall(answer.out)]
