"""Settings of the learning rate over the run; the curves themselves are in `trainer/schedule.py`."""

from typing import Annotated, Literal

from pydantic import Field

from trainwright.spec.settings import CountOrZero, OptionalCount, Settings, Share


class WarmUp(Settings):
    """What every schedule begins with."""

    warmup_steps: OptionalCount = None
    """Steps to the peak; null takes `warmup_fraction` of the run."""
    warmup_fraction: Share = 0.02
    """Share of the run that warms up when `warmup_steps` is null."""


class Cosine(WarmUp):
    """Linear warm-up from zero to the peak, then half a cosine down to a share of it at the last step."""

    kind: Literal["cosine"] = "cosine"
    min_lr_ratio: Share = 0.1
    """Learning rate at the last step as a share of the peak."""


class CosInf(WarmUp):
    """Linear warm-up from a share of the peak, half a cosine down to a floor, and the floor for the steps after it."""

    kind: Literal["cos_inf"] = "cos_inf"
    start_lr_ratio: Share = 0.01
    """Learning rate at the first step as a share of the peak."""
    min_lr_ratio: Share = 0.1
    """The floor as a share of the peak."""
    floor_steps: CountOrZero = 0
    """Steps at the floor at the end of the run."""


class Linear(WarmUp):
    """Linear warm-up from zero to the peak, then straight down to a share of it at the last step."""

    kind: Literal["linear"] = "linear"
    min_lr_ratio: Share = 0.0
    """Learning rate at the last step as a share of the peak."""


class Wsd(WarmUp):
    """Warm-up, stable, decay: the peak is held, and left in the last part of the run."""

    kind: Literal["wsd"] = "wsd"
    decay_fraction: Share = 0.1
    """Share of the run in which the rate falls."""
    decay_shape: Literal["linear", "cosine", "sqrt"] = "linear"
    """How it falls: straight, half a cosine, or 1 - sqrt."""
    min_lr_ratio: Share = 0.0
    """Learning rate at the last step as a share of the peak."""


class Constant(WarmUp):
    """Linear warm-up, then the peak to the end."""

    kind: Literal["constant"] = "constant"


Schedule = Annotated[Cosine | CosInf | Linear | Wsd | Constant, Field(discriminator="kind")]
"""The union of schedules, told apart by `kind`."""
