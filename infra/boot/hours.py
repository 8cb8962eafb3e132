"""A limit to the hours of a run in all its attempts: a cluster counts anew whenever it starts several nodes again.

At RunPod the pod counts (`infra.boot.pod`), because there it is the pod that is billed.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from infra.boot.attempts import used_hours
from trainwright.spec.exits import UserError
from trainwright.spec.paths import RunFolder
from trainwright.spec.variables import MAX_HOURS_VARIABLE
from trainwright.store.files import write_json

log = logging.getLogger("boot")

AGAIN_S = 60.0
"""Until a request that could not be written is tried again."""


def max_hours(environ: Mapping[str, str] = os.environ) -> float | None:
    """Return the limit that the target has set; None without one."""
    text = environ.get(MAX_HOURS_VARIABLE)
    try:
        return float(text) if text else None
    except ValueError:
        raise UserError(f"{MAX_HOURS_VARIABLE}={text}: is no number of hours; the target's max_hours sets it") from None


@contextmanager
def held_to(limit_hours: float | None, run: RunFolder) -> Iterator[None]:
    """Ask the run to save and end, for good, once its attempts have taken so many hours in all; None is no limit."""
    if limit_hours is None:
        yield
        return
    over = threading.Event()
    left_s = 3600 * (limit_hours - used_hours(run))
    thread = threading.Thread(target=_watch, args=(over, run, left_s, limit_hours), name="hours", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _watch(over: threading.Event, run: RunFolder, left_s: float, limit_hours: float) -> None:
    reason = f"the run has taken the {limit_hours:g} hours that it may take (max_hours)"
    while not over.wait(max(0.0, left_s)):
        try:
            write_json(run.ended, {"reason": reason, "time": round(time.time(), 3)})
        except OSError as error:
            log.warning("boot: %s, but %s cannot be written: %s", reason, run.ended, error.strerror)
            left_s = AGAIN_S
            continue
        log.warning("boot: %s; it is asked to save and end", reason)
        return
