"""RunPod's answers as values with types; whatever else they hold is left alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from trainwright.spec.runpod import ORDERS_VARIABLE

STOPPED = ("EXITED", "ERROR", "TERMINATED")
"""States that a pod does not leave by itself."""


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod."""

    id: str
    name: str
    status: str
    gpu: str
    num_gpus: int
    dollars_per_hour: float
    created: float | None
    """Seconds since 1970."""
    uptime_s: float
    data_center: str
    ssh: tuple[str, int] | None
    """Where its own SSH server answers; changes with every restart."""
    environ: Mapping[str, str]
    gpu_use: tuple[tuple[int, int], ...] | None
    """(busy, memory) in percent for each GPU; None while nothing runs."""
    cluster: str | None

    @property
    def is_ours(self) -> bool:
        """Return whether this program made it."""
        return ORDERS_VARIABLE in self.environ

    @property
    def live(self) -> bool:
        """Return whether it runs or is about to."""
        return self.status not in STOPPED

    def spent(self, now: float) -> float:
        """Return what it has cost since it was made, as if it had run all the time."""
        return self.dollars_per_hour * max(0.0, now - (self.created or now)) / 3600


def pod_of(tree: Mapping[str, Any]) -> Pod:
    """Return a pod from RunPod's JSON."""
    gpu, runtime = tree.get("gpu") or {}, tree.get("runtime")
    direct = (tree.get("ssh") or {}).get("direct")
    use = None
    if isinstance(runtime, dict) and "gpus" in runtime:
        use = tuple((int(one.get("util", 0)), int(one.get("memoryUtil", 0))) for one in runtime["gpus"])
    return Pod(
        id=str(tree["id"]),
        name=str(tree.get("name", "")),
        status=str(tree.get("status", "")),
        gpu=str(gpu.get("id") or (tree.get("cpu") or {}).get("id") or ""),
        num_gpus=int(gpu.get("count") or 0),
        dollars_per_hour=float(tree.get("cost") or 0),
        created=moment(tree.get("createdAt")),
        uptime_s=float((runtime or {}).get("uptime") or 0),
        data_center=str(tree.get("dataCenterId") or ""),
        ssh=(str(direct["host"]), int(direct["port"])) if direct else None,
        environ=tree.get("env") or {},
        gpu_use=use,
        cluster=(tree.get("cluster") or {}).get("id"),
    )


@dataclass(frozen=True, slots=True)
class Offer:
    """One GPU type in the catalogue, for a cloud."""

    id: str
    memory_gb: int
    dollars: float
    """An hour, for one GPU."""
    stock: str
    """NONE, LOW, MEDIUM or HIGH; empty when the catalogue does not say."""
    stock_in: Mapping[str, str]
    """The same by data center."""
    max_count: int

    def stock_at(self, data_center: str | None) -> str:
        """Return the stock in a data center, or anywhere."""
        return self.stock if data_center is None else self.stock_in.get(data_center, "NONE" if self.stock_in else "")


def offer_of(tree: Mapping[str, Any], cloud: str) -> Offer:
    """Return a GPU type from RunPod's JSON."""
    where = cloud.lower()
    return Offer(
        id=str(tree["id"]),
        memory_gb=int(tree.get("memory") or 0),
        dollars=float((tree.get("price") or {}).get(where) or 0),
        stock=str(tree.get("availability") or ""),
        stock_in={str(one["id"]): str(one.get("availability") or "") for one in tree.get("dataCenters") or ()},
        max_count=int((tree.get("maxCount") or {}).get(where) or 0),
    )


@dataclass(frozen=True, slots=True)
class Volume:
    """One network volume."""

    id: str
    name: str
    size_gb: int
    data_center: str
    kind: str


def volume_of(tree: Mapping[str, Any]) -> Volume:
    """Return a network volume from RunPod's JSON."""
    kind = str(tree.get("type") or "STANDARD")
    return Volume(str(tree["id"]), str(tree.get("name", "")), int(tree["size"]), str(tree["dataCenter"]), kind)


def moment(text: object) -> float | None:
    """Return the seconds since 1970 of RunPod's way to write a time."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None
