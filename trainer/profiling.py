"""A trace of a few steps on request, for chrome://tracing or Perfetto: `logging.profile_step`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from trainwright.store.files import write_text

TRACED_STEPS = 3


@contextmanager
def profiling(folder: Path, first_step: int | None, start: int) -> Iterator[Callable[[], None]]:
    """Yield what is to be called after each step; the steps from `first_step` on are traced into the folder.

    `start` is the number of steps that are finished already.
    """
    if first_step is None or first_step <= start:
        yield lambda: None
        return
    # The profiler warms up in the step before, so the first that it can trace is the second.
    first = max(first_step, start + 2)
    plan = schedule(wait=first - start - 2, warmup=1, active=TRACED_STEPS, repeat=1)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]

    def write(found: "profile") -> None:
        path = folder / f"steps_{first:08d}.json"
        folder.mkdir(parents=True, exist_ok=True)
        hidden = folder / f".{path.name}"
        found.export_chrome_trace(str(hidden))
        write_text(path, hidden.read_text(encoding="utf-8"))
        hidden.unlink()

    with profile(activities=activities, schedule=plan, on_trace_ready=write, acc_events=True) as profiler:
        yield profiler.step
