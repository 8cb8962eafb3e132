"""AdamW (Loshchilov and Hutter, arXiv 1711.05101) by torch's fused kernel, on CPUs and GPUs."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trainer.optim.elementwise import DTYPES, Elementwise, local
from trainer.optim.groups import Horizon, parameter_groups, shrink
from trainwright.spec.optimizers import AdamW, Muon


class FusedAdamW(torch.optim.AdamW):
    """torch's fused AdamW, which may decay in logarithmic time too."""

    def __init__(self, groups: list[dict[str, Any]], settings: AdamW) -> None:
        betas = (settings.beta1, settings.beta2)
        super().__init__(groups, betas=betas, eps=settings.eps, fused=True)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Make one update."""
        super().step(closure)
        for group in self.param_groups:
            updated = [each for each in group["params"] if each.grad is not None]
            if group["omega"] and updated:
                factor = shrink(group, int(self.state[updated[0]]["step"]))
                torch._foreach_mul_([local(each) for each in updated], factor)


def build_adamw(settings: AdamW, model: nn.Module, horizon: Horizon) -> torch.optim.Optimizer:
    """Return AdamW over all parameters. The loop sets `lr` at each step."""
    groups = parameter_groups(model, settings, horizon)
    if settings.moments == "fp32":
        return FusedAdamW(groups, settings)

    # The fused kernel of CPUs wants averages in the type of the weights.
    def update(p: Tensor, g: Tensor, state: Mapping[str, Tensor], t: int, group: Mapping[str, Any]) -> None:
        log_time = bool(group["omega"])
        if not log_time:
            p.mul_(shrink(group, t))
        adam_update(p, g, state["exp_avg"], state["exp_avg_sq"], t=t, lr=group["lr"], settings=settings)
        if log_time:
            p.mul_(shrink(group, t))

    return Elementwise(groups, ("exp_avg", "exp_avg_sq"), DTYPES[settings.moments], update)


def adam_update(p: Tensor, g: Tensor, m: Tensor, v: Tensor, *, t: int, lr: float, settings: AdamW | Muon) -> None:
    """Update weights and the averages of gradients, correcting their bias; `t` counts updates from 1."""
    m.lerp_(g, 1 - settings.beta1)
    v.mul_(settings.beta2).addcmul_(g, g, value=1 - settings.beta2)
    spread = (v / (1 - settings.beta2**t)).sqrt_().add_(settings.eps)
    p.addcdiv_(m, spread, value=-lr / (1 - settings.beta1**t))
