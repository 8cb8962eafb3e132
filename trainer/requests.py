"""The two requests that a run obeys: interrupt (save, run me again) and end (save, finished).

An interrupt comes as a signal, as the attempt's stop file, or as the wall-clock limit drawing near; an end comes as the
run folder's `ended.json`. Each rank looks by itself; the step's own reduction makes them agree.
"""

import os
import signal
import time
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from types import FrameType

from trainwright.spec.variables import DEADLINE_VARIABLE, STOP_FILE_VARIABLE

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
MARGIN_S = 20.0
"""Time left for everything that follows the save when the wall-clock limit draws near."""


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
        self.save_s = 0.0
        """The longest save so far; the wall-clock limit is met with this much to spare."""
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def look(self) -> Request:
        """Return what is asked of this rank now."""
        if self._ended_file.exists():
            return Request.END
        stop_file = self._stop_file is not None and self._stop_file.exists()
        near_limit = self._deadline is not None and time.monotonic() + 2 * self.save_s + MARGIN_S > self._deadline
        return Request.INTERRUPT if self._signalled or stop_file or near_limit else Request.NONE

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._signalled = True
