"""Processes that never outlive their parent, and finding those that were started together."""

import ctypes
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from trainwright.spec.variables import PARENT_VARIABLE

PR_SET_PDEATHSIG = 1
STACKS_SIGNAL = signal.SIGRTMIN + 2
"""Asks a rank to write the stacks of its threads; free of the meanings that schedulers give to the others."""


def die_with_parent(expected_parent: int | None = None) -> None:
    """Ask the kernel to kill this process when its parent dies (prctl(2)); go at once if that has happened already.

    The wish survives `exec` and is not inherited by children, so every process asks for itself. `expected_parent`
    closes the gap between the start of this process and the call.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if expected_parent is not None and os.getppid() != expected_parent:
        os.kill(os.getpid(), signal.SIGKILL)


def die_with_boot(environ: Mapping[str, str] = os.environ) -> None:
    """Die with the boot that started this process; by hand, where no boot did, change nothing."""
    parent = environ.get(PARENT_VARIABLE)
    if parent:
        die_with_parent(int(parent))


def processes_with(variable: str, value: str) -> dict[int, int]:
    """Return pid -> parent of every living process that was started with a variable set so; zombies do not count."""
    mark, found = f"{variable}={value}".encode(), {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    found[int(entry.name)] = int(fields[1])
        except OSError:
            # Gone between two looks, or another user's.
            continue
    return found
