"""Runs one room as a child and passes requests on to it.

The child gets a session of its own: a Ctrl-C at the terminal reaches boot alone, which asks the child in the way that
it understands. torchrun never sees a signal before the save is done, because it would kill its workers 30 s later.
"""

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from infra.boot.watch import Watch
from trainwright.spec.exits import UserError

log = logging.getLogger("boot")

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
POLL_S = 0.1
OBEYED_TIME = 1.0
"""When a stop file that was obeyed says that it was touched; not 0, which some file systems take for no time at all."""
LIMIT_MARGIN_S = 20.0
"""Time that a stage needs to stop; the wall-clock limit is met with this much to spare. Ranks keep more, for saves."""


class Interrupts:
    """What is asked of this boot. To interrupt: signals, the wall-clock limit, the stop file. To end: `ended.json`.

    The stop file is also written here, for the ranks.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.stop_file: Path | None = None
        self.end_file: Path | None = None
        """The run's `ended.json`, for as long as it is a request to this boot; ranks look for it by themselves."""
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

    def ending(self) -> bool:
        """Return whether the run was asked to end for good."""
        return self.end_file is not None and self.end_file.exists()

    def listen(self, stop_file: Path) -> None:
        """Obey a stop file from now on, unless a start before this one has obeyed it.

        One that is given (`TRAINWRIGHT_STOP_FILE`) may outlive a start: a container that starts again finds its scratch
        as it was. Its time does not tell whom it is for, since it may come while the container still starts. So boot
        marks the file that it obeys, by a time of 1970 (`publish`). A marked one is removed here. One without the mark
        has not been heard yet and stops this start, whatever its age; to touch a marked one again is a new request.
        """
        if _is_obeyed(stop_file):
            try:
                stop_file.unlink(missing_ok=True)
            except OSError as error:
                way = "has stopped an earlier start, and cannot be removed; remove it"
                raise UserError(f"{stop_file}: {way} ({error.strerror})") from None
            log.info("boot: removed %s, which has stopped an earlier start", stop_file)
        self.stop_file = stop_file

    def publish(self) -> bool:
        """Make a request visible to the ranks, and mark it as obeyed; return False when the disk does not let us."""
        path = self.stop_file
        if path is None or (self.received is None and not path.exists()):
            return True
        try:
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        except OSError:
            return False
        # Another user's file cannot be marked, and stops the next start once more.
        with contextlib.suppress(OSError):
            os.utime(path, (OBEYED_TIME, OBEYED_TIME))
        return True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.received = signal.Signals(number)


def supervise(
    command: Sequence[str], environ: Mapping[str, str], interrupts: Interrupts, watch: Watch | None = None
) -> tuple[int, str | None]:
    """Run a command to its end; return its exit code (negative for a signal) and how it hung, if it did.

    An interrupt reaches the child as SIGTERM, and so does the end of the run. With a `watch` its ranks look for both by
    themselves, and are told by signals only where the stop file cannot be written.
    """
    child = subprocess.Popen(command, env=dict(environ), start_new_session=True)
    heard = told = False
    while True:
        try:
            return child.wait(POLL_S), None
        except subprocess.TimeoutExpired:
            if not told and (interrupts.pending() or (watch is None and interrupts.ending())):
                told = _tell(child, interrupts, watch, first=not heard)
                heard = True
            hung = watch.hung() if watch is not None else None
            if watch is not None and hung is not None:
                stacks = ", ".join(str(path) for path in watch.dump_stacks())
                os.killpg(child.pid, signal.SIGKILL)
                return child.wait(), f"{hung}; stacks in {stacks}"


def _tell(child: "subprocess.Popen[bytes]", interrupts: Interrupts, watch: Watch | None, *, first: bool) -> bool:
    """Pass a request on; return False where it has to be said again, to ranks that cannot be told by a file."""
    if first:
        log.info("interrupt: %s received; saving, then stopping", interrupts.why() or "the end of the run")
    published = interrupts.publish()
    if watch is None:
        os.killpg(child.pid, signal.SIGTERM)
        return True
    if not published:
        if first:
            log.warning("interrupt: %s cannot be written; the ranks are told by signals", interrupts.stop_file)
        watch.interrupt_ranks()
    return published


def _is_obeyed(stop_file: Path) -> bool:
    try:
        return stop_file.stat().st_mtime == OBEYED_TIME
    except OSError:
        return False
