"""Learning rates: pure functions of the step, by the `kind` of their settings."""

import math
from collections.abc import Callable

from trainwright.spec.derived import Derived
from trainwright.spec.training import Cosine


def cosine(settings: Cosine, step: int, steps: int, warmup_steps: int) -> float:
    """Return the share of the peak rate at a step counted from 0: up to 1 over the warm-up, then down half a cosine."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, steps - 1 - warmup_steps))
    return settings.min_lr_ratio + (1 - settings.min_lr_ratio) * (1 + math.cos(math.pi * progress)) / 2


SCHEDULES: dict[str, Callable[[Cosine, int, int, int], float]] = {"cosine": cosine}


def learning_rate(derived: Derived, step: int) -> float:
    """Return the learning rate of the update that follows `step` finished ones."""
    experiment = derived.experiment
    share = SCHEDULES[experiment.schedule.kind](experiment.schedule, step, derived.steps, derived.warmup_steps)
    return experiment.optimizer.lr * share
