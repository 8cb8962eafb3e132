"""What RunPod needs to know, and the orders that a pod carries with it: when to end, and what becomes of it then."""

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, ValidationError

from trainwright.spec.exits import UserError
from trainwright.spec.settings import Count, OptionalPositive, OptionalText, Positive, Problem, Settings

ORDERS_VARIABLE = "TRAINWRIGHT_POD"
"""What `create` tells a pod about itself: `PodOrders` as JSON."""
OWN_KEY_VARIABLE = "TRAINWRIGHT_RUNPOD_KEY"
"""A key that may delete the pod, for accounts whose pod-scoped keys may not; a secret of the experiment."""
POD_VARIABLE = "RUNPOD_POD_ID"
"""RunPod's own name of the pod, set in every container."""
HEARTBEAT = "pod: heartbeat"
"""Starts the line that boot prints once its run gives a sign of life; `create --wait` looks for it."""
ENDED = "pod: the run is over"
"""Starts the line that boot prints when the run came to its end; `reap` looks for it."""


def _listed(value: Any) -> Any:
    """Read `A,B` as a list; names of GPUs hold spaces."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Text = Annotated[str, StringConstraints(min_length=1, max_length=128)]
TextList = Annotated[tuple[Text, ...], BeforeValidator(_listed)]
Fate = Literal["delete", "stop", "keep"]


class RunpodTarget(Settings):
    """A pod, or with several nodes a cluster, and the network volume that outlives it."""

    gpus: TextList = ("A100-80GB",)
    """GPU types in order of preference, by RunPod's id or a short name such as H100; the others are the fallback."""
    cloud: Literal["SECURE", "COMMUNITY"] = "SECURE"
    """RunPod's own data centers or those of others; network volumes are in SECURE only."""
    data_centers: TextList = ()
    """Where the pod may be; empty leaves it to the volume, which lies in one."""
    volume: OptionalText = None
    """The network volume, by name or id; it becomes /workspace and keeps data and checkpoints."""
    disk_gb: Count = 20
    """The container's own disk, which a restart wipes."""
    min_cuda: Annotated[str, StringConstraints(pattern=r"^\d+\.\d+$")] = "13.0"
    """The driver must support at least this CUDA; the image's torch is built for 13.0."""
    as_root: bool = True
    """Run as root, as volumes that belong to root and the SSH server for `exec` and `port-forward` need it."""
    carry: Literal["text", "image"] = "text"
    """How the experiment reaches the pod: its text in a variable, or by name as the image carries it."""
    max_hours: OptionalPositive = None
    """The run is saved and ended when the pod has run for so long; null is no limit."""
    max_dollars: OptionalPositive = None
    """The same when the pod has cost so much."""
    idle_minutes: Positive = 60.0
    """The same when nothing was written and no step finished for so long."""
    when_done: Fate = "delete"
    """What becomes of the pod when its run is complete or was ended; the volume stays."""
    when_failed: Fate = "stop"
    """What becomes of it when its run cannot go on by itself."""

    def problems(self) -> Iterator[Problem]:
        """Check that there is a GPU to ask for."""
        if not self.gpus:
            yield Problem("gpus", "", "name at least one GPU type, such as A100-80GB")
        if self.volume is not None and self.cloud != "SECURE":
            yield Problem("cloud", self.cloud, "network volumes are in the SECURE cloud only")


class PodOrders(Settings):
    """What a pod is told about itself; it survives restarts of the container, and the laptop that made it."""

    when_done: Fate = "delete"
    """After exit code 0."""
    when_failed: Fate = "stop"
    """After the other final codes."""
    max_hours: OptionalPositive = None
    """The pod's time, in all its containers."""
    max_dollars: OptionalPositive = None
    """The pod's price for that time."""
    dollars_per_hour: Annotated[float, Field(ge=0)] = 0.0
    """What it costs, by the catalogue on the day that it was made."""
    idle_minutes: Positive = 60.0
    """Longest time without a sign of work."""
    cluster: OptionalText = None
    """The name of the cluster that this pod is a member of."""

    def text(self) -> str:
        """Return the orders as the value of `ORDERS_VARIABLE`."""
        return json.dumps(self.model_dump(exclude_none=True), sort_keys=True)


def read_orders(environ: Mapping[str, str]) -> PodOrders | None:
    """Return the orders that an environment carries; None when there are none."""
    text = environ.get(ORDERS_VARIABLE)
    if not text:
        return None
    try:
        return PodOrders.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise UserError(
            f"{ORDERS_VARIABLE}: {where}: {first['msg']}; `runpod create` writes this, edit nothing"
        ) from None
