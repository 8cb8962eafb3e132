"""Scaling rules give the published numbers, and say so when they were asked off their grid."""

import math

from hypothesis import given
from hypothesis import strategies as st
import pytest

from trainwright.spec.scaling import FITS, chinchilla_for_flops, depth_batch_tokens, depth_muon_rates
from trainwright.spec.scaling import depth_weight_decay, fitted_learning_rate

ENOKI_8 = 12 * 512**2 * 6
"""Weights in the blocks of Enoki with 8 heads."""

PUBLISHED = {
    ("adamw", None, 32): 2.29e-3,
    ("adamw-log-time", None, 32): 2.48e-3,
    ("adana", 0.75, 32): 3.66e-4,
    ("adana", 0.80, 32): 5.07e-4,
    ("adana", 0.85, 32): 7.14e-4,
    ("adana", 0.90, 32): 9.66e-4,
    ("dana-mk4", 0.85, 32): 6.30e-4,
    ("dana-star", 0.85, 32): 1.10e-3,
    ("dana-star-mk4", 0.85, 32): 1.10e-3,
    ("muon", None, 32): 2.02e-3,
    ("adamw", None, 512): 5.30e-3,
    ("adana", 0.85, 512): 1.49e-3,
    ("dana-mk4", 0.85, 512): 1.27e-3,
    ("dana-star-mk4", 0.85, 512): 2.46e-3,
}


@pytest.mark.parametrize(("optimizer", "kappa", "batch"), PUBLISHED)
def test_enoki_with_eight_heads_gets_the_published_rate(optimizer: str, kappa: float | None, batch: int) -> None:
    found = fitted_learning_rate("enoki", optimizer, kappa, batch, ENOKI_8)
    assert found is not None
    assert found.value == pytest.approx(PUBLISHED[optimizer, kappa, batch], rel=5e-3)
    assert found.warning is None


def test_the_seeds_own_rate_has_five_digits() -> None:
    found = fitted_learning_rate("enoki", "adana", 0.85, 32, ENOKI_8)
    assert found is not None
    assert found.value == pytest.approx(7.1444e-4, rel=1e-4)
    assert found.formula == "22.5 x (122000 + block weights)^-0.618: fit of enoki, adana, batch 32, kappa 0.85"


def test_off_the_grid_the_nearest_fit_is_taken_with_one_warning() -> None:
    between = fitted_learning_rate("enoki", "adana", 0.85, 128, ENOKI_8)
    above = fitted_learning_rate("enoki", "adana", 0.85, 129, ENOKI_8)
    assert between is not None
    assert above is not None
    assert between.value == pytest.approx(7.14e-4, rel=5e-3)
    assert above.value == pytest.approx(1.49e-3, rel=5e-3)
    both = fitted_learning_rate("enoki", "adana", 0.76, 40, ENOKI_8)
    assert both is not None
    assert both.value == pytest.approx(3.66e-4, rel=5e-3)
    assert both.warning is not None
    assert both.warning.startswith(
        "no fit was made for enoki with adana at a batch of 40 x 2,048 tokens and kappa 0.76; the nearest is taken, "
        "of a batch of 32, kappa 0.75"
    )


def test_a_family_or_optimizer_without_a_fit_has_no_rate() -> None:
    assert fitted_learning_rate("llama", "adana", 0.85, 32, ENOKI_8) is None
    assert fitted_learning_rate("qwen3", "muon", None, 32, ENOKI_8) is None


@given(st.sampled_from(sorted(FITS)), st.integers(1, 10**6), st.floats(0, 1), st.integers(10**5, 10**11))
def test_every_fit_gives_a_sane_rate_everywhere(
    key: tuple[str, str, int], batch: int, kappa: float, weights: int
) -> None:
    found = fitted_learning_rate(key[0], key[1], kappa, batch, weights)
    assert found is not None
    assert 1e-7 < found.value < 1
    more = fitted_learning_rate(key[0], key[1], kappa, batch, 2 * weights)
    assert more is not None
    assert more.value < found.value


@pytest.mark.parametrize(
    ("matrices", "tokens"),
    [
        (11_534_336, 2**18),
        (41_943_040, 2**18),
        (110_100_480, 2**19),
        (435_159_040, 2**20),
        (918_421_504, 2**20),
        (1_677_721_600, 2**21),
    ],
)
def test_nanochats_batch_follows_its_depth(matrices: int, tokens: int) -> None:
    assert depth_batch_tokens(matrices).value == tokens


def test_nanochats_rates_are_those_of_its_reference_depth() -> None:
    rates, _ = depth_muon_rates(768, 2**19)
    assert (rates.matrices, rates.embedding, rates.output) == (0.02, 0.3, 0.008)
    larger, _ = depth_muon_rates(4 * 768, 2**21)
    assert (larger.matrices, larger.embedding) == (0.04, 0.3)
    assert depth_weight_decay(110_100_480, 2**19).value == pytest.approx(0.28)
    assert depth_weight_decay(2 * 110_100_480, 2**21).value == pytest.approx(0.28)


def test_chinchilla_spends_its_budget() -> None:
    parameters, tokens = chinchilla_for_flops(26.205e18)
    assert 6 * parameters * tokens == pytest.approx(26.205e18)
    assert tokens / parameters == pytest.approx(20)
    assert math.isclose(parameters, 467.3e6, rel_tol=1e-3)
