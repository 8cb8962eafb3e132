"""Cross-entropy without the full logits: the vocabulary product is made, used and dropped chunk by chunk.

torch's own `linear_cross_entropy` does the same, but returns the sum in the type of its inputs: in bf16 a sum over a
batch has three digits. Here losses are fp32 whatever the inputs are.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from trainwright.tokens.shards import IGNORED

CHUNK_LOGITS = 1 << 24
"""Logits alive at once: 64 MiB in fp32."""


def summed_loss(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Return the sum over targets of -log softmax(hidden @ weight.T)[target], fp32, differentiable once.

    hidden: (N, dim); weight: (vocabulary, dim); targets: (N,), positions with IGNORED count nothing.
    """
    loss: Tensor = _ChunkedLoss.apply(hidden, weight, targets)  # type: ignore[no-untyped-call]
    return loss


@torch.no_grad()
def token_losses(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of each position in fp32, shape (N,), zero where the target is IGNORED."""
    losses = [
        F.cross_entropy(F.linear(chunk, weight).float(), wanted, ignore_index=IGNORED, reduction="none")
        for chunk, wanted in _chunks(hidden, weight, targets)
    ]
    return torch.cat(losses)


def _chunks(hidden: Tensor, weight: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    rows = max(1, CHUNK_LOGITS // weight.shape[0])
    return list(zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True))


class _ChunkedLoss(torch.autograd.Function):
    """Makes the gradients in the forward pass, while the chunk's logits are there anyway."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        grad_hidden = []
        for chunk, wanted in _chunks(hidden, weight, targets):
            counted = (wanted != IGNORED).unsqueeze(1)
            index = wanted.clamp(min=0).unsqueeze(1)
            logits = F.linear(chunk, weight).float()  # n V
            log_norm = logits.logsumexp(1, keepdim=True)
            loss += ((log_norm - logits.gather(1, index)) * counted).sum()
            # In place: the chunk's logits become its gradient, softmax - onehot.
            gradient = logits.sub_(log_norm).exp_()
            gradient.scatter_add_(1, index, torch.full_like(index, -1, dtype=gradient.dtype))
            gradient = gradient.mul_(counted).to(weight.dtype)
            grad_hidden.append((gradient @ weight).to(hidden.dtype))
            grad_weight += gradient.T @ chunk.to(weight.dtype)
        ctx.save_for_backward(torch.cat(grad_hidden), grad_weight.to(weight.dtype))
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * grads[0].to(grad_hidden.dtype), grad_weight * grads[0].to(grad_weight.dtype), None
