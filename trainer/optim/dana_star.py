"""Dana-Star and dana-star-mk4 (arXiv 2602.05298): ADana with a third average, of how often a weight has a gradient.

tau is near 1/2 where gradients keep their size and near 0 where they are rare; time then runs slower for that weight,
and its step is damped by the root of the odds tau / (1 - tau).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trainer.optim.elementwise import DTYPES, Elementwise, decay_after
from trainer.optim.groups import Horizon, parameter_groups
from trainwright.spec.optimizers import DanaStar


def build_dana_star(settings: DanaStar, model: nn.Module, horizon: Horizon) -> torch.optim.Optimizer:
    """Return Dana-Star over a model's parameters, or dana-star-mk4 if the settings clip."""

    def update(p: Tensor, g: Tensor, state: Mapping[str, Tensor], t: int, group: Mapping[str, Any]) -> None:
        dana_star_update(p, g, state, t=t, lr=group["lr"], settings=settings)
        decay_after(p, group, t)

    groups = parameter_groups(model, settings, horizon)
    return Elementwise(groups, ("mean", "square", "tau"), DTYPES[settings.moments], update)


def dana_star_update(
    p: Tensor, g: Tensor, state: Mapping[str, Tensor], *, t: int, lr: float, settings: DanaStar
) -> None:
    """Update weights and their averages `mean`, `square` and `tau` in place; `t` counts updates from 1."""
    m, v, tau = state["mean"], state["square"], state["tau"]
    forget = settings.delta / (settings.delta + t)
    m.lerp_(g, forget)
    v.mul_(1 - forget).addcmul_(g, g, value=forget)
    spread = v.sqrt().add_(settings.eps)
    size = g.abs()
    tau.lerp_(size / (size + spread), forget)
    clipped = tau.clamp(max=0.5)
    odds = (clipped / (1 - clipped)).clamp_(min=1 / (1 + t))
    scale = odds.sqrt().div_(spread)
    certainty = m.abs().mul_(scale)
    growth = (tau * t).clamp_(min=1).pow_(1 - settings.kappa).mul_(certainty).div_(odds)
    if settings.clip_snr is not None:
        growth.clamp_(max=settings.clip_snr)
    momentum = m.sign().mul_(growth.mul_(odds).add_(certainty))
    p.sub_(g.mul(scale).add_(momentum, alpha=settings.gamma3), alpha=lr)
