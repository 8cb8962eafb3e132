"""The log of a run on a cluster: that of its preparation, then of its first node, through all restarts."""

import time
from collections.abc import Callable
from typing import Any

from infra.engine import Engine
from infra.kubernetes.cluster import Cluster, found_again
from infra.kubernetes.launched import state
from infra.kubernetes.names import CONTAINER, pods_of
from infra.launches import Launch
from trainwright.spec.exits import Exit, UserError

INDEX = "batch.kubernetes.io/job-completion-index"
ASK_S = 3.0


def show(launch: Launch, engine: Engine, *, follow: bool, wait: Callable[[float], None] = time.sleep) -> int:
    """Print what the pods of a launch said, one after the other; with `follow`, until the run is over."""
    cluster, _, name = found_again(launch, engine)
    shown: set[str] = set()
    try:
        while True:
            live = state(launch, engine).live
            new = [pod for pod in cluster.pods(pods_of(name)) if _speaks(pod) and pod["metadata"]["uid"] not in shown]
            for pod in new:
                _print(cluster, pod, follow=follow)
                shown.add(pod["metadata"]["uid"])
            if not follow or (not live and not new):
                break
            if not new:
                wait(ASK_S)
    except KeyboardInterrupt:
        return Exit.OK
    if not shown:
        raise UserError(f"{name}: no pod has said anything yet; it is {state(launch, engine).word}")
    return Exit.OK


def _speaks(pod: dict[str, Any]) -> bool:
    """Return whether a pod is the first of its kind, or a point or part of its own, and has a log."""
    labels, notes = pod["metadata"].get("labels", {}), pod["metadata"].get("annotations", {})
    first = labels.get("app.kubernetes.io/component") in ("sweep", "shards") or notes.get(INDEX, "0") == "0"
    return first and pod["status"].get("phase") in ("Running", "Succeeded", "Failed")


def _print(cluster: Cluster, pod: dict[str, Any], *, follow: bool) -> None:
    name = pod["metadata"]["name"]
    flags = ["--follow"] if follow and pod["status"]["phase"] == "Running" else []
    cluster.engine.show(*cluster.command("logs", name, f"--container={CONTAINER}", *flags))
