"""The optimizers, by the `kind` of their settings."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from trainer.optim.adamw import build_adamw
from trainer.optim.adana import build_adana
from trainer.optim.dana_star import build_dana_star
from trainer.optim.groups import Horizon
from trainer.optim.muon import build_muon
from trainwright.spec.derived import Derived

OPTIMIZERS: dict[str, Callable[[Any, nn.Module, Horizon], torch.optim.Optimizer]] = {
    "adamw": build_adamw,
    "adana": build_adana,
    "dana-mk4": build_adana,
    "dana-star": build_dana_star,
    "dana-star-mk4": build_dana_star,
    "muon": build_muon,
}


def build_optimizer(derived: Derived, model: nn.Module) -> torch.optim.Optimizer:
    """Return an experiment's optimizer over a model's (sharded) parameters."""
    settings = derived.experiment.optimizer
    horizon = Horizon(derived.steps, derived.peak_lr, derived.muon_rates)
    return OPTIMIZERS[settings.kind](settings, model, horizon)
