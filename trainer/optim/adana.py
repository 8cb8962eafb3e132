"""ADana (Ferbach and others, arXiv 2602.05298), and dana-mk4, which differs by one clip.

The averages forget ever more slowly, at the rate delta / (delta + t), and there is no correction of their bias. The
momentum term grows as (1 + t)^(1 - kappa) where mean and deviation agree about the sign. The equation in the paper
lacks one of the two momentum terms of the authors' code; the learning rates were fitted with the code, which this
follows.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trainer.optim.elementwise import DTYPES, Elementwise, decay_after
from trainer.optim.groups import Horizon, parameter_groups
from trainwright.spec.optimizers import Adana


def build_adana(settings: Adana, model: nn.Module, horizon: Horizon) -> torch.optim.Optimizer:
    """Return ADana over a model's parameters, or dana-mk4 if the settings clip."""

    def update(p: Tensor, g: Tensor, state: Mapping[str, Tensor], t: int, group: Mapping[str, Any]) -> None:
        adana_update(p, g, state["mean"], state["square"], t=t, lr=group["lr"], settings=settings)
        decay_after(p, group, t)

    groups = parameter_groups(model, settings, horizon)
    return Elementwise(groups, ("mean", "square"), DTYPES[settings.moments], update)


def adana_update(p: Tensor, g: Tensor, m: Tensor, v: Tensor, *, t: int, lr: float, settings: Adana) -> None:
    """Update weights `p` and the averages `m` and `v` of gradients `g`, in place; `t` counts updates from 1."""
    forget = settings.delta / (settings.delta + t)
    m.lerp_(g, forget)
    v.mul_(1 - forget).addcmul_(g, g, value=forget)
    scale = v.sqrt().add_(settings.eps).reciprocal_()
    certainty = m.abs().mul_(scale)
    growth = certainty * (1 + t) ** (1 - settings.kappa)
    if settings.clip_snr is not None:
        growth.clamp_(max=settings.clip_snr)
    # g N + gamma3 (sign(m) growth + m N), where m N is sign(m) certainty
    momentum = m.sign().mul_(growth.add_(certainty))
    p.sub_(g.mul(scale).add_(momentum, alpha=settings.gamma3), alpha=lr)
