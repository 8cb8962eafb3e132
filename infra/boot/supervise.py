"""Runs one room as a child and passes requests on to it.

The child gets a session of its own: a Ctrl-C at the terminal reaches boot alone, which asks the child in the way that
it understands. torchrun never sees a signal before the save is done, because it would kill its workers 30 s later.
"""

import logging
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from infra.boot.watch import Watch

log = logging.getLogger("boot")

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
POLL_S = 0.1
LIMIT_MARGIN_S = 20.0
"""Time that a stage needs to stop; the wall-clock limit is met with this much to spare. Ranks keep more, for saves."""


class Interrupts:
    """Interrupt requests to this boot: signals, the wall-clock limit, and the attempt's stop file.

    The stop file is also written here, for the ranks.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.stop_file: Path | None = None
        self.deadline: float | None = None
        """The monotonic clock at the wall-clock limit."""
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def pending(self) -> bool:
        """Return whether the run was asked to stop."""
        return self.why() is not None

    def why(self) -> str | None:
        """Return what asks the run to stop, or None."""
        if self.received is not None:
            return self.received.name
        if self.stop_file is not None and self.stop_file.exists():
            return "the stop file"
        near = self.deadline is not None and time.monotonic() + LIMIT_MARGIN_S > self.deadline
        return "the wall-clock limit" if near else None

    def listen(self, stop_file: Path) -> None:
        """Obey an attempt's own stop file; one that is older than this process was meant for an attempt before it.

        A container that starts again finds its scratch as it was, with the file that stopped it the last time.
        """
        try:
            stale = stop_file.stat().st_mtime < _process_began()
        except FileNotFoundError:
            stale = False
        if stale:
            stop_file.unlink(missing_ok=True)
            log.info("boot: removed %s, a stop file from before this start", stop_file)
        self.stop_file = stop_file

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
    log.info("interrupt: %s received; saving, then stopping", interrupts.why())
    interrupts.publish()
    if not by_stop_file:
        os.killpg(child.pid, signal.SIGTERM)


def _process_began() -> float:
    """Return the wall clock at the start of this process: before its interpreter, and before anything it read."""
    ticks = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age
