"""Finds pods of ours that are paid for nothing."""

from dataclasses import dataclass

from infra.runpod import cloud
from infra.runpod.answers import Pod
from infra.runpod.client import Client, LostAnswerError, RunpodError
from infra.runpod.logs import lines
from trainwright.spec.exits import UserError
from trainwright.spec.runpod import ENDED, PodOrders, read_orders

PROVISION_S = 30 * 60.0
SLACK = 1.1
"""A pod is asked to end at its limit, and saves before it goes."""
TAIL = 20


@dataclass(frozen=True, slots=True)
class Idle:
    """A pod that should not be there, and why."""

    pod: Pod
    why: str
    spent: float


def outlived(client: Client) -> list[Idle]:
    """Return the pods of ours whose run is over, whose limits are passed, or that never came up."""
    now = client.clock.now()
    found = [(pod, _why(client, pod, now)) for pod in cloud.pods(client) if pod.is_ours]
    return [Idle(pod, why, pod.spent(now)) for pod, why in found if why is not None]


def _why(client: Client, pod: Pod, now: float) -> str | None:
    age_s = now - (pod.created or now)
    if pod.status in ("EXITED", "ERROR"):
        return f"is {pod.status}: no GPU is billed, its disk is"
    if pod.status == "PROVISIONING" and age_s > PROVISION_S:
        return f"is PROVISIONING for {age_s / 60:.0f} minutes"
    orders = _orders(pod)
    if orders.max_hours is not None and age_s / 3600 > orders.max_hours * SLACK:
        return f"is {age_s / 3600:.1f} hours old, and was to run {orders.max_hours:g}"
    if orders.max_dollars is not None and pod.spent(now) > orders.max_dollars * SLACK:
        return f"has cost ${pod.spent(now):.2f}, and was to cost ${orders.max_dollars:g}"
    return "its run is over" if pod.status == "RUNNING" and _said_so(client, pod) else None


def _orders(pod: Pod) -> PodOrders:
    try:
        return read_orders(pod.environ) or PodOrders()
    except UserError:
        return PodOrders()


def _said_so(client: Client, pod: Pod) -> bool:
    """Return whether the last thing that boot said is that the run is over."""
    try:
        said = [line.text for line in lines(client, pod.id, tail=TAIL) if line.text.strip()]
    except (LostAnswerError, RunpodError):
        return False
    last = max((number for number, text in enumerate(said) if ENDED in text), default=-1)
    return last >= 0 and not any("boot: source=" in text for text in said[last:])


def remove(client: Client, idle: Idle) -> None:
    """Delete a pod, or the cluster that it is a node of."""
    if idle.pod.cluster is not None:
        cloud.delete_cluster(client, idle.pod.cluster)
    else:
        cloud.delete_pod(client, idle.pod.id)
