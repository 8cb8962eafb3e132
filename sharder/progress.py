"""How long work shows itself: a bar when a person watches stderr, a `key=value` line now and then when nobody does."""

import logging
import sys
import time
from types import TracebackType
from typing import NoReturn, Self

from tqdm import tqdm

LINE_EVERY_S = 10.0

log = logging.getLogger(__name__)


class Progress:
    """Counts bytes of text on one long stage; use it in a `with` block."""

    def __init__(self, stage: str, total_bytes: int | None = None) -> None:
        self._stage = stage
        self._started = self._shown = time.monotonic()
        self.num_bytes = 0
        self._bar: tqdm[NoReturn] | None = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=total_bytes, desc=stage, unit="B", unit_scale=True, mininterval=0.5)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    @property
    def seconds(self) -> float:
        """Return the time since the start."""
        return time.monotonic() - self._started

    @property
    def mb_per_s(self) -> float:
        """Return the mean speed in megabytes (10^6) of text a second."""
        return self.num_bytes / 1e6 / max(self.seconds, 1e-9)

    def add(self, num_bytes: int, **facts: object) -> None:
        """Count work that is done, and show it with `facts` when it is time to."""
        self.num_bytes += num_bytes
        if self._bar is not None:
            self._bar.update(num_bytes)
        if time.monotonic() - self._shown < (0.5 if self._bar is not None else LINE_EVERY_S):
            return
        self._shown = time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix(facts, refresh=False)
        else:
            done = (
                {"text_mb": f"{self.num_bytes / 1e6:.1f}", "mb_per_s": f"{self.mb_per_s:.1f}"} if self.num_bytes else {}
            )
            log.info("stage=%s %s", self._stage, facts_line({**facts, **done, "seconds": f"{self.seconds:.0f}"}))


class Pause:
    """Says when it is time to do again what takes time: not before `seconds`, nor twenty times what it took."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._asked = self._next = time.monotonic()

    def is_over(self) -> bool:
        """Return whether it is time; if so, the work begins now."""
        self._asked = time.monotonic()
        return self._asked >= self._next

    def again(self) -> None:
        """Say that the work is done."""
        now = time.monotonic()
        self._next = now + max(self._seconds, 20 * (now - self._asked))


def facts_line(facts: dict[str, object]) -> str:
    """Return facts as `key=value`, separated by spaces."""
    return " ".join(f"{key}={value}" for key, value in facts.items())
