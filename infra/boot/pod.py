"""Boot in a pod at RunPod: keeps to the pod's orders, and ends the pod when the run is over.

RunPod starts a container again when its command ends, and bills while a pod stands. So nothing here ends by itself:
what the run's end means for the pod is in its orders. What a pod has done so far is in ROOT/pods/ID.json, because its
own disk is wiped with every restart.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.boot.self_stop import end_pod
from trainwright.spec.exits import Exit, UserError, guarded
from trainwright.spec.paths import ROOT_VARIABLE, RunFolder
from trainwright.spec.runpod import ENDED, HEARTBEAT, POD_VARIABLE, Fate, PodOrders, read_orders
from trainwright.store.files import read_json, write_json

log = logging.getLogger("boot")

LOOK_EVERY_S = 15.0
FIRST_LOOKS_EVERY_S = 1.0
"""Until the first sign of work, for which `create --wait` waits."""
LAST_WORDS_S = 5.0
"""Before the pod goes: its log goes with it, and whoever follows it should see the end."""
GRACE_S = 20 * 60.0
"""From the request to end until the pod goes whether or not boot has saved."""
ONCE = ("--continue", "--fresh")
"""Flags for the first start of a pod only: its later starts go on with what that one began."""


@dataclass(frozen=True, slots=True)
class Pod:
    """This pod."""

    id: str
    orders: PodOrders
    root: Path
    run: RunFolder
    is_first: bool
    """Whether it is alone, or the first node of its cluster."""

    @property
    def record(self) -> Path:
        """Return the file of what this pod has done so far."""
        return self.root / "pods" / f"{self.id}.json"


def this_pod(environ: Mapping[str, str]) -> Pod | None:
    """Return the pod that `runpod create` made and this process runs in; None elsewhere."""
    if not environ.get(POD_VARIABLE):
        return None
    orders = read_orders(environ)
    return _pod_of(environ, orders) if orders is not None else None


def _pod_of(environ: Mapping[str, str], orders: PodOrders) -> Pod:
    root = Path(environ.get(ROOT_VARIABLE) or "/workspace")
    run = RunFolder(root / "runs" / environ.get("RUN_EXPERIMENT", "unnamed"))
    return Pod(environ[POD_VARIABLE], orders, root, run, environ.get("NODE_RANK", "0") == "0")


def torchrun_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what the variables of RunPod's clusters are called by torchrun; nothing outside a cluster."""
    if int(environ.get("NUM_NODES") or 1) < 2:
        return {}
    names = {"NODE_RANK": "PET_NODE_RANK", "NUM_NODES": "PET_NNODES", "PRIMARY_ADDR": "PET_MASTER_ADDR"}
    names["PRIMARY_PORT"] = "PET_MASTER_PORT"
    return {ours: environ[theirs] for theirs, ours in names.items() if environ.get(theirs)}


def in_pod(
    boot: Callable[[Sequence[str]], int], words: Sequence[str], wait: Callable[[float], None] = time.sleep
) -> int:
    """Run boot; in a pod of ours, by its orders. Returns boot's exit code."""
    try:
        pod = this_pod(os.environ)
    except UserError as error:
        # Whatever was ordered, a container that is refused and started again for ever was not.
        log.error("pod: %s", error)  # noqa: TRY400 - a sentence, no traceback
        settle(_pod_of(os.environ, PodOrders()), Exit.REFUSED, wait)
        return Exit.REFUSED
    if pod is None:
        if os.environ.get(POD_VARIABLE):
            log.warning("pod: not made by `trainwright runpod create`, so nothing ends it: it is billed until you do")
        return boot(words)
    os.environ.update(torchrun_variables(os.environ))
    watch = PodWatch(pod) if pod.is_first else None
    if watch is not None:
        watch.start()
    code = guarded("boot", lambda: boot(_words_of_this_start(pod, words)))
    if watch is not None:
        watch.stop()
    settle(pod, code, wait)
    return code


def _words_of_this_start(pod: Pod, words: Sequence[str]) -> list[str]:
    """Leave out the flags that an earlier start of this pod has obeyed: `--fresh` again would undo its work."""
    flags = [word for word in words if word in ONCE]
    if not flags or not pod.is_first:
        return [word for word in words if pod.is_first or word not in ONCE]
    record = read_record(pod)
    if record.get("flags") == flags:
        log.info("pod: %s was obeyed by an earlier start of this pod", " ".join(flags))
        return [word for word in words if word not in ONCE]
    write_json(pod.record, {**record, "flags": flags})
    return list(words)


def settle(pod: Pod, code: int, wait: Callable[[float], None] = time.sleep) -> None:
    """Do with the pod what its orders say of this end; returns when RunPod has agreed, or will not."""
    fate = fate_of(pod.orders, code)
    if fate is None:
        log.info("pod: exit %d means again; RunPod starts this container anew", code)
        return
    if not pod.is_first:
        log.info("pod: exit %d; the cluster's first node ends the cluster", code)
        wait(GRACE_S)
        return
    log.info("%s: exit %d, so %s this pod", ENDED, code, fate)
    # Boot's own handlers only take notes; whoever stops the container now must not have to wait.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if fate == "keep":
        log.warning("pod: it stays and is billed; `trainwright runpod delete %s` ends it", pod.id)
        while True:
            wait(3600.0)
    wait(LAST_WORDS_S)
    if end_pod(pod.id, fate, pod.orders.cluster, os.environ, wait):
        # RunPod takes the pod away in its own time; ending now would start the container once more.
        wait(GRACE_S)
        log.error("pod: *** still here %.0f minutes after RunPod agreed, and billed; asking again ***", GRACE_S / 60)


def fate_of(orders: PodOrders, code: int) -> Fate | None:
    """Return what becomes of a pod after an exit code; None when the container is to start again."""
    if code == Exit.OK:
        return orders.when_done
    # Any other code is counted by boot, which turns the last of a budget into REFUSED.
    return orders.when_failed if code in (Exit.REFUSED, Exit.MISSING) else None


class PodWatch(threading.Thread):
    """Counts what the pod costs, and asks the run to end when a limit is reached or nothing happens any more."""

    def __init__(self, pod: Pod, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__(name="pod-watch", daemon=True)
        self._pod, self._now = pod, now
        self._over = threading.Event()
        self._counted = self._changed = now()
        self._sign: object = None
        self._alive = False
        self._asked: float | None = None

    def run(self) -> None:
        """Look every few seconds until stopped."""
        while not self._over.wait(LOOK_EVERY_S if self._alive else FIRST_LOOKS_EVERY_S):
            try:
                self.look()
            except OSError as error:
                log.warning("pod: cannot keep its record: %s", error)

    def stop(self) -> None:
        """End the thread, and count its last seconds."""
        self._over.set()
        self.join()
        try:
            self._count()
        except OSError as error:
            log.warning("pod: cannot keep its record: %s", error)

    def look(self) -> None:
        """Look once."""
        record, now = self._count(), self._now()
        sign = signs_of_work(self._pod.run)
        if sign != self._sign:
            if sign and not self._alive:
                self._alive = True
                log.info("%s of run %s", HEARTBEAT, self._pod.run.path.name)
            self._sign, self._changed = sign, now
        reason = self._reason(record, now - self._changed)
        if reason is not None and self._asked is None:
            self._asked = now
            log.warning("pod: %s; the run is asked to save and end", reason)
            self._pod.run.path.mkdir(parents=True, exist_ok=True)
            write_json(self._pod.run.ended, {"reason": reason, "time": round(time.time(), 3)})
        if self._asked is not None and now - self._asked > GRACE_S:
            log.error("pod: boot has not ended in %.0f minutes; the pod goes without it", GRACE_S / 60)
            self._asked = now
            end_pod(self._pod.id, self._pod.orders.when_failed, self._pod.orders.cluster, os.environ, time.sleep)

    def _count(self) -> dict[str, Any]:
        now, record = self._now(), read_record(self._pod)
        seconds = float(record.get("seconds", 0.0)) + now - self._counted
        self._counted = now
        dollars = round(seconds / 3600 * self._pod.orders.dollars_per_hour, 4)
        record |= {"run": self._pod.run.path.name, "seconds": round(seconds, 1), "dollars": dollars}
        write_json(self._pod.record, record)
        return record

    def _reason(self, record: Mapping[str, Any], quiet_s: float) -> str | None:
        orders, hours = self._pod.orders, record["seconds"] / 3600
        if orders.max_hours is not None and hours >= orders.max_hours:
            return f"the pod has run {hours:.1f} hours, its limit is {orders.max_hours:g}"
        if orders.max_dollars is not None and record["dollars"] >= orders.max_dollars:
            return f"the pod has cost ${record['dollars']:.2f}, its budget is ${orders.max_dollars:g}"
        if quiet_s >= 60 * orders.idle_minutes:
            return f"nothing was written for {quiet_s / 60:.0f} minutes (idleMinutes)"
        return None


def signs_of_work(run: RunFolder) -> tuple[tuple[str, int], ...]:
    """Return when the run last wrote what only work writes; boot's own lease and this record are no work."""
    files = [run.heartbeat, run.metrics, *run.attempts.glob("*"), *run.path.glob("stages/*.json")]
    data = [path for split in ("train", "val") for path in (run.path.parents[1] / "datasets" / split).glob("*/**/*")]
    found = [(str(path), changed) for path in [*files, *data] if (changed := _changed(path)) is not None]
    newest = sorted(found, key=lambda one: one[1])[-1:]
    return (*newest, ("files", len(found))) if found else ()


def _changed(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def read_record(pod: Pod) -> dict[str, Any]:
    """Return what this pod has done so far; nothing before its first start, or when the volume is not there yet."""
    try:
        return read_json(pod.record)
    except (OSError, UserError):
        return {}
