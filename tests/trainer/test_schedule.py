"""Learning rates at the edges, and between them never above the peak."""

from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
import pytest

from tiny_run import tiny_experiment
from trainer.schedule import cosine, learning_rate
from trainwright.spec.derived import Derived
from trainwright.spec.training import Cosine


@st.composite
def horizons(draw: st.DrawFn) -> tuple[int, int, float]:
    steps = draw(st.integers(1, 500))
    return steps, draw(st.integers(0, steps)), draw(st.floats(0, 1))


@given(horizons())
def test_the_rate_rises_to_the_peak_and_falls_to_the_share(horizon: tuple[int, int, float]) -> None:
    steps, warmup, least = horizon
    settings = Cosine(min_lr_ratio=least)
    shares = [cosine(settings, step, steps, warmup) for step in range(steps)]
    assert all(0 < share <= 1 for share in shares[:warmup])
    assert shares[:warmup] == sorted(shares[:warmup])
    assert all(least - 1e-12 <= share <= 1 + 1e-12 for share in shares[warmup:])
    falling = shares[max(0, warmup - 1) :]
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(falling))
    assert shares == [cosine(settings, step, steps, warmup) for step in range(steps)]


def test_the_edges_are_exact() -> None:
    settings = Cosine(min_lr_ratio=0.25)
    assert cosine(settings, 0, 100, 10) == 0.1
    assert cosine(settings, 9, 100, 10) == 1
    assert cosine(settings, 10, 100, 10) == 1
    assert cosine(settings, 99, 100, 10) == 0.25
    assert cosine(settings, 0, 100, 0) == 1
    assert cosine(settings, 50, 101, 0) == pytest.approx((1 + 0.25) / 2)


def test_a_run_that_goes_past_its_horizon_stays_at_the_least_rate() -> None:
    assert cosine(Cosine(min_lr_ratio=0.25), 1000, 100, 10) == 0.25


def test_the_rate_is_the_peak_times_the_share(tmp_path: Path) -> None:
    derived = Derived(tiny_experiment(tmp_path, "optimizer.lr=0.5", "schedule.min_lr_ratio=0.2"))
    rates = [learning_rate(derived, step) for step in range(derived.steps)]
    assert rates[derived.warmup_steps - 1] == 0.5
    assert rates[0] == pytest.approx(0.5 / derived.warmup_steps)
    assert rates[-1] == pytest.approx(0.5 * 0.2)
