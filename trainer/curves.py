"""TensorBoard's curves beside `metrics.jsonl`: convenient, never worth a step of training.

The records are written by the caller's own thread. The writer that comes with the library has a thread of its own,
which ends in a traceback when the disk is full. Whatever keeps the curves from being written is said once, and the run
goes on without them; `metrics.jsonl` holds every figure.
"""

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from trainwright.store.files import naming

FLUSH_S = 10.0
"""A person who watches sees a point this late at most."""

log = logging.getLogger("trainer")


class Curves:
    """One event file of a run; `first_step` hides the points from that step on in earlier files, None hides nothing."""

    def __init__(self, folder: Path, first_step: int | None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        self._path = folder / f"events.out.tfevents.{time.time():.3f}.{socket.gethostname()}.{os.getpid()}"
        self._file: BinaryIO | None = None
        self._flushed = time.monotonic()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("wb")
        except OSError as error:
            self._give_up(error)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if first_step is not None:
            self._write(Event(wall_time=time.time(), step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add one point to each of some curves."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=points)))
        if time.monotonic() - self._flushed > FLUSH_S:
            self._flushed = time.monotonic()
            self._try(lambda file: file.flush())

    def close(self) -> None:
        """Write what is left."""
        self._try(lambda file: file.close())

    def _write(self, event: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._try(lambda file: RecordWriter(file).write(event.SerializeToString()))

    def _try(self, work: Callable[[BinaryIO], object]) -> None:
        if self._file is None:
            return
        try:
            with naming(self._path):
                work(self._file)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()
        log.warning("tensorboard: no curves from here on, while training goes on: %s: %s", self._path, error.strerror)
