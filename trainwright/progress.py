"""Progress of long work: a bar when a person watches, a plain line every few seconds when not."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self

if TYPE_CHECKING:
    from tqdm import tqdm

LINE_EVERY_S = 15.0


class Progress:
    """Counts units of work of one stage; use it as a context manager."""

    def __init__(
        self, stage: str, *, total: int | None = None, start: int = 0, unit: str = "it", quiet: bool = False
    ) -> None:
        self._stage, self._total, self._done, self._unit = stage, total, start, unit
        self._quiet = quiet
        self._last_line = time.monotonic()
        self._bar: tqdm[NoReturn] | None = None
        if not quiet and sys.stderr.isatty():
            from tqdm import tqdm as make_bar

            self._bar = make_bar(total=total, initial=start, unit=unit, desc=stage, dynamic_ncols=True, leave=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, count: int, **facts: str) -> None:
        """Count finished units and show a few facts beside them."""
        self._done += count
        if self._bar is not None:
            self._bar.set_postfix(facts, refresh=False)
            self._bar.update(count)
        elif not self._quiet and time.monotonic() - self._last_line > LINE_EVERY_S:
            self._last_line = time.monotonic()
            of = f"/{self._total}" if self._total is not None else ""
            words = " ".join(f"{key}={value}" for key, value in facts.items())
            print(f"stage={self._stage} {self._unit}={self._done}{of} {words}".rstrip(), file=sys.stderr, flush=True)  # noqa: T201 - the plain form of a bar
