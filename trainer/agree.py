"""What the ranks agree on after each step's backward pass, in one reduction of a handful of numbers."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.ranks import Ranks
from trainer.requests import Request


@dataclass(frozen=True, slots=True)
class Agreed:
    """The same on every rank."""

    loss_sum: float
    """Sum of losses over the global batch."""
    grad_norm: float
    """Norm of the whole gradient."""
    request: Request
    """The highest request that any rank has seen."""
    save_due: bool
    """Whether the first rank's clock says that it is time to save."""

    @property
    def finite(self) -> bool:
        """Return whether loss and gradient are numbers that an update may use."""
        return math.isfinite(self.loss_sum) and math.isfinite(self.grad_norm)


def agree(loss_sum: Tensor, gradients: list[Tensor], seen: Request, *, save_due: bool, ranks: Ranks) -> Agreed:
    """Add up losses, squared gradients and flags over the ranks; each brings its own part of the gradient.

    The ranks of a sharded model hold disjoint parts of the gradient, and the one rank of a plain model all of it, so
    that the sum of squares is that of the whole, as often as there are replicas.
    """
    norms = torch.stack(torch._foreach_norm(gradients))  # noqa: SLF001 - torch's clip_grad_norm_ calls the same
    flags = torch.tensor([seen == Request.INTERRUPT, seen == Request.END, save_due and ranks.is_first])
    vector = torch.cat((torch.stack((loss_sum.double(), norms.double().square().sum())), flags.to(loss_sum.device)))
    loss, squares, interrupt, end, due = ranks.sum(vector).tolist()
    request = Request.END if end else Request.INTERRUPT if interrupt else Request.NONE
    norm = math.sqrt(squares / ranks.replicas) if squares >= 0 else math.nan
    return Agreed(loss, norm, request, bool(due))
