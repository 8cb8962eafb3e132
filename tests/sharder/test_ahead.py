import threading
import time

import pytest

from sharder.sources.ahead import fetched


def test_items_come_in_order_each_once_it_was_fetched() -> None:
    done: set[int] = set()

    def fetch(item: int) -> None:
        # The later ones are the quicker ones.
        time.sleep(0.002 * (8 - item))
        done.add(item)

    for expected, item in enumerate(fetched(range(8), fetch, 3)):
        assert item == expected
        assert item in done
    assert len(done) == 8


def test_no_more_are_fetched_at_once_than_asked_for() -> None:
    lock, now, most = threading.Lock(), [0], [0]

    def fetch(_: int) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.005)
        with lock:
            now[0] -= 1

    assert list(fetched(range(20), fetch, 4)) == list(range(20))
    assert 2 <= most[0] <= 4


def test_what_a_fetch_raises_is_raised_at_its_item() -> None:
    def fetch(item: int) -> None:
        if item == 2:
            raise ValueError("the third")

    items = fetched(range(5), fetch, 3)
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(ValueError, match="the third"):
        next(items)
