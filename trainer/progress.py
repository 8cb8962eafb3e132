"""A bar on the terminal while a person watches; the log's own lines speak when nobody does."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(stage: str, total: int, *, start: int = 0, unit: str, shown: bool) -> Iterator[Callable[[str], None]]:
    """Yield a function that counts one unit and shows a few words beside it; log lines pass above the bar."""
    if not (shown and sys.stderr.isatty()):
        yield lambda _words: None
        return
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    bar = tqdm(total=total, initial=start, desc=stage, unit=unit, dynamic_ncols=True, leave=False)

    def advance(words: str) -> None:
        bar.set_postfix_str(words, refresh=False)
        bar.update()

    with bar, logging_redirect_tqdm():
        yield advance
