"""Learning rates: pure functions of the step, by the `kind` of their settings."""

import math
from collections.abc import Callable
from typing import Any

from trainwright.spec.derived import Derived
from trainwright.spec.schedules import Constant, CosInf, Cosine, Linear, Wsd


def cosine(settings: Cosine, step: int, steps: int, warmup_steps: int) -> float:
    """Return the share of the peak rate at a step counted from 0: up to 1 over the warm-up, then down half a cosine."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, steps - 1 - warmup_steps))
    return settings.min_lr_ratio + (1 - settings.min_lr_ratio) * (1 + math.cos(math.pi * progress)) / 2


def cos_inf(settings: CosInf, step: int, steps: int, warmup_steps: int) -> float:
    """Return the share of danastar's schedule: up from a small share, down half a cosine, then along the floor."""
    if step < warmup_steps:
        up = step / warmup_steps
        return up + (1 - up) * settings.start_lr_ratio
    falling = steps - settings.floor_steps - warmup_steps
    if step >= steps - settings.floor_steps or falling <= 0:
        return settings.min_lr_ratio
    fall = (1 + math.cos(math.pi * (step - warmup_steps) / falling)) / 2
    return settings.min_lr_ratio + (1 - settings.min_lr_ratio) * fall


def linear(settings: Linear, step: int, steps: int, warmup_steps: int) -> float:
    """Return the share of the peak rate: up over the warm-up, then straight down."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, steps - 1 - warmup_steps))
    return settings.min_lr_ratio + (1 - settings.min_lr_ratio) * (1 - progress)


def wsd(settings: Wsd, step: int, steps: int, warmup_steps: int) -> float:
    """Return the share of the peak rate: up over the warm-up, along the peak, and down in the last part."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    decay_steps = min(round(settings.decay_fraction * steps), steps - warmup_steps)
    # The last step of the run is the first at the lowest rate.
    progress = min(1.0, max(0.0, (step + 1 - (steps - decay_steps)) / max(1, decay_steps)))
    match settings.decay_shape:
        case "linear":
            left = 1 - progress
        case "cosine":
            left = (1 + math.cos(math.pi * progress)) / 2
        case "sqrt":
            left = 1 - math.sqrt(progress)
    return settings.min_lr_ratio + (1 - settings.min_lr_ratio) * left


def constant(settings: Constant, step: int, steps: int, warmup_steps: int) -> float:
    """Return the share of the peak rate: up over the warm-up, and all of it afterwards."""
    del settings, steps
    return (step + 1) / warmup_steps if step < warmup_steps else 1.0


SCHEDULES: dict[str, Callable[[Any, int, int, int], float]] = {
    "cosine": cosine,
    "cos_inf": cos_inf,
    "linear": linear,
    "wsd": wsd,
    "constant": constant,
}


def learning_rate(derived: Derived, step: int) -> float:
    """Return the learning rate of the update that follows `step` finished ones."""
    schedule = derived.experiment.schedule
    share = SCHEDULES[schedule.kind](schedule, step, derived.steps, derived.warmup_steps)
    return derived.peak_lr * share
