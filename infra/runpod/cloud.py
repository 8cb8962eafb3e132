"""What is at RunPod: pods, clusters, volumes and the catalogue, asked for by id or by name."""

from collections.abc import Sequence
from typing import Any

from infra.runpod.answers import Offer, Pod, Volume, offer_of, pod_of, volume_of
from infra.runpod.client import Client, LostAnswerError, RunpodError
from trainwright.spec.exits import UserError

POLL_S = 6.0
"""Between two looks: 60 requests a minute are allowed, over all that a key is used for."""


def pods(client: Client) -> list[Pod]:
    """Return all pods, those of clusters too."""
    found = client.ask("GET", "/v2/pods", query={"includeClusterPods": "true"})
    return [pod_of(one) for one in found["pods"]]


def pod(client: Client, identity: str) -> Pod | None:
    """Return a pod by id; None when RunPod has none."""
    try:
        return pod_of(client.ask("GET", f"/v2/pods/{identity}"))
    except RunpodError as error:
        if error.status != 404:
            raise
        return None


def find_pod(client: Client, name: str) -> Pod:
    """Return a pod by its id or by its name; of several of one name the one that lives."""
    known = pods(client)
    named = [one for one in known if name in (one.id, one.name)]
    found = [one for one in named if one.live] or named
    if not found:
        here = ", ".join(f"{one.id} ({one.name})" for one in known)
        raise UserError(f"{name}: no such pod; {f'there are {here}' if here else 'there are none'}")
    if len(found) > 1:
        raise UserError(f"{name}: {len(found)} pods have this name: {', '.join(one.id for one in found)}; give the id")
    return found[0]


def act(client: Client, found: Pod, action: str) -> Pod | None:
    """Start or stop a pod; return how it is then, or None when it is gone.

    A lost answer is looked into: an action that was carried out must not be asked for again, as that would be refused.
    """
    try:
        answer = client.ask("POST", f"/v2/pods/{found.id}/action", {"action": action})
    except LostAnswerError:
        client.clock.wait(POLL_S)
        now = pod(client, found.id)
        if now is not None and now.live != (action == "start"):
            raise
        return now
    except RunpodError as error:
        if error.status == 404:
            return None
        if error.status == 409 and found.cluster:
            raise UserError(f"{found.id}: is a node of cluster {found.cluster}; delete that as a whole") from None
        raise
    return pod_of(answer) if answer else None


def delete_pod(client: Client, identity: str) -> bool:
    """Delete a pod; return whether there was one. One that is gone already is no error."""
    return _delete(client, f"/v2/pods/{identity}")


def delete_cluster(client: Client, identity: str) -> bool:
    """Delete a cluster with all its pods; return whether there was one."""
    return _delete(client, f"/v2/clusters/{identity}")


def _delete(client: Client, path: str) -> bool:
    try:
        client.ask("DELETE", path)
    except RunpodError as error:
        if error.status != 404:
            raise
        return False
    return True


def clusters(client: Client) -> list[dict[str, Any]]:
    """Return all clusters."""
    return list(client.ask("GET", "/v2/clusters")["clusters"])


def cluster_pods(client: Client, identity: str) -> list[Pod]:
    """Return the nodes of a cluster; none when it is gone."""
    try:
        return [pod_of(one) for one in client.ask("GET", f"/v2/clusters/{identity}/pods")["pods"]]
    except RunpodError as error:
        if error.status != 404:
            raise
        return []


def volumes(client: Client) -> list[Volume]:
    """Return all network volumes."""
    return [volume_of(one) for one in client.ask("GET", "/v2/network-volumes")["networkVolumes"]]


def find_volume(client: Client, name: str) -> Volume:
    """Return a network volume by its id or by its name."""
    known = volumes(client)
    found = [one for one in known if name == one.id] or [one for one in known if name == one.name]
    if not found:
        here = ", ".join(f"{one.name} ({one.id}, {one.data_center})" for one in known) or "none"
        way = f"volumes there: {here}; `trainwright runpod create volume {name} --size 1000 --data-center ID` makes one"
        raise UserError(f"{name}: no such network volume; {way}")
    if len(found) > 1:
        ids = ", ".join(f"{one.id} ({one.data_center})" for one in found)
        raise UserError(f"{name}: {len(found)} network volumes have this name; give an id: {ids}")
    return found[0]


def find_registry(client: Client, name: str) -> str:
    """Return the id of a registry credential, by its id or by its name."""
    known = client.ask("GET", "/v2/registries")["registries"]
    for one in known:
        if name in (one["id"], one["name"]):
            return str(one["id"])
    here = ", ".join(one["name"] for one in known) or "none"
    raise UserError(f"registry={name}: RunPod holds no such credential; credentials there: {here}")


def offers(client: Client, *, product: str, cloud: str, count: int, min_cuda: str | None = None) -> Sequence[Offer]:
    """Return the live catalogue of GPU types."""
    query = {"include": "AVAILABILITY", "product": product, "cloud": cloud, "count": str(count)}
    if min_cuda is not None:
        query["minCudaVersion"] = min_cuda
    return [offer_of(one, cloud) for one in client.ask("GET", "/v2/catalog/gpus", query=query)["gpus"]]
