"""Nothing is collected in a step unless it is asked for."""

import gc

from trainer.collection import collect, no_collection_in_steps


class Knot:
    """Something that only a collection frees."""

    def __init__(self) -> None:
        self.itself = self


def knots() -> int:
    return sum(isinstance(each, Knot) for each in gc.get_objects())


def test_collection_is_off_within_and_as_before_after() -> None:
    assert gc.isenabled()
    with no_collection_in_steps():
        assert not gc.isenabled()
        frozen = gc.get_freeze_count()
        assert frozen > 0
        Knot()
        assert knots() == 1
        collect(everything=False)
        assert knots() == 0
        collect(everything=True)
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
