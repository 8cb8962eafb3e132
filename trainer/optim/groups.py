"""Which parameter gets which settings: matrices decay, norms and biases do not, and patterns make exceptions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from trainwright.spec.exits import UserError
from trainwright.spec.optimizers import Group, OptimizerSettings
from trainwright.spec.scaling import MuonRates


@dataclass(frozen=True, slots=True)
class Horizon:
    """What an optimizer must know of its run: its steps, and the peak rate that settings or a scaling rule gave."""

    steps: int
    lr: float
    rates: MuonRates | None = None
    """The rates of Muon's kinds of parameters."""


def named_groups(model: nn.Module, groups: Sequence[Group]) -> dict[str, Group | None]:
    """Return the group of each parameter by name; raise `UserError` for a pattern that no parameter is left for."""
    found: dict[str, Group | None] = {
        name: next((group for group in groups if fnmatchcase(name, group.match)), None)
        for name, _ in model.named_parameters()
    }
    for group in groups:
        if not any(each is group for each in found.values()):
            matched = any(fnmatchcase(name, group.match) for name in found)
            why = "all that it matches belongs to an earlier group" if matched else "it matches no parameter"
            names = ", ".join(list(found)[:3])
            raise UserError(f"optimizer.groups: match={group.match}: {why}; the model's names are {names}, ...")
    return found


def parameter_groups(
    model: nn.Module, settings: OptimizerSettings, horizon: Horizon, more: Mapping[str, Mapping[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """Return torch's parameter groups, in the order of the model; `more` are further settings by parameter name.

    Each has `lr_scale`, by which the loop multiplies its rate, `peak_lr`, from which the schedule's share is read back,
    and the two numbers of decay: `weight_decay`, multiplied by the rate, and `omega` with `start_steps`.
    """
    cut: dict[tuple[Any, ...], dict[str, Any]] = {}
    exceptions = named_groups(model, settings.groups)
    for name, parameter in model.named_parameters():
        extra = dict((more or {}).get(name, {}))
        options = _options(parameter, settings, exceptions[name], horizon, extra)
        key = tuple(sorted(options.items()))
        cut.setdefault(key, {"params": [], **options})["params"].append(parameter)
    return list(cut.values())


def _options(
    parameter: Tensor, settings: OptimizerSettings, group: Group | None, horizon: Horizon, extra: dict[str, Any]
) -> dict[str, Any]:
    scale = extra.pop("lr_scale", 1.0) * (group.lr_scale if group else 1.0)
    decays = parameter.dim() >= 2 and (group is None or group.decay)
    omega = settings.omega if decays else 0.0
    weight_decay = settings.weight_decay if decays and settings.decay == "coupled" else 0.0
    if settings.decay == "independent" and scale > 0:
        # Times the rate this is omega / steps times the schedule's share.
        weight_decay = omega / (horizon.lr * scale * horizon.steps)
    return {
        "lr": horizon.lr * scale,
        "peak_lr": horizon.lr * scale,
        "lr_scale": scale,
        "weight_decay": weight_decay,
        "omega": omega if settings.decay == "log_time" else 0.0,
        "start_steps": settings.start_steps(horizon.steps),
        **extra,
    }


def shrink(group: Mapping[str, Any], step: int) -> float:
    """Return what the weights of a group are multiplied by at the update that makes the count `step`.

    Log-time decay follows the schedule's share of the peak, and never the peak itself.
    """
    lr: float = group["lr"]
    if group["omega"] and group["peak_lr"]:
        share = lr / group["peak_lr"]
        return 1.0 - float(share * group["omega"] / (group["start_steps"] + step))
    return 1.0 - lr * float(group["weight_decay"])
