"""Settings of the optimizers. Their mathematics is in `trainer/optim`, one file each.

Decay comes in three ways. With s(t) the schedule's share of the peak rate and T the steps of the run, a step multiplies
a decayed weight by 1 - d, where d is
- coupled: s(t) x lr x weight_decay, as in AdamW;
- independent: s(t) x omega / T, whatever the rate;
- log_time: s(t) x omega / (start + t), strong early and weak late, start being T / decay_start_divisor.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from trainwright.spec.settings import Count, NonNegative, OptionalCount, OptionalPositive, Positive, Problem, Settings
from trainwright.spec.settings import Share


class Group(Settings):
    """Parameters with settings of their own; a parameter belongs to the first group whose pattern its name matches."""

    match: str
    """A pattern of parameter names such as `embedding.*` or `blocks.0.*`; one that matches nothing is an error."""
    lr_scale: NonNegative = 1.0
    """Their learning rate as a multiple of the others'; 0 freezes them."""
    decay: bool = True
    """Whether they decay; norms and biases never do."""


class OptimizerSettings(Settings):
    """What every optimizer has."""

    lr: OptionalPositive = None
    """Peak learning rate; null takes the scaling rule of the model's family (`plan` shows it), if it has one."""
    weight_decay: NonNegative = 0.1
    """Strength of coupled decay; matrices decay, norms and biases do not."""
    decay: Literal["coupled", "independent", "log_time"] = "coupled"
    """Decay by rate x weight_decay, or by omega, whatever the rate: even over the run, or in logarithmic time."""
    omega: NonNegative = 4.0
    """Strength of independent and log-time decay (arXiv 2602.05298)."""
    decay_start_divisor: Positive = 10.0
    """Log-time decay starts as if steps / this had passed already."""
    decay_start_steps: OptionalCount = None
    """The same in steps; null takes the divisor."""
    moments: Literal["fp32", "bf16"] = "fp32"
    """Type in which averages of gradients are kept; bf16 halves them, and has three digits."""
    groups: tuple[Group, ...] = ()
    """Exceptions by parameter name."""

    @property
    def states_of_matrices(self) -> int:
        """Numbers kept for each weight of a block's matrix."""
        return 2

    @property
    def states_of_others(self) -> int:
        """Numbers kept for each other weight."""
        return 2

    @property
    def bytes_per_state(self) -> int:
        """Bytes of each of those numbers."""
        return 2 if self.moments == "bf16" else 4

    def start_steps(self, steps: int) -> int:
        """Return where log-time decay starts: int(steps / divisor), at least one step."""
        return self.decay_start_steps or max(1, int(steps / self.decay_start_divisor))


class AdamW(OptimizerSettings):
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101)."""

    kind: Literal["adamw"] = "adamw"
    lr: OptionalPositive = 3e-4
    """Peak learning rate; null takes the scaling rule of the model's family (`plan` shows it), if it has one."""
    beta1: Share = 0.9
    """Decay of the mean of gradients."""
    beta2: Share = 0.95
    """Decay of the mean of squared gradients."""
    eps: Positive = 1e-8
    """Added to the root of the second moment."""

    def problems(self) -> Iterator[Problem]:
        """Check that the averages forget."""
        yield from _forgetting(("beta1", self.beta1), ("beta2", self.beta2))


class Adana(OptimizerSettings):
    """ADana (Ferbach and others, arXiv 2602.05298): averages over logarithmic time, and momentum that grows with it."""

    kind: Literal["adana"] = "adana"
    decay: Literal["coupled", "independent", "log_time"] = "log_time"
    """Decay by rate x weight_decay, or by omega, whatever the rate: even over the run, or in logarithmic time."""
    delta: Positive = 8.0
    """Averages forget at the rate delta / (delta + t)."""
    kappa: Share = 0.85
    """Momentum grows as (1 + t)^(1 - kappa)."""
    gamma3: NonNegative = 1.0
    """Factor of the momentum term."""
    eps: Positive = 1e-8
    """Added to the root of the second moment."""
    clip_snr: OptionalPositive = None
    """Largest (1 + t)^(1 - kappa) |m| / root of v; null leaves it unclipped."""


class DanaMk4(Adana):
    """ADana whose momentum is clipped where it is surest of itself."""

    kind: Literal["dana-mk4"] = "dana-mk4"  # type: ignore[assignment]
    clip_snr: OptionalPositive = 2.0
    """Largest (1 + t)^(1 - kappa) |m| / root of v; null leaves it unclipped."""


class DanaStar(Adana):
    """ADana for weights whose gradients are rare: a third average, tau, tells how often there is a signal."""

    kind: Literal["dana-star"] = "dana-star"  # type: ignore[assignment]

    @property
    def states_of_matrices(self) -> int:
        """Numbers kept for each weight of a block's matrix."""
        return 3

    @property
    def states_of_others(self) -> int:
        """Numbers kept for each other weight."""
        return 3


class DanaStarMk4(DanaStar):
    """Dana-Star with the clip of mk4."""

    kind: Literal["dana-star-mk4"] = "dana-star-mk4"  # type: ignore[assignment]
    clip_snr: OptionalPositive = 2.0
    """Largest (1 + t)^(1 - kappa) |m| / root of v; null leaves it unclipped."""


class Muon(OptimizerSettings):
    """Muon (Jordan and others, 2024) for the matrices of the blocks, AdamW for all else."""

    kind: Literal["muon"] = "muon"
    momentum: Share = 0.95
    """Decay of the sum of gradients; Nesterov's form."""
    newton_schulz_steps: Count = 5
    """Quintic iterations that make a matrix orthogonal."""
    newton_schulz: Literal["bf16", "fp32"] = "bf16"
    """Their precision."""
    scale: Literal["rms", "spectral"] = "rms"
    """Size of an update: 0.2 sqrt(max(rows, columns)), as large as AdamW's, or sqrt(max(1, rows / columns))."""
    embedding_lr: OptionalPositive = None
    """Peak rate of the embedding under AdamW; null is the family's rule, else `lr`."""
    output_lr: OptionalPositive = None
    """Peak rate of the output matrix under AdamW; null is the family's rule, else `lr`."""
    rest_lr: OptionalPositive = None
    """Peak rate of norms, biases and scalars under AdamW; null is the family's rule, else `lr`."""
    beta1: Share = 0.8
    """AdamW's decay of the mean of gradients."""
    beta2: Share = 0.95
    """AdamW's decay of the mean of squared gradients."""
    eps: Positive = 1e-8
    """AdamW's addition to the root of the second moment."""

    @property
    def states_of_matrices(self) -> int:
        """Numbers kept for each weight of a block's matrix."""
        return 1

    def problems(self) -> Iterator[Problem]:
        """Check that the averages forget."""
        yield from _forgetting(("momentum", self.momentum), ("beta1", self.beta1), ("beta2", self.beta2))


def _forgetting(*shares: tuple[str, float]) -> Iterator[Problem]:
    for name, share in shares:
        if share == 1:
            yield Problem(name, share, "an average that forgets nothing never moves; it must be below 1")


Optimizer = Annotated[
    AdamW | Adana | DanaMk4 | DanaStar | DanaStarMk4 | Muon,
    Field(discriminator="kind"),
]
"""The union of optimizer settings, told apart by `kind`."""
