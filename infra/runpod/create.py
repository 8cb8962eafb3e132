"""Makes a pod or cluster from a manifest: the first GPU type that can be had, once, whatever happens on the way.

RunPod's create knows no token that would make it safe to repeat. So nothing of the same name may live before, and after
a lost answer the name is looked for: what is found is what was asked for.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from infra.job import movable_image
from infra.runpod import cloud
from infra.runpod.answers import Offer, Pod, pod_of
from infra.runpod.client import Client, LostAnswerError, RunpodError
from infra.runpod.gpus import gpu_id, nearest
from infra.runpod.manifest import MAX_BODY_BYTES, Manifest
from trainwright.spec.exits import MissingError, UserError
from trainwright.spec.runpod import ORDERS_VARIABLE, PodOrders

Say = Callable[[str], None]
LOOKS = 4
"""How often a created thing is looked for after a lost answer: lists may lag behind."""
CREATES = 3
"""How often the same candidate is tried when RunPod says neither yes nor no and nothing was made."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to place a pod."""

    gpu: str
    data_center: str | None
    dollars: float
    """An hour, for the whole pod or cluster."""
    stock: str

    def __str__(self) -> str:
        return f"{self.gpu}{f' in {self.data_center}' if self.data_center else ''}"


@dataclass(frozen=True, slots=True)
class Made:
    """What was created."""

    id: str
    name: str
    is_cluster: bool
    candidate: Candidate


def prepared(client: Client, manifest: Manifest) -> Manifest:
    """Return the manifest with names turned into ids; refuse what would fail or cost for nothing later."""
    body = dict(manifest.body)
    if problem := movable_image(body.get("image")):
        raise UserError(f"{manifest.where}: {problem}")
    refuse_second(client, manifest)
    if manifest.volume is not None:
        volume = cloud.find_volume(client, manifest.volume)
        mount = {**body["mounts"]["network"][0], "volumeId": volume.id}
        body["mounts"] = {"network": [mount]}
        wanted = body.get("dataCenterIds") or [volume.data_center]
        if volume.data_center not in wanted:
            where = f"{manifest.where}: dataCenterIds={','.join(wanted)}"
            raise UserError(f"{where}: the volume {volume.name} is in {volume.data_center}; a pod must be there too")
        body["dataCenterIds"] = [volume.data_center]
    if body.get("registry"):
        body["registry"] = cloud.find_registry(client, body["registry"])
    return replace(manifest, body=body)


def refuse_second(client: Client, manifest: Manifest) -> None:
    """Refuse a name under which something lives already."""
    for one in cloud.pods(client):
        if one.name == manifest.name and one.live:
            ways = f"follow it with `trainwright runpod logs {one.id} -f`, or delete it first"
            raise UserError(f"{manifest.name}: pod {one.id} of this name is {one.status}; {ways}")
    if manifest.is_cluster:
        for cluster in cloud.clusters(client):
            if cluster["name"] == manifest.name:
                raise UserError(f"{manifest.name}: cluster {cluster['id']} of this name is there; delete it first")


def candidates(client: Client, manifest: Manifest) -> list[Candidate]:
    """Return where the pod may go, by the live catalogue: what is in stock first, the cheapest of it first."""
    body = manifest.body
    if "cpu" in body:
        return [Candidate(body["cpu"]["id"], None, 0.0, "")]
    first, count, nodes = _wanted(body)
    tier = body.get("cloud") or "SECURE"
    product = "CLUSTER" if manifest.is_cluster else "POD"
    floor = body.get("gpu", {}).get("minCudaVersion")
    catalogue = {one.id: one for one in cloud.offers(client, product=product, cloud=tier, count=count, min_cuda=floor)}
    names = list(dict.fromkeys([first, *map(gpu_id, manifest.ours.gpu_fallback)]))
    if unknown := [name for name in names if name not in catalogue]:
        raise UserError(f"{manifest.where}: gpu {unknown[0]}: no such GPU; {nearest(unknown[0], list(catalogue))}")
    centers: list[str | None] = list(body.get("dataCenterIds") or [None])
    found = [_candidate(catalogue[name], center, count * nodes) for name in names for center in centers]
    # Python's sort keeps the author's order among equals. An empty stock is not believed: it is tried last.
    return sorted(found, key=lambda one: (one.stock == "NONE", one.dollars))


def _wanted(body: dict[str, Any]) -> tuple[str, int, int]:
    if "compute" in body:
        shape = body["compute"]
        return shape["gpuTypeId"], shape["gpuCountPerPod"], shape["podCount"]
    return body["gpu"]["id"], body["gpu"].get("count", 1), 1


def _candidate(offer: Offer, center: str | None, count: int) -> Candidate:
    return Candidate(offer.id, center, offer.dollars * count, offer.stock_at(center))


def create(client: Client, manifest: Manifest, ways: Iterator[Candidate], say: Say) -> Made:
    """Create what a prepared manifest asks for with the first candidate that RunPod has; go through the others."""
    refused: list[tuple[Candidate, RunpodError]] = []
    for way in ways:
        try:
            made = _create_once(client, manifest, way)
        except RunpodError as error:
            # 400 says "none free", and also what is wrong between fields; only 400 and 403 may be otherwise elsewhere.
            if error.status not in (400, 403):
                raise
            say(f"{way}: {error.detail or error}")
            refused.append((way, error))
            continue
        say(f"{made.id}: created with {way}, ${way.dollars:.2f} an hour")
        return made
    tried = ", ".join(str(way) for way, _ in refused) or "nothing"
    last = refused[-1][1] if refused else "no GPU type is left to try"
    way_out = "try later, or add types to gpuFallback (targets.runpod.gpus)"
    raise MissingError(f"{manifest.name}: RunPod has none of {tried}; {way_out}. Its last words: {last}")


def _create_once(client: Client, manifest: Manifest, way: Candidate) -> Made:
    body = body_for(manifest, way)
    path = "/v2/clusters" if manifest.is_cluster else "/v2/pods"
    for attempt in range(CREATES):
        try:
            answer = client.ask("POST", path, body)
        except LostAnswerError:
            if (found := _look_for(client, manifest)) is not None:
                return Made(found, manifest.name, manifest.is_cluster, way)
            continue
        made = Made(str(answer["id"]), manifest.name, manifest.is_cluster, way)
        if attempt > 0:
            _drop_twins(client, made)
        return made
    way_out = "look at `trainwright runpod get pods` in some minutes, then try again"
    raise MissingError(f"{manifest.name}: RunPod answered none of {CREATES} requests, and shows no such pod; {way_out}")


def _drop_twins(client: Client, made: Made) -> None:
    """Delete what an earlier request made after all, later than we looked for it."""
    for other in _named(client, made.name, is_cluster=made.is_cluster):
        if other != made.id:
            discard(client, replace(made, id=other))


def _look_for(client: Client, manifest: Manifest) -> str | None:
    """Return what a create whose answer was lost has made."""
    for _ in range(LOOKS):
        client.clock.wait(cloud.POLL_S)
        if named := _named(client, manifest.name, is_cluster=manifest.is_cluster):
            return named[0]
    return None


def _named(client: Client, name: str, *, is_cluster: bool) -> list[str]:
    if is_cluster:
        return [str(one["id"]) for one in cloud.clusters(client) if one["name"] == name]
    return [one.id for one in cloud.pods(client) if one.name == name and one.live]


def body_for(manifest: Manifest, way: Candidate) -> dict[str, Any]:
    """Return the body that is sent: one GPU type, one place, and the orders that the pod carries with it."""
    body, ours = dict(manifest.body), manifest.ours
    if "compute" in body:
        body["compute"] = {**body["compute"], "gpuTypeId": way.gpu}
    elif "gpu" in body:
        body["gpu"] = {**body["gpu"], "id": way.gpu}
    if way.data_center is not None:
        body["dataCenterIds"] = [way.data_center]
    orders = PodOrders(
        when_done=ours.when_done,
        when_failed=ours.when_failed,
        max_hours=ours.max_hours,
        max_dollars=ours.max_dollars,
        dollars_per_hour=round(way.dollars, 4),
        idle_minutes=ours.idle_minutes,
        cluster=manifest.name if manifest.is_cluster else None,
    )
    body["env"] = {**body.get("env", {}), ORDERS_VARIABLE: orders.text()}
    if (size := len(json.dumps(body).encode())) > MAX_BODY_BYTES:
        raise UserError(f"{manifest.where}: {size} bytes, and RunPod takes {MAX_BODY_BYTES}; shorten env")
    return body


def first_pod(client: Client, made: Made) -> Pod | None:
    """Return the pod, or of a cluster the node that prepares the run; None when it is gone or not there yet."""
    if not made.is_cluster:
        return cloud.pod(client, made.id)
    answer = client.ask("GET", f"/v2/clusters/{made.id}/pods")["pods"]
    ranked = sorted(answer, key=lambda one: (one.get("cluster") or {}).get("rank") or 0)
    return pod_of(ranked[0]) if ranked else None


def discard(client: Client, made: Made) -> None:
    """Delete what was made."""
    delete = cloud.delete_cluster if made.is_cluster else cloud.delete_pod
    delete(client, made.id)
