"""Ends the pod that boot runs in: asks RunPod's API, rung by rung, and says loudly when nobody listens.

A pod's own key may do less than its owner's, and accounts differ in what. So what is wanted is asked for first, then
what costs less than staying. Only the standard library: the image needs nothing for it.
"""

import http.client
import json
import logging
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from trainwright.spec.runpod import OWN_KEY_VARIABLE, Fate

log = logging.getLogger("boot")

BASE_VARIABLE = "RUNPOD_API_URL"
BASE = "https://api.runpod.io"
KEY_VARIABLES = (OWN_KEY_VARIABLE, "RUNPOD_API_KEY")
TIMEOUT_S = 20.0
ROUNDS = 6
FIRST_PAUSE_S = 5.0
"""Doubled after each round: five minutes in all, in which a bad moment of the API passes."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One request that ends the pod, or at least its costs."""

    what: str
    method: str
    path: str
    body: Mapping[str, str] | None = None


def rungs(pod_id: str, fate: Fate) -> list[Rung]:
    """Return what is asked for, in order."""

    def action(word: str) -> Rung:
        return Rung(f"{word} the pod", "POST", f"/v2/pods/{pod_id}/action", {"action": word})

    delete = [Rung("delete the pod", "DELETE", f"/v2/pods/{pod_id}"), action("terminate")]
    # A stopped pod costs little, and one that cannot be stopped loses nothing by going: its run is on the volume.
    return [*delete, action("stop")] if fate == "delete" else [action("stop"), *delete]


def end_pod(
    pod_id: str, fate: Fate, cluster: str | None, environ: Mapping[str, str], wait: Callable[[float], None]
) -> bool:
    """Delete or stop the pod (or the cluster that it is a node of); return whether RunPod said that it will be done."""
    for number in range(ROUNDS):
        if number:
            wait(FIRST_PAUSE_S * 2 ** (number - 1))
        for key in _keys(environ):
            api = Api(environ.get(BASE_VARIABLE) or BASE, key)
            ladder = list(_cluster_rungs(api, cluster)) if cluster is not None else rungs(pod_id, fate)
            for rung in ladder:
                status, said = api.ask(rung.method, rung.path, rung.body)
                # A 404 is no yes: a key that may not see this pod hears it too. If the pod is gone, so are we.
                if 200 <= status < 300:
                    log.info("pod: RunPod was asked to %s, and agreed (%d)", rung.what, status)
                    return True
                log.warning("pod: RunPod was asked to %s, and refused: %s", rung.what, said or status)
    log.error(
        "pod: *** THIS POD IS STILL BILLED, AND ITS RUN IS OVER. Delete it: trainwright runpod delete %s ***", pod_id
    )
    return False


def _cluster_rungs(api: "Api", cluster: str) -> Iterator[Rung]:
    """Yield what ends a cluster: a node cannot go alone, and the cluster's id was not known before it was made."""
    status, said = api.ask("GET", "/v2/clusters")
    try:
        found = [one["id"] for one in json.loads(said)["clusters"] if one["name"] == cluster] if status == 200 else []
    except (ValueError, KeyError, TypeError):
        found = []
    if not found:
        log.warning("pod: cluster %s was not found (%s)", cluster, status or said)
    for identity in found:
        yield Rung(f"delete cluster {identity}", "DELETE", f"/v2/clusters/{identity}")


def _keys(environ: Mapping[str, str]) -> list[str]:
    return list(dict.fromkeys(environ[name] for name in KEY_VARIABLES if environ.get(name)))


@dataclass(frozen=True, slots=True)
class Api:
    """RunPod's API, for a few requests; the key is not shown."""

    base: str
    key: str

    def __repr__(self) -> str:
        return f"Api({self.base})"

    def ask(self, method: str, path: str, body: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Send one request; return its status (0 when no answer came) and what was said."""
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.base + path, data, headers, method=method)  # noqa: S310 - the base is ours
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 - likewise
                return answer.status, answer.read().decode("utf-8", errors="replace")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read(2000).decode("utf-8", errors="replace")
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error)
