"""Which rank holds which piece of which tensor: the common ground of initial weights and checkpoints.

A piece is a box of a global tensor: where it starts, and the local values. FSDP shards the first dimension, so boxes
are runs of rows, and reading a checkpoint on another number of ranks is copying where boxes overlap.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset


@dataclass(frozen=True, slots=True)
class Piece:
    """A box of the tensor `name`: global shape, start of the box, and its values on this rank (a view)."""

    name: str
    shape: tuple[int, ...]
    offset: tuple[int, ...]
    local: Tensor


def pieces(name: str, tensor: Tensor, *, every_rank: bool = False) -> Iterator[Piece]:
    """Yield the piece of a tensor that this rank holds, if any.

    Of values that several ranks hold alike (plain tensors, replicas) only the first rank's is yielded, unless
    `every_rank` asks for what this rank holds.
    """
    if not isinstance(tensor, DTensor):
        if every_rank or not dist.is_initialized() or dist.get_rank() == 0:
            yield Piece(name, tuple(tensor.shape), (0,) * tensor.dim(), tensor.detach())
        return
    sharded: DTensor = tensor
    local = sharded.to_local().detach()
    coordinate = tensor.device_mesh.get_coordinate()
    assert coordinate is not None
    replica = any(
        placement == Replicate() and here > 0 for placement, here in zip(tensor.placements, coordinate, strict=True)
    )
    if local.numel() and (every_rank or not replica):
        _, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
        yield Piece(name, tuple(tensor.shape), tuple(offset), local)


@dataclass(frozen=True, slots=True)
class Overlap:
    """Where two boxes of one tensor meet: the slices of the one that is read and of the one that is written."""

    read: tuple[slice, ...]
    write: tuple[slice, ...]


def overlap(
    read_offset: tuple[int, ...],
    read_shape: tuple[int, ...],
    write_offset: tuple[int, ...],
    write_shape: tuple[int, ...],
) -> Overlap | None:
    """Return where a stored box and a wanted box meet, or None."""
    reads, writes = [], []
    for r_start, r_size, w_start, w_size in zip(read_offset, read_shape, write_offset, write_shape, strict=True):
        start, stop = max(r_start, w_start), min(r_start + r_size, w_start + w_size)
        if start >= stop:
            return None
        reads.append(slice(start - r_start, stop - r_start))
        writes.append(slice(start - w_start, stop - w_start))
    return Overlap(tuple(reads), tuple(writes))


def num_elements(shape: tuple[int, ...]) -> int:
    """Return the elements of a shape; one for a scalar."""
    return int(torch.Size(shape).numel())
