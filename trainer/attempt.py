"""What a rank leaves behind for boot: its end record, its sign of life, and proof that the run is still its own.

torchrun turns every exit code into 1, so boot reads the records instead. By hand, without boot, none of this exists.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path

from trainwright.spec.exits import Exit, MissingError
from trainwright.spec.paths import RunFolder
from trainwright.store.files import write_json
from trainwright.store.lease import holds

ATTEMPT_VARIABLE = "TRAINWRIGHT_ATTEMPT"
LEASE_VARIABLE = "TRAINWRIGHT_LEASE"
BEAT_S = 5.0


class Attempt:
    """This rank's part of one attempt on a run."""

    def __init__(self, run: RunFolder, rank: int, environ: Mapping[str, str] = os.environ) -> None:
        self._run = run
        self._rank = rank
        folder = environ.get(ATTEMPT_VARIABLE)
        self._folder = Path(folder) if folder else None
        self._lease = environ.get(LEASE_VARIABLE)
        self._last_beat = 0.0

    @property
    def number(self) -> str:
        """Return the attempt's number, or `by hand`."""
        return self._folder.name if self._folder else "by hand"

    def end(self, code: Exit | int, reason: str, step: int | None = None) -> None:
        """Leave this rank's end record."""
        if self._folder is not None:
            record = {"rank": self._rank, "code": int(code), "reason": reason, "step": step}
            write_json(self._folder / f"rank_{self._rank:05d}.json", record)

    def beat(self, step: int, steps: int, *, now: bool = False) -> None:
        """Tell at most every few seconds how far the run is."""
        if self._rank == 0 and (now or time.monotonic() - self._last_beat > BEAT_S):
            self._last_beat = time.monotonic()
            write_json(self._run.heartbeat, {"step": step, "steps": steps, "time": round(time.time(), 3)})

    def check_lease(self) -> None:
        """Raise `MissingError` when another boot has taken the run over: its files are not ours to write any more."""
        if self._lease is not None and not holds(self._run.lease, self._lease):
            raise MissingError(
                f"{self._run.lease}: another boot has taken over this run; nothing was saved by this one"
            )
