"""A launch as the cluster sees it: sending, asking how it is doing, ending, removing."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra.engine import Engine
from infra.job import Job, movable_image
from infra.kubernetes.cluster import JOB, JOB_SET, Cluster, cluster_of, found_again, identity
from infra.kubernetes.files import CONFIG, PREPARE, SHARDS, TRAIN, is_shared
from infra.kubernetes.names import CONTAINER, pods_of, prepare_name, shards_name
from infra.kubernetes.checks import refuse_missing, refuse_short_grace
from infra.launches import Launch, State, record
from trainwright.spec.exits import MissingError, UserError

ASK_S = 5.0
OVER = {"Complete": "complete", "Completed": "complete", "Failed": "failed"}
"""Condition of a Job or JobSet that has come to its end -> our word for it."""


def send(job: Job, folder: Path, engine: Engine, wait: Callable[[float], None] = time.sleep) -> str:
    """Apply a run's manifests in their order, the preparation to its end; return how kubectl finds the run."""
    cluster = ready(job, folder, engine, shared=is_shared(job))
    return apply(job, folder, cluster, JOB_SET if job.resources.nodes > 1 else JOB, wait)


def ready(job: Job, folder: Path, engine: Engine, *, shared: bool) -> Cluster:
    """Refuse what cannot work before anything is sent; return the cluster, which has what the job needs."""
    if problem := movable_image(job.targets.kubernetes.prepare_image):
        raise UserError(f"targets.kubernetes.prepare_{problem}")
    if not engine.has("kubectl"):
        raise MissingError("kubectl: not on this machine; install it, and give it access to the cluster")
    cluster = cluster_of(job, engine)
    refuse_short_grace(job, folder.parents[1], cluster)
    refuse_missing(job, folder, cluster, shared=shared)
    return cluster


def apply(job: Job, folder: Path, cluster: Cluster, kind: str, wait: Callable[[float], None] = time.sleep) -> str:
    """Apply the manifests in a folder in place of what an earlier launch has left."""
    sent = identity(kind, job.name, cluster)
    # A run of one node may have been one of several before.
    others = (JOB, JOB_SET) if kind == JOB_SET else (JOB,)
    for other in others:
        make_room(cluster, other, job.name)
    cluster.apply(folder / CONFIG)
    if job.targets.kubernetes.prepare == "job":
        # On record before it is over: the preparation of a large corpus takes hours, and has a log.
        record(job.name, "kubernetes", sent, folder)
        _say(f"{job.name}: is prepared, then training is sent; `trainwright logs {job.name}` shows the log")
        _say("interrupt this at will: the preparation goes on, and the same command goes on with it")
        if job.targets.kubernetes.prepare_parts > 1:
            to_its_end(cluster, shards_name(job.name), folder / SHARDS, wait)
        to_its_end(cluster, prepare_name(job.name), folder / PREPARE, wait)
    cluster.apply(folder / TRAIN)
    return sent


def make_room(cluster: Cluster, kind: str, name: str) -> None:
    """Remove what an earlier launch has left under a name; refuse when it still runs."""
    found = cluster.get(kind, name)
    if found is None:
        return
    if (state := state_of(found)).live:
        say = cluster.line("get", f"{kind}/{name}")
        raise UserError(f"{name}: is {state.word} on that cluster, launched from elsewhere; `{say}` shows it")
    cluster.delete(f"{kind}/{name}")


def to_its_end(cluster: Cluster, called: str, manifest: Path, wait: Callable[[float], None]) -> None:
    """Run a step before training to its end; one that an interrupted launch has begun is gone on with."""
    found = cluster.get(JOB, called)
    if found is not None and not state_of(found).live:
        cluster.delete(f"{JOB}/{called}")
    cluster.apply(manifest)
    told = ""
    while True:
        state = _state(cluster, JOB, called)
        if not state.live:
            break
        if state.word != told:
            _say(f"{called}: {state.word}")
            told = state.word
        wait(ASK_S)
    if state.word != OVER["Complete"]:
        say = cluster.line("logs", f"{JOB}/{called}")
        raise UserError(f"{called}: {state.word}; training was not sent; `{say}` says why")


def state(launch: Launch, engine: Engine) -> State:
    """Return what the cluster says of a launch; while only its preparation is there, nothing trains yet."""
    cluster, kind, name = found_again(launch, engine)
    found = _state(cluster, kind, name)
    if found.word != "removed":
        return found
    for called in (prepare_name(name), shards_name(name)):
        if (before := _state(cluster, JOB, called)).word != "removed":
            # Not live: the launch that was interrupted may be sent again, and goes on with its preparation.
            return State(f"preparing: {before.word}", live=False)
    return found


def _state(cluster: Cluster, kind: str, name: str) -> State:
    found = cluster.get(kind, name)
    if found is None:
        return State("removed", live=False)
    told = state_of(found)
    return State(waits, live=True) if told.live and (waits := _waits(cluster, name, kind)) else told


def state_of(found: dict[str, Any]) -> State:
    """Return the state of a Job or JobSet by its own conditions, with the reason of a failure."""
    status = found.get("status", {})
    for condition in status.get("conditions", ()):
        if condition.get("status") != "True":
            continue
        if condition["type"] in OVER:
            why = ": ".join(text for text in (condition.get("reason"), condition.get("message")) if text)
            word = OVER[condition["type"]]
            return State(word if word == "complete" or not why else f"{word} ({why})", live=False)
    if found.get("spec", {}).get("suspend"):
        return State("suspended, waits for its queue", live=True)
    if found.get("spec", {}).get("completionMode") == "Indexed":
        return State(f"running, {status.get('succeeded', 0)} of {found['spec'].get('completions')} done", live=True)
    restarts = status.get("restarts", 0) or status.get("failed", 0)
    return State("running" if not restarts else f"running, started {restarts + 1} times", live=True)


def _waits(cluster: Cluster, name: str, kind: str) -> str:
    """Return what the newest pod of a Job or JobSet waits for; empty when it runs."""
    label = "batch.kubernetes.io/job-name" if kind == JOB else "jobset.sigs.k8s.io/jobset-name"
    pods = [pod for pod in cluster.pods({label: name}) if pod["status"].get("phase") == "Pending"]
    for pod in pods[-1:]:
        for container in pod["status"].get("containerStatuses", ()):
            waiting = container.get("state", {}).get("waiting", {})
            if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
                return f"waits: {waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")
        for condition in pod["status"].get("conditions", ()):
            if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
                return f"waits for a node: {condition.get('message', condition.get('reason', ''))}"
        return "starting"
    return ""


def end(launch: Launch, engine: Engine, reason: str) -> str:
    """Ask the run to save and end for good, from inside its first pod; return what was said there."""
    cluster, _, name = found_again(launch, engine)
    running = [pod["metadata"]["name"] for pod in cluster.pods(pods_of(name)) if _runs(pod)]
    way = f"{cluster.line('delete', launch.id.split(' ')[0])} takes its job away"
    if not running:
        raise UserError(f"{name}: has no pod that runs, and only a pod sees its folder; {way}")
    answer = cluster.run_in(running[0], CONTAINER, "trainwright", "stop", name, "--reason", reason)
    if answer.code != 0:
        raise MissingError(f"{running[0]}: {(answer.err or answer.out).strip()}; {way}")
    return answer.out.strip()


def _runs(pod: dict[str, Any]) -> bool:
    return pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]


def remove(launch: Launch, engine: Engine) -> None:
    """Delete the Jobs of a launch and what belongs to them alone; volume and secret stay."""
    cluster, _, _ = found_again(launch, engine)
    files = [
        f"--filename={launch.path / name}"
        for name in (TRAIN, PREPARE, SHARDS, CONFIG)
        if (launch.path / name).is_file()
    ]
    cluster.delete(*files)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - progress of a word, beside its answer
