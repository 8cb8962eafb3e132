"""Fetching the files of the next pieces while this one is worked on."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

Item = TypeVar("Item")


def fetched(items: Iterable[Item], fetch: Callable[[Item], None], num_ahead: int) -> Iterator[Item]:
    """Yield items in their order, each once `fetch` has brought it, while at most `num_ahead` are being brought."""
    window: deque[tuple[Item, Future[None]]] = deque()
    for item in items:
        future: Future[None] = Future()
        # Daemons: a stop request must not wait for a download.
        threading.Thread(target=_settle, args=(future, fetch, item), name="fetch", daemon=True).start()
        window.append((item, future))
        if len(window) >= num_ahead:
            yield _first(window)
    while window:
        yield _first(window)


def _first(window: deque[tuple[Item, Future[None]]]) -> Item:
    item, future = window.popleft()
    future.result()
    return item


def _settle(future: Future[None], fetch: Callable[[Item], None], item: Item) -> None:
    try:
        fetch(item)
    except BaseException as error:
        # Whatever it is, the one who waits for this item raises it.
        future.set_exception(error)
    else:
        future.set_result(None)
