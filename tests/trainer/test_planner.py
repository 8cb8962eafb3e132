"""Where boxes of a tensor meet, held against an array that is filled cell by cell."""

from hypothesis import example, given
from hypothesis import strategies as st
import numpy as np
import torch

from trainer.planner import num_elements, overlap, pieces

Box = tuple[tuple[int, ...], tuple[int, ...]]


@st.composite
def two_boxes(draw: st.DrawFn) -> tuple[tuple[int, ...], Box, Box]:
    """Draw a shape and two boxes (offset, shape) inside it; boxes may be empty."""
    shape = tuple(draw(st.lists(st.integers(0, 6), max_size=3)))

    def box() -> Box:
        offset = tuple(draw(st.integers(0, size)) for size in shape)
        return offset, tuple(draw(st.integers(0, size - at)) for size, at in zip(shape, offset, strict=True))

    return shape, box(), box()


def slices(box: Box) -> tuple[slice, ...]:
    return tuple(slice(at, at + size) for at, size in zip(*box, strict=True))


@given(two_boxes())
@example(((6,), ((1,), (4,)), ((2,), (4,))))
@example(((6, 3), ((3, 0), (2, 3)), ((0, 0), (4, 3))))
def test_boxes_meet_where_cells_are_in_both(case: tuple[tuple[int, ...], Box, Box]) -> None:
    shape, read, write = case
    cells = np.arange(num_elements(shape)).reshape(shape)
    both = np.intersect1d(cells[slices(read)], cells[slices(write)])
    meeting = overlap(*read, *write)
    if meeting is None:
        assert both.size == 0
        return
    from_read, from_write = cells[slices(read)][meeting.read], cells[slices(write)][meeting.write]
    assert np.array_equal(from_read, from_write)
    assert np.array_equal(np.sort(from_read.ravel()), both)
    assert both.size


def test_scalars_meet() -> None:
    meeting = overlap((), (), (), ())
    assert meeting is not None
    assert meeting.read == meeting.write == ()


@given(st.lists(st.integers(0, 9), max_size=4))
def test_elements_are_counted_as_torch_counts_them(shape: list[int]) -> None:
    assert num_elements(tuple(shape)) == torch.zeros(shape).numel()


def test_a_plain_tensor_is_one_piece_and_no_copy() -> None:
    tensor = torch.nn.Parameter(torch.arange(6.0).view(2, 3))
    (piece,) = pieces("it", tensor)
    assert (piece.name, piece.shape, piece.offset) == ("it", (2, 3), (0, 0))
    assert piece.local.data_ptr() == tensor.data_ptr()
    assert not piece.local.requires_grad
