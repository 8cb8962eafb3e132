"""The peak of memory of what a measurement starts, as PSS: what processes share is counted once, in parts."""

from collections.abc import Iterator
from contextlib import contextmanager
import os
from pathlib import Path
import threading

LOOK_EVERY_S = 0.05


@contextmanager
def peak_below() -> Iterator[list[int]]:
    """Watch the processes below this one for the time of the block; the list holds the peak of their sum, in bytes."""
    peak, over = [0], threading.Event()
    watcher = threading.Thread(target=_watch, args=(over, peak), daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()


def _watch(over: threading.Event, peak: list[int]) -> None:
    while not over.wait(LOOK_EVERY_S):
        peak[0] = max(peak[0], sum(pss(pid) for pid in below(os.getpid())))


def below(pid: int) -> list[int]:
    """Return the processes that a process started, and theirs."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in path.read_text().split()]
        except OSError:
            continue
        found += [each for child in children for each in (child, *below(child))]
    return found


def pss(pid: int) -> int:
    """Return the memory of a process in bytes, what it shares with others in proportion; 0 when it has gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
