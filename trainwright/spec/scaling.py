"""Scaling rules: peak learning rates, batch and horizon from the size of a model, as pure arithmetic.

Sources: the fits of ADana's authors (arXiv 2602.05298 and its code), Chinchilla (arXiv 2203.15556), and the depth rules
of nanochat, whose one dial is the number of layers. A rule is used where the experiment leaves its number out; off the
grid on which a fit was made the nearest one is taken, and says so once.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fit:
    """A power law a (b + P)^d of the weights P in a model's blocks."""

    a: float
    b: float
    d: float

    def at(self, weights: int) -> float:
        """Return the rate for so many weights."""
        return float(self.a * (self.b + weights) ** self.d)

    def __str__(self) -> str:
        return f"{self.a:g} x ({self.b:g} + block weights)^{self.d:g}"


@dataclass(frozen=True, slots=True)
class Ruled:
    """A number that follows from a rule, the rule in words, and what is doubtful about it."""

    value: float
    formula: str
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class MuonRates:
    """Peak rates of the four kinds of parameters under Muon."""

    matrices: float
    embedding: float
    output: float
    rest: float


FITTED_SEQ_LEN = 2048
"""Tokens of the sequences with which the fits were made."""

Fits = Mapping[float | None, Fit]
"""kappa -> fit; None where an optimizer has no kappa."""

FITS: Mapping[tuple[str, str, int], Fits] = {
    ("enoki", "adamw", 32): {None: Fit(12.8, 1.67e4, -0.515)},
    ("enoki", "adamw-log-time", 32): {None: Fit(65.7, 9.83e3, -0.608)},
    ("enoki", "adana", 32): {
        0.75: Fit(12.7, 9.55e3, -0.624),
        0.80: Fit(17.6, 3.66e4, -0.624),
        0.85: Fit(22.5, 1.22e5, -0.618),
        0.90: Fit(68.9, 2.95e4, -0.667),
    },
    ("enoki", "dana-mk4", 32): {0.75: Fit(56.0, 5.71e3, -0.708), 0.85: Fit(23.0, 1.46e4, -0.627)},
    ("enoki", "dana-star", 32): {0.75: Fit(41.0, 3.03e4, -0.661), 0.85: Fit(223.0, 2.40e6, -0.724)},
    ("enoki", "dana-star-mk4", 32): {0.75: Fit(41.0, 3.03e4, -0.661), 0.85: Fit(223.0, 2.40e6, -0.724)},
    ("enoki", "muon", 32): {None: Fit(2.19, 5.64e4, -0.417)},
    ("enoki", "adamw", 512): {None: Fit(16.7, 1.58e7, -0.464)},
    ("enoki", "adana", 512): {0.85: Fit(85.3, 3.04e4, -0.654)},
    ("enoki", "dana-mk4", 512): {0.85: Fit(2.47e3, 2.24e7, -0.826)},
    ("enoki", "dana-star-mk4", 512): {0.85: Fit(310.0, 1.40e4, -0.701)},
    ("qwen3", "adamw", 32): {None: Fit(2.16e4, 7.20e4, -0.873)},
    ("qwen3", "adana", 32): {0.85: Fit(3.17, 3.99e4, -0.553)},
    ("qwen3", "dana-mk4", 32): {0.85: Fit(1.20, 3.44e4, -0.501)},
    ("qwen3", "dana-star-mk4", 32): {0.85: Fit(93.9, 1.71e4, -0.701)},
}
"""(family, optimizer, global batch in sequences of 2048 tokens) -> fits, as ADana's authors publish them.

P counts the matrices of the blocks: 12 n^2 a layer for Enoki, 14 n^2 for the gated Qwen3, as when its fits were made.
"""


def fitted_learning_rate(family: str, optimizer: str, kappa: float | None, batch: float, weights: int) -> Ruled | None:
    """Return the peak rate of the nearest fit; None where no fit knows the family and optimizer.

    `batch` is in sequences of 2048 tokens. Nearest first by batch (as a ratio), then by kappa; anything but a fit's own
    batch and kappa earns a warning.
    """
    batches = [each for known, of, each in FITS if (known, of) == (family, optimizer)]
    if not batches:
        return None
    near = min(batches, key=lambda each: (abs(math.log(each / batch)), each))
    fits = FITS[family, optimizer, near]
    known = [each for each in fits if each is not None]
    near_kappa = None
    if known:
        assert kappa is not None
        near_kappa = min(known, key=lambda each: (abs(each - kappa), each))
    off = [f"a batch of {batch:g} x {FITTED_SEQ_LEN:,} tokens"] if near != batch else []
    off += [f"kappa {kappa:g}"] if near_kappa is not None and not math.isclose(near_kappa, kappa or 0.0) else []
    of_kappa = f", kappa {near_kappa:g}" if near_kappa is not None else ""
    warning = None
    if off:
        warning = (
            f"no fit was made for {family} with {optimizer} at {' and '.join(off)}; the nearest is taken, "
            f"of a batch of {near}{of_kappa}; give optimizer.lr to decide otherwise"
        )
    fit = fits[near_kappa]
    formula = f"{fit}: fit of {family}, {optimizer}, batch {near}{of_kappa}"
    return Ruled(fit.at(weights), formula, warning)


NANOCHAT_BATCH_TOKENS = 2**19
"""Batch at the reference depth of 12, for which the rates below were tuned."""
NANOCHAT_WEIGHTS = 110_100_480
"""Matrix weights, blocks and output, at that depth: 12 layers of 12 x 768^2, and 32,768 x 768."""
NANOCHAT_WIDTH = 768


def depth_batch_tokens(matrix_weights: int) -> Ruled:
    """Return the tokens of a step for a model of nanochat's family (arXiv 2505.13738), a power of two."""
    growth = matrix_weights / NANOCHAT_WEIGHTS
    exponent = round(math.log2(NANOCHAT_BATCH_TOKENS * growth**0.383))
    formula = "2^round(log2(2^19 x (matrix weights / 110,100,480)^0.383))"
    return Ruled(2.0 ** max(0, exponent), formula)


def depth_muon_rates(width: int, batch_tokens: int) -> tuple[MuonRates, str]:
    """Return nanochat's rates for matrices under Muon (scale: spectral) and the rest under AdamW, and the rule."""
    by_batch = math.sqrt(batch_tokens / NANOCHAT_BATCH_TOKENS)
    by_width = by_batch * math.sqrt(NANOCHAT_WIDTH / width)
    rates = MuonRates(0.02 * by_batch, 0.3 * by_width, 0.008 * by_width, 0.005 * by_batch)
    return rates, "0.02 x sqrt(tokens of a step / 2^19); embedding 0.3 and output 0.008, also x sqrt(768 / width)"


def depth_weight_decay(matrix_weights: int, batch_tokens: int) -> Ruled:
    """Return the decay that keeps nanochat's averaging time (arXiv 2405.13698) constant."""
    value = 0.28 * math.sqrt(batch_tokens / NANOCHAT_BATCH_TOKENS) * NANOCHAT_WEIGHTS / matrix_weights
    return Ruled(value, "0.28 x sqrt(tokens of a step / 2^19) x 110,100,480 / matrix weights")


CHINCHILLA_TOKENS_PER_PARAMETER = 20.0


def chinchilla_for_flops(flops: float) -> tuple[float, float]:
    """Return parameters and tokens that spend a budget best: FLOPs = 6 N D with D = 20 N."""
    parameters = math.sqrt(flops / (6 * CHINCHILLA_TOKENS_PER_PARAMETER))
    return parameters, CHINCHILLA_TOKENS_PER_PARAMETER * parameters
