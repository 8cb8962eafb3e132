"""What `launch`, `ps`, `logs` and `delete` need of RunPod: the functions behind infra/targets/runpod.py."""

import os
import sys
from pathlib import Path

from infra.engine import Engine
from infra.launches import Launch, State
from infra.runpod import cloud
from infra.runpod.answers import Pod
from infra.runpod.client import Client, connect
from infra.runpod.create import candidates, create, prepared
from infra.runpod.logs import follow as followed, lines
from infra.runpod.manifest import read_manifest
from infra.runpod.ssh import run_inside
from trainwright.spec.exits import MissingError, UserError

CLUSTER = "cluster:"
"""Before the id of a cluster in a launch record."""


def say(text: str) -> None:
    """Tell a person how a request is going."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - progress of a word, beside its answer


def send(path: Path, engine: Engine) -> str:
    """Create what a rendered manifest asks for; return its id."""
    client = connect({**os.environ, **engine.environ})
    manifest = prepared(client, read_manifest(path))
    made = create(client, manifest, iter(candidates(client, manifest)), say)
    return f"{CLUSTER}{made.id}" if made.is_cluster else made.id


def state(launch: Launch, engine: Engine) -> State:
    """Return the state of a pod, or of a cluster's nodes, with what was spent."""
    client = connect({**os.environ, **engine.environ})
    found = _pods(client, launch)
    if not found:
        return State("removed", live=False)
    now = client.clock.now()
    price = sum(one.dollars_per_hour for one in found)
    spent = sum(one.spent(now) for one in found)
    word = " ".join(sorted({one.status for one in found}))
    money = f"${spent:.2f} so far, ${price:.2f} an hour" if price else "stopped, only storage is billed"
    return State(f"{word} ({money})", live=any(one.live for one in found))


def show_logs(launch: Launch, engine: Engine, *, follow: bool) -> int:
    """Print the log of the pod, or of a cluster's first node."""
    client = connect({**os.environ, **engine.environ})
    found = _pods(client, launch)
    if not found:
        raise UserError(
            f"{launch.name}: its pod {launch.id} is gone, and its log with it; the run folder is on the volume"
        )
    for line in followed(client, found[0].id) if follow else lines(client, found[0].id, tail=5000):
        print(line.text, flush=True)  # noqa: T201 - the word's answer
    return 0


def end(launch: Launch, engine: Engine, reason: str) -> str:
    """Ask the run to save and end for good, from inside its first pod: only that sees the run's folder."""
    client = connect({**os.environ, **engine.environ})
    found = _pods(client, launch)
    if not found:
        raise UserError(f"{launch.name}: its pod {launch.id} is gone already, and its run is on the volume")
    words = ["trainwright", "stop", launch.name, "--reason", reason]
    way = f"`trainwright runpod delete {found[0].id}` ends it at once, and the run keeps its newest checkpoint"
    try:
        code = run_inside(client, engine, found[0], words, terminal=False)
    except UserError as error:
        raise MissingError(f"{error}; {way}") from None
    if code != 0:
        raise MissingError(f"{found[0].id}: could not be told (exit code {code}); {way}")
    return f"{launch.name}: saves and ends, and then its pod does what its orders say"


def remove(launch: Launch, engine: Engine) -> None:
    """Delete the pod or cluster."""
    client = connect({**os.environ, **engine.environ})
    if launch.id.startswith(CLUSTER):
        cloud.delete_cluster(client, launch.id.removeprefix(CLUSTER))
    else:
        cloud.delete_pod(client, launch.id)


def _pods(client: Client, launch: Launch) -> list[Pod]:
    if launch.id.startswith(CLUSTER):
        return cloud.cluster_pods(client, launch.id.removeprefix(CLUSTER))
    found = cloud.pod(client, launch.id)
    return [found] if found is not None else []
