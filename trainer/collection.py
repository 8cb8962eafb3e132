"""Python's garbage collection, kept out of the steps: a full one stops a rank for half a second, and all wait."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collection_in_steps() -> Iterator[None]:
    """Collect only where `collect` is called; what is there already is never looked at again."""
    was_on = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_on:
            gc.enable()


def collect(*, everything: bool) -> None:
    """Collect the young objects, a matter of a millisecond, or everything."""
    gc.collect(2 if everything else 1)
