"""What a fake RunPod holds: pods whose statuses take time, volumes, a catalogue, and the knobs for its faults.

Time is its own and passes only when a client waits, unless it has a speed.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
import threading
import time
from typing import Any

KEY = "rpa_test"
START = 1_790_000_000.0
PROVISION_S, PULL_S, PORTS_S = 15.0, 30.0, 12.0
NO_ROOM = "There are no longer any instances available with the requested specifications. Please refresh and try again."
ACTIONS = {
    "RUNNING": {"stop", "restart", "terminate"},
    "EXITED": {"start", "terminate"},
    "ERROR": {"start", "terminate"},
    "PROVISIONING": {"stop", "terminate"},
    "STARTING": {"stop", "terminate"},
}
A100, SXM, H100 = "NVIDIA A100 80GB PCIe", "NVIDIA A100-SXM4-80GB", "NVIDIA H100 PCIe"
PRICES = {A100: 1.64, SXM: 1.89, H100: 2.39, "NVIDIA A40": 0.44}


@dataclass
class FakePod:
    id: str
    body: dict[str, Any]
    created: float
    started: float
    price: float
    port: int = 10000
    end: str = ""
    """EXITED or ERROR, when it is."""
    stuck: bool = False
    num_gpus: int = 1
    cluster: str | None = None
    rank: int = 0
    log: list[tuple[float, str, str]] = field(default_factory=list)


class Clock:
    """Time that passes when somebody waits for it, or by itself, `speed` times as fast as ours."""

    def __init__(self, speed: float | None) -> None:
        self.speed, self.passed, self.begun = speed, 0.0, time.monotonic()
        self.due: list[tuple[float, Callable[[], None]]] = []

    def now(self) -> float:
        return START + (self.passed if self.speed is None else self.speed * (time.monotonic() - self.begun))

    def wait(self, seconds: float) -> None:
        if self.speed is not None:
            time.sleep(seconds / self.speed)
            return
        self.passed += seconds
        while self.due and self.due[0][0] <= self.passed:
            self.due.pop(0)[1]()

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something when so much time has passed."""
        self.due.append((self.passed + seconds, action))
        self.due.sort(key=lambda one: one[0])


class FakeRunPod:
    """The state behind the API, with its knobs."""

    def __init__(self, speed: float | None = None) -> None:
        self.clock = Clock(speed)
        self.url = ""
        self.pods: dict[str, FakePod] = {}
        self.clusters: dict[str, dict[str, Any]] = {}
        self.volumes = {"vol1": {"id": "vol1", "name": "transformer-shared", "size": 2000, "dataCenter": "US-KS-2"}}
        self.registries = [{"id": "reg1", "name": "mine"}]
        self.room: dict[str, int] = dict.fromkeys(PRICES, 9)
        self.told: dict[str, str] = dict.fromkeys(PRICES, "HIGH")
        """What the catalogue says, true or not."""
        self.requests: list[tuple[str, str, Any]] = []
        self.refused = 0
        """Requests above the rate limit."""
        self.per_minute = 60
        self.faults: deque[tuple[str, str, int, dict[str, str], dict[str, Any]]] = deque()
        """(method, start of path, status, headers, problem) for the next request that fits."""
        self.as_text = False
        """Whether answers are what a login page says, not JSON."""
        self.lose_replies = 0
        """Creates that are carried out and not answered."""
        self.lose_requests = 0
        """Creates that are neither."""
        self.stuck = self.broken = self.without_gpus = 0
        """How many of the next pods never leave PROVISIONING, go to ERROR, start without GPUs."""
        self.drop_logs_after: int | None = None
        """Events after which the next log connection breaks."""
        self.scoped_may = {"DELETE", "terminate", "stop"}
        """What the pods' own keys may ask for."""
        self.on_create: Callable[[FakePod], None] = lambda _: None
        self.lock = threading.RLock()
        self.made = 0
        self._window = (0, 0)

    # --- what tests do to pods ---------------------------------------------------------------------------------------

    def say(self, pod: FakePod, text: str, source: str = "container") -> None:
        pod.log.append((self.clock.now(), source, text))

    def restart(self, pod: FakePod) -> None:
        """End the container and start it again: other ports, an uptime of nothing."""
        pod.started, pod.port = self.clock.now() - PROVISION_S - PULL_S, pod.port + 1
        self.say(pod, "start container", "system")

    def only(self) -> FakePod:
        (pod,) = self.pods.values()
        return pod

    # --- answers -----------------------------------------------------------------------------------------------------

    def status(self, pod: FakePod) -> str:
        age = self.clock.now() - pod.started
        if pod.end and age >= PROVISION_S:
            return pod.end
        if pod.stuck or age < PROVISION_S:
            return "PROVISIONING"
        return "STARTING" if age < PROVISION_S + PULL_S else "RUNNING"

    def shown(self, pod: FakePod) -> dict[str, Any]:
        status, body, now = self.status(pod), pod.body, self.clock.now()
        up = now - pod.started - PROVISION_S - PULL_S
        ready = status == "RUNNING" and up >= PORTS_S
        direct = {"host": "127.0.0.1", "port": pod.port, "username": "root", "command": f"ssh -p {pod.port}"}
        gpu = body.get("gpu") or {"id": body["compute"]["gpuTypeId"], "count": body["compute"]["gpuCountPerPod"]}
        use = [{"util": 97, "memoryUtil": 61}] * pod.num_gpus
        return {
            "id": pod.id,
            "name": body["name"],
            "status": status,
            "actions": sorted(ACTIONS[status]),
            "image": body.get("image"),
            "args": body.get("args", ""),
            "disk": body.get("disk", 20),
            "mounts": body.get("mounts", {}),
            "ports": body.get("ports", []),
            "env": body.get("env", {}),
            "registry": body.get("registry"),
            "cloud": body.get("cloud", "SECURE"),
            "template": None,
            "gpu": {"id": gpu["id"], "count": pod.num_gpus},
            "dataCenterId": (body.get("dataCenterIds") or ["US-KS-2"])[0],
            "cudaVersion": "13.0",
            "ssh": {"proxy": None, "direct": direct if ready else None},
            "cost": 0.0 if status == "EXITED" else pod.price,
            "locked": False,
            "globalNetworking": {"enabled": False},
            "runtime": {"uptime": int(up), "gpus": use, "ports": []} if status == "RUNNING" else None,
            "createdAt": stamp(pod.created),
            "startedAt": stamp(pod.started),
            **({"cluster": {"id": pod.cluster, "rank": pod.rank}} if pod.cluster else {}),
        }

    def create(self, body: dict[str, Any]) -> FakePod | str:
        """Return a new pod, or why there is none."""
        gpu = (body.get("gpu") or {}).get("id") or body["compute"]["gpuTypeId"]
        count = (body.get("gpu") or {}).get("count", 1) if "gpu" in body else body["compute"]["gpuCountPerPod"]
        if self.room.get(gpu, 0) < count:
            return NO_ROOM
        for mount in body.get("mounts", {}).get("network", []):
            home = self.volumes.get(mount["volumeId"])
            if home is None or (body.get("dataCenterIds") or [home["dataCenter"]]) != [home["dataCenter"]]:
                return NO_ROOM
        self.room[gpu] -= count
        now = self.clock.now()
        self.made += 1
        pod = FakePod(f"pod{self.made}", body, now, now, PRICES[gpu] * count, num_gpus=count)
        pod.stuck, self.stuck = self.stuck > 0, max(0, self.stuck - 1)
        pod.end, self.broken = "ERROR" * (self.broken > 0), max(0, self.broken - 1)
        if self.without_gpus > 0:
            pod.num_gpus, self.without_gpus = 0, self.without_gpus - 1
        self.pods[pod.id] = pod
        self.on_create(pod)
        return pod

    def create_cluster(self, body: dict[str, Any]) -> dict[str, Any] | str:
        identity = f"cluster{len(self.requests)}"
        for rank in range(body["compute"]["podCount"]):
            pod = self.create(body)
            if isinstance(pod, str):
                return pod
            self.pods[f"{pod.id}r{rank}"] = self.pods.pop(pod.id)
            pod.id, pod.cluster, pod.rank = f"{pod.id}r{rank}", identity, rank
        kept = {key: body[key] for key in ("name", "type", "compute")}
        self.clusters[identity] = {"id": identity, **kept}
        return self.clusters[identity]

    def remove_cluster(self, identity: str) -> None:
        del self.clusters[identity]
        self.pods = {key: pod for key, pod in self.pods.items() if pod.cluster != identity}

    def catalogue(self) -> list[dict[str, Any]]:
        return [
            {
                "id": name,
                "name": name,
                "pool": None,
                "manufacturer": "NVIDIA",
                "memory": 80,
                "secure": True,
                "community": True,
                "price": {"secure": price, "community": price / 2},
                "maxCount": {"secure": 8, "community": 8},
                "availability": self.told[name],
                "dataCenters": [{"id": "US-KS-2", "name": "Kansas", "availability": self.told[name]}],
            }
            for name, price in PRICES.items()
        ]

    def act(self, pod: FakePod, action: str) -> int:
        if action not in ACTIONS[self.status(pod)]:
            return 409
        now = self.clock.now()
        if action == "terminate":
            del self.pods[pod.id]
            return 204
        if action == "stop":
            pod.end, pod.started = "EXITED", now - PROVISION_S
        else:
            pod.end, pod.started, pod.port = "", now, pod.port + 1
            if self.without_gpus > 0:
                pod.num_gpus, self.without_gpus = 0, self.without_gpus - 1
        return 200

    def limit(self) -> tuple[int, int]:
        """Return what is left of this minute's requests (-1 for none), and the seconds until the next."""
        minute, second = divmod(int(self.clock.now()), 60)
        used = self._window[1] + 1 if self._window[0] == minute else 1
        self._window = (minute, used)
        return max(-1, self.per_minute - used), 60 - second


def stamp(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
