"""Initial weights: a pure function of seed, parameter name and row, so that every number of ranks starts the same.

Each rank makes only the rows that it holds, on the CPU, in blocks with seeds of their own; the same values come out on
one rank or sixty-four, on CPUs and on GPUs.
"""

import hashlib

import torch
from torch import Tensor, nn

from trainer.planner import pieces

BLOCK_ROWS = 256


@torch.no_grad()
def initialise(model: nn.Module, seed: int) -> None:
    """Fill every parameter, sharded or whole, and every buffer; the model says how."""
    for name, parameter in model.named_parameters():
        std = model.initial_std(name)  # type: ignore[operator]
        for piece in pieces(name, parameter, every_rank=True):
            if std is None:
                piece.local.fill_(1.0)
            elif std == 0:
                piece.local.zero_()
            else:
                rows = _rows(seed, name, piece.offset[0], piece.local.shape[0], piece.shape[1:])
                piece.local.copy_(rows * std)
    device = next(model.parameters()).device
    model.reset_buffers(device)  # type: ignore[operator]


def _rows(seed: int, name: str, start: int, count: int, row_shape: tuple[int, ...]) -> Tensor:
    """Return rows [start, start + count) of a standard-normal tensor whose values do not depend on the split."""
    first, last = start // BLOCK_ROWS, (start + count - 1) // BLOCK_ROWS
    blocks = []
    for block in range(first, last + 1):
        digest = hashlib.blake2b(f"{seed} {name} {block}".encode(), digest_size=8).digest()
        generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest, "little") >> 1)
        blocks.append(torch.randn((BLOCK_ROWS, *row_shape), generator=generator))
    offset = start - first * BLOCK_ROWS
    return torch.cat(blocks)[offset : offset + count]
