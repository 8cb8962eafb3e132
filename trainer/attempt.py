"""What a rank leaves behind for boot: its end record, its signs of life, its stacks when asked, and its lease.

torchrun turns every exit code into 1, so boot reads the records instead. By hand, without boot, none of this exists.
"""

import contextlib
import faulthandler
import logging
import os
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

from trainwright.spec.exits import Exit, MissingError
from trainwright.spec.paths import RunFolder
from trainwright.spec.variables import ATTEMPT_VARIABLE, LEASE_VARIABLE
from trainwright.store.files import write_json, write_text
from trainwright.store.lease import holds
from trainwright.store.process import STACKS_SIGNAL

log = logging.getLogger("trainer")

BEAT_S = 2.0


class Attempt:
    """This rank's part of one attempt on a run."""

    def __init__(self, run: RunFolder, rank: int, environ: Mapping[str, str] = os.environ) -> None:
        self._run = run
        self._rank = rank
        folder = environ.get(ATTEMPT_VARIABLE)
        self._folder = Path(folder) if folder else None
        self._lease = environ.get(LEASE_VARIABLE)
        self._last_beat = float("-inf")
        self._phase = ""
        self._untold = False
        self._step: int | None = None
        if self._folder is not None:
            # The handler writes from C, so it speaks even while Python waits inside a collective.
            stacks = (self._folder / f"stacks_{rank:05d}.txt").open("a")
            faulthandler.register(STACKS_SIGNAL, file=stacks, all_threads=True)

    @property
    def number(self) -> str:
        """Return the attempt's number, or `by hand`."""
        return self._folder.name if self._folder else "by hand"

    def beat(self, phase: str, step: int | None = None, *, now: bool = False) -> None:
        """Give a sign of life, at most every few seconds unless `now`; `phase` decides how long silence may last."""
        self._step = self._step if step is None else step
        # A new phase is told at once: boot judges silence by the phase that it knows of.
        if not now and phase == self._phase and time.monotonic() - self._last_beat < BEAT_S:
            return
        self._phase, self._last_beat = phase, time.monotonic()
        sign = {"pid": os.getpid(), "phase": phase, "step": self._step, "time": round(time.time(), 3)}
        if self._folder is not None:
            self._tell(self._folder / f"alive_{self._rank:05d}.json", sign)
        if self._rank == 0:
            self._tell(self._run.heartbeat, sign)

    def _tell(self, path: Path, sign: Mapping[str, object]) -> None:
        """Write a sign of life; where there is no room for it touch the old one: no step is lost for a heartbeat."""
        try:
            write_json(path, sign)
        except OSError as error:
            if not self._untold and self._rank == 0:
                log.warning("heartbeat: not written, while training goes on: %s: %s", path, error.strerror)
            self._untold = True
            with contextlib.suppress(OSError):
                os.utime(path)

    @property
    def is_of_boot(self) -> bool:
        """Return whether boot started this rank and reads what it leaves."""
        return self._folder is not None

    def end(self, code: Exit | int, reason: str, *, left: bool = False) -> bool:
        """Leave this rank's end record, with the last finished step; return whether boot has one to read.

        `left` says that the rank went away in the middle of things: what happens to its neighbours is a consequence.
        """
        if self._folder is None:
            return False
        record = {"rank": self._rank, "code": int(code), "reason": reason, "step": self._step}
        if left:
            record["left"] = True
        try:
            write_json(self._folder / f"rank_{self._rank:05d}.json", record)
        except OSError:
            # On a full disk there is no record; boot then says that the rank ended without one.
            return False
        return True

    def explain(self, error: Exception) -> Path | None:
        """Write the traceback of what nobody foresaw beside the end record; None by hand, or when even that fails."""
        if self._folder is None:
            return None
        path = self._folder / f"traceback_{self._rank:05d}.txt"
        try:
            write_text(path, "".join(traceback.format_exception(error)))
        except OSError:
            return None
        return path

    def check_lease(self) -> None:
        """Raise `MissingError` when another boot has taken the run over: its files are not ours to write any more."""
        if self._lease is not None and not holds(self._run.lease, self._lease):
            raise MissingError(
                f"{self._run.lease}: another boot has taken over this run; nothing was saved by this one"
            )
