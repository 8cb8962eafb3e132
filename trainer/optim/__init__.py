"""The optimizers, by the `kind` of their settings."""

from collections.abc import Callable

import torch
from torch import nn

from trainer.optim.adamw import build_adamw
from trainwright.spec.training import AdamW, Optimizer

OPTIMIZERS: dict[str, Callable[[AdamW, nn.Module], torch.optim.Optimizer]] = {"adamw": build_adamw}


def build_optimizer(settings: Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    """Return an optimizer over a model's (sharded) parameters."""
    return OPTIMIZERS[settings.kind](settings, model)
