"""What a cluster does when boot ends: by its exit code, as everywhere.

69 and 78 stop for good. 75 (interrupted, saved) and a pod that the cluster itself took away start again and count
nothing. Everything else counts. Rules are tried in order, and the first that fits decides: a wrong configuration stays
wrong when its node was drained as well.
"""

from typing import Any

from infra.kubernetes.names import CONTAINER
from trainwright.spec.exits import Exit

FINAL = (Exit.MISSING, Exit.REFUSED)
DISRUPTED = {"type": "DisruptionTarget", "status": "True"}
"""How a cluster marks a pod that it takes away: a drained node, a preemption, a node that is gone."""
FAILED_BY_RULE = "PodFailurePolicy"
OVER_TIME = "DeadlineExceeded"


def of_job() -> dict[str, Any]:
    """Return the rules of a Job for one node, and of the preparation."""
    return {"rules": [_on_codes("FailJob", *FINAL), _on_codes("Ignore", Exit.INTERRUPTED), _on_disruption("Ignore")]}


def of_points() -> dict[str, Any]:
    """Return the rules of a sweep: what ends one point for good leaves the others alone."""
    return {"rules": [_on_codes("FailIndex", *FINAL), _on_codes("Ignore", Exit.INTERRUPTED), _on_disruption("Ignore")]}


def of_nodes() -> dict[str, Any]:
    """Return the rules of the Job inside a JobSet: any end but 0 fails it, and its message says which end it was."""
    return {"rules": [_on_codes("FailJob", *FINAL), _on_codes("FailJob", Exit.INTERRUPTED), _on_disruption("FailJob")]}


def of_set(max_failures: int) -> dict[str, Any]:
    """Return the rules of a JobSet, which starts all nodes again or none.

    They read what Kubernetes says about the Job in it. Should those words change one day, no pattern fits any more,
    and then every end counts against the limit: wrong, but not for ever.
    """
    final = "|".join(str(int(code)) for code in FINAL)
    again = [rf"exit code {int(Exit.INTERRUPTED)}\b", rf"condition {DISRUPTED['type']}\b"]
    return {
        "maxRestarts": max_failures,
        # The nodes of before are gone before the next ones write to the volume.
        "restartStrategy": "BlockingRecreate",
        "rules": [
            _on_message("final", "FailJobSet", [rf"exit code ({final})\b"]),
            {"name": "overTime", "action": "FailJobSet", "onJobFailureReasons": [OVER_TIME]},
            _on_message("again", "RestartJobSetAndIgnoreMaxRestarts", again),
        ],
    }


def _on_codes(action: str, *codes: int) -> dict[str, Any]:
    values = [int(code) for code in codes]
    return {"action": action, "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": values}}


def _on_disruption(action: str) -> dict[str, Any]:
    return {"action": action, "onPodConditions": [dict(DISRUPTED)]}


def _on_message(name: str, action: str, patterns: list[str]) -> dict[str, Any]:
    return {
        "name": name,
        "action": action,
        "onJobFailureReasons": [FAILED_BY_RULE],
        "onJobFailureMessagePatterns": patterns,
    }
