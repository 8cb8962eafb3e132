"""The two requests that a run obeys: interrupt (save, run me again) and end (save, finished).

An interrupt comes as a signal, as the attempt's stop file, or as the wall-clock limit drawing near; an end comes as the
run folder's `ended.json`. Each rank looks by itself; the step's own reduction makes them agree.

A rank that compiles, reads or waits for one that does hears nothing for minutes. While memory holds nothing that the
newest checkpoint (or, before the first, the seed) does not give back, it need not be heard either: a thread sees the
interrupt and leaves.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from types import FrameType

from trainwright.spec.variables import DEADLINE_VARIABLE, STOP_FILE_VARIABLE

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
MARGIN_S = 20.0
"""Time left for everything that follows the save when the wall-clock limit draws near."""
LEAVE_AFTER_S = 5.0
"""How long an interrupt may go unheard where nothing would be lost; clouds give 5 to 30 s of notice."""
LOOK_EVERY_S = 0.25


class Request(IntEnum):
    """What is asked of the run; of several, the highest counts."""

    NONE = 0
    INTERRUPT = 1
    END = 2


class Requests:
    """Where this rank looks for requests; construct it in the main thread, since it takes over the signals."""

    def __init__(self, ended_file: Path, environ: Mapping[str, str] = os.environ) -> None:
        self._ended_file = ended_file
        stop = environ.get(STOP_FILE_VARIABLE)
        self._stop_file = Path(stop) if stop else None
        deadline = environ.get(DEADLINE_VARIABLE)
        self._deadline = float(deadline) if deadline else None
        self._signalled = False
        self._unsaved = threading.Lock()
        self._is_unsaved = False
        self.save_s = 0.0
        """The longest save so far; the wall-clock limit is met with this much to spare."""
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def look(self) -> Request:
        """Return what is asked of this rank now."""
        if self._ended_file.exists():
            return Request.END
        return Request.INTERRUPT if self._interrupted() else Request.NONE

    def _interrupted(self) -> bool:
        stop_file = self._stop_file is not None and self._stop_file.exists()
        near_limit = self._deadline is not None and time.monotonic() + 2 * self.save_s + MARGIN_S > self._deadline
        return self._signalled or stop_file or near_limit

    def committed(self, yes: bool) -> None:
        """Say whether the newest checkpoint gives back all that memory holds; it is so until told otherwise."""
        if yes and self._is_unsaved:
            self._is_unsaved = False
            self._unsaved.release()
        elif not yes and not self._is_unsaved:
            # Waits for ever when the other thread is leaving, as it should.
            self._unsaved.acquire()
            self._is_unsaved = True

    @contextmanager
    def leaving(self, leave: Callable[[], None]) -> Iterator[None]:
        """Call `leave`, which ends the process, from a thread when an interrupt goes unheard and nothing is unsaved."""
        over = threading.Event()
        thread = threading.Thread(target=self._watch, args=(over, leave), name="requests", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _watch(self, over: threading.Event, leave: Callable[[], None]) -> None:
        since = None
        while not over.wait(LOOK_EVERY_S):
            now = time.monotonic()
            since = (since or now) if self._interrupted() else None
            # Whoever holds the lock has something to lose; while `leave` does, nobody begins to change anything.
            if since is not None and now - since > LEAVE_AFTER_S and self._unsaved.acquire(blocking=False):
                leave()
                return

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._signalled = True
