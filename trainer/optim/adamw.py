"""AdamW (Loshchilov and Hutter, arXiv 1711.05101) by torch's fused kernel, on CPUs and GPUs."""

import torch
from torch import nn

from trainwright.spec.training import AdamW


def build_adamw(settings: AdamW, model: nn.Module) -> torch.optim.Optimizer:
    """Return AdamW over all parameters; matrices decay, norms and biases do not. The loop sets `lr` at each step."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        fused=True,
    )
