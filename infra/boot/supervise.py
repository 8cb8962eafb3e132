"""Runs one room as a child and passes requests on to it.

The child gets a session of its own: a Ctrl-C at the terminal reaches boot alone, which asks the child in the way that
it understands. torchrun never sees a signal before the save is done, because it would kill its workers 30 s later.
"""

import logging
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from infra.boot.watch import Watch

log = logging.getLogger("boot")

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
POLL_S = 0.1


class Interrupts:
    """Interrupt requests to this boot: signals, and the attempt's stop file, which it also writes for the ranks."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.stop_file: Path | None = None
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def pending(self) -> bool:
        """Return whether the run was asked to stop."""
        return self.received is not None or (self.stop_file is not None and self.stop_file.exists())

    def publish(self) -> None:
        """Make a received signal visible to the ranks."""
        if self.received is not None and self.stop_file is not None and not self.stop_file.exists():
            self.stop_file.parent.mkdir(parents=True, exist_ok=True)
            self.stop_file.touch()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.received = signal.Signals(number)


def supervise(
    command: Sequence[str], environ: Mapping[str, str], interrupts: Interrupts, watch: Watch | None = None
) -> tuple[int, str | None]:
    """Run a command to its end; return its exit code (negative for a signal) and how it hung, if it did.

    An interrupt reaches the child as SIGTERM; with a `watch`, whose ranks read the attempt's stop file, as that alone.
    """
    child = subprocess.Popen(command, env=dict(environ), start_new_session=True)
    told = False
    while True:
        try:
            return child.wait(POLL_S), None
        except subprocess.TimeoutExpired:
            if not told and interrupts.pending():
                told = True
                _tell(child, interrupts, by_stop_file=watch is not None)
            hung = watch.hung() if watch is not None else None
            if watch is not None and hung is not None:
                stacks = ", ".join(str(path) for path in watch.dump_stacks())
                os.killpg(child.pid, signal.SIGKILL)
                return child.wait(), f"{hung}; stacks in {stacks}"


def _tell(child: "subprocess.Popen[bytes]", interrupts: Interrupts, *, by_stop_file: bool) -> None:
    why = interrupts.received.name if interrupts.received else "the stop file"
    log.info("interrupt: %s received; saving, then stopping", why)
    interrupts.publish()
    if not by_stop_file:
        os.killpg(child.pid, signal.SIGTERM)
