"""Cross-entropy without the full logits: the vocabulary product is made, used and dropped chunk by chunk.

torch's own `linear_cross_entropy` does the same, but returns the sum in the type of its inputs: in bf16 a sum over a
batch has three digits. Here losses are fp32 whatever the inputs are.
"""

from dataclasses import dataclass
from functools import cache
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from trainer.products import linear, product
from trainwright.spec.memory import CHUNK_LOGITS as LOGITS_ON
from trainwright.tokens.shards import IGNORED

CHUNK_LOGITS = LOGITS_ON["cpu"]
"""Logits alive at once on a CPU."""


@dataclass(frozen=True, slots=True)
class LossOptions:
    """What training adds to the loss of a model."""

    z_loss: float = 0.0
    """Factor of the squared logarithm of the softmax's sum, which is added to each target's loss."""
    fused: bool = False
    """Compile what is done to each logit, which else passes through memory a dozen times."""


PLAIN = LossOptions()


def summed_loss(
    hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float | None = None, options: LossOptions = PLAIN
) -> Tensor:
    """Return the sum over targets of -log softmax(hidden @ weight.T)[target], fp32, differentiable once.

    hidden: (N, dim); weight: (vocabulary, dim); targets: (N,), positions with IGNORED count nothing. With a soft cap
    logits are squeezed into (-softcap, softcap) first.
    """
    loss: Tensor = _ChunkedLoss.apply(hidden, weight, targets, softcap, options)  # type: ignore[no-untyped-call]
    return loss


def soft_capped(logits: Tensor, softcap: float | None) -> Tensor:
    """Return logits squeezed into (-softcap, softcap) by tanh."""
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


@torch.no_grad()
def token_losses(hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float | None = None) -> Tensor:
    """Return the loss of each position in fp32, shape (N,), zero where the target is IGNORED."""
    losses = [
        F.cross_entropy(_logits(chunk, weight, softcap), wanted, ignore_index=IGNORED, reduction="none")
        for chunk, wanted in _chunks(hidden, weight, targets)
    ]
    return torch.cat(losses)


def _chunks(hidden: Tensor, weight: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    at_once = CHUNK_LOGITS if weight.device.type == "cpu" else LOGITS_ON["cuda"]
    rows = max(1, at_once // weight.shape[0])
    return list(zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True))


def _logits(hidden: Tensor, weight: Tensor, softcap: float | None) -> Tensor:
    return soft_capped(linear(hidden, weight).float(), softcap)


def _from_logits(raw: Tensor, wanted: Tensor, softcap: float | None, z_loss: float) -> tuple[Tensor, Tensor]:
    """Return the summed loss of a chunk, and its gradient with respect to the raw logits, in their type."""
    counted = (wanted != IGNORED).unsqueeze(1)
    index = wanted.clamp(min=0).unsqueeze(1)
    logits = soft_capped(raw.float(), softcap)  # n V
    slope = None if softcap is None else 1.0 - (logits / softcap).square()
    log_norm = logits.logsumexp(1, keepdim=True)
    loss = ((log_norm - logits.gather(1, index) + z_loss * log_norm.square()) * counted).sum()
    # In place: the chunk's logits become its gradient, softmax - onehot, and for the z-loss more of the softmax.
    gradient = logits.sub_(log_norm).exp_() if softcap is None else (logits - log_norm).exp_()
    if z_loss:
        gradient.mul_(1 + 2 * z_loss * log_norm)
    gradient.scatter_add_(1, index, torch.full_like(index, -1, dtype=gradient.dtype))
    return loss, gradient.mul_(counted if slope is None else counted * slope).to(raw.dtype)


@cache
def _compiled() -> Callable[[Tensor, Tensor, float | None, float], tuple[Tensor, Tensor]]:
    return torch.compile(_from_logits, dynamic=False)


class _ChunkedLoss(torch.autograd.Function):
    """Makes the gradients in the forward pass, while the chunk's logits are there anyway."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float | None, options: LossOptions
    ) -> Tensor:
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        grad_hidden = []
        from_logits = _compiled() if options.fused else _from_logits
        for chunk, wanted in _chunks(hidden, weight, targets):
            summed, gradient = from_logits(linear(chunk, weight), wanted, softcap, options.z_loss)
            loss += summed
            grad_hidden.append(product(gradient, weight).to(hidden.dtype))
            grad_weight += product(gradient.T, chunk.to(weight.dtype))
        ctx.save_for_backward(torch.cat(grad_hidden), grad_weight.to(weight.dtype))
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        of_hidden, of_weight = grads[0].to(grad_hidden.dtype), grads[0].to(grad_weight.dtype)
        return grad_hidden * of_hidden, grad_weight * of_weight, None, None, None
