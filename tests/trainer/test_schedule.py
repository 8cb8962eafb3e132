"""Learning rates at the edges, and between them never above the peak."""

from itertools import pairwise
import math
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
import pytest

from tiny_run import tiny_experiment
from trainer.schedule import SCHEDULES, constant, cos_inf, cosine, learning_rate, linear, wsd
from trainwright.spec.derived import Derived
from trainwright.spec.schedules import Constant, CosInf, Cosine, Linear, Wsd


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


EDGES = {
    "cosine": (0.1, 1.0, 1.0, 0.1, 0.1),
    "cos_inf": (0.01, 0.901, 1.0, 0.1 + 0.9 * (1 + math.cos(math.pi * 89 / 90)) / 2, 0.1),
    "linear": (0.1, 1.0, 1.0, 0.0, 0.0),
    "wsd": (0.1, 1.0, 1.0, 0.0, 0.0),
    "constant": (0.1, 1.0, 1.0, 1.0, 1.0),
}
"""Shares of the peak at step 0, at the last step of the warm-up, after it, at the last step, and beyond the end."""


@pytest.mark.parametrize("kind", sorted(SCHEDULES))
def test_every_schedule_is_exact_at_its_edges(tmp_path: Path, kind: str) -> None:
    words = (f"schedule.kind={kind}", "schedule.warmup_steps=10", "train.steps=100", "optimizer.lr=0.5")
    derived = Derived(tiny_experiment(tmp_path, *words))
    found = [learning_rate(derived, step) / 0.5 for step in (0, 9, 10, 99, 150)]
    assert found == pytest.approx(EDGES[kind], abs=1e-12)


def test_a_run_that_goes_past_its_horizon_stays_at_the_least_rate() -> None:
    assert cosine(Cosine(min_lr_ratio=0.25), 1000, 100, 10) == 0.25


def test_the_rate_is_the_peak_times_the_share(tmp_path: Path) -> None:
    derived = Derived(tiny_experiment(tmp_path, "optimizer.lr=0.5", "schedule.min_lr_ratio=0.2"))
    rates = [learning_rate(derived, step) for step in range(derived.steps)]
    assert rates[derived.warmup_steps - 1] == 0.5
    assert rates[0] == pytest.approx(0.5 / derived.warmup_steps)
    assert rates[-1] == pytest.approx(0.5 * 0.2)


@pytest.mark.parametrize(("step", "share"), [(0, 0.01), (13, 0.505), (26, 1.0), (671, 0.564), (1341, 0.1)])
def test_cos_inf_is_danastars(step: int, share: float) -> None:
    assert cos_inf(CosInf(), step, 1342, 26) == pytest.approx(share, abs=5e-4)


def test_cos_inf_ends_on_its_floor() -> None:
    settings = CosInf(floor_steps=10, min_lr_ratio=0.2)
    shares = [cos_inf(settings, step, 100, 10) for step in range(100)]
    assert shares[90:] == [0.2] * 10
    assert shares[89] > 0.2
    assert cos_inf(settings, 5, 10, 0) == 0.2


def test_linear_falls_straight() -> None:
    assert [linear(Linear(min_lr_ratio=0.5), step, 6, 1) for step in range(6)] == pytest.approx(
        [1, 1, 0.875, 0.75, 0.625, 0.5]
    )


def test_wsd_holds_the_peak_and_falls_in_its_last_part() -> None:
    for shape in ("linear", "cosine", "sqrt"):
        settings = Wsd(decay_fraction=0.2, decay_shape=shape, min_lr_ratio=0.1)
        shares = [wsd(settings, step, 100, 10) for step in range(100)]
        assert shares[9:80] == [1.0] * 71
        assert shares[80] < 1
        assert shares[99] == pytest.approx(0.1)
        assert shares[80:] == sorted(shares[80:], reverse=True)
    assert [wsd(Wsd(decay_fraction=1), step, 10, 6) for step in (5, 6, 9)] == [1.0, 0.75, 0.0]


def test_constant_stays_at_the_peak() -> None:
    assert [constant(Constant(), step, 5, 2) for step in range(5)] == [0.5, 1, 1, 1, 1]


@pytest.mark.parametrize("kind", sorted(SCHEDULES))
def test_no_schedule_leaves_the_range_from_nothing_to_the_peak(tmp_path: Path, kind: str) -> None:
    for steps, warmup in ((1, 0), (1, 1), (7, 7), (20, 3)):
        settings = (f"schedule.kind={kind}", f"schedule.warmup_steps={warmup or 1}", f"train.steps={steps}")
        derived = Derived(tiny_experiment(tmp_path, *settings))
        assert all(0 <= learning_rate(derived, step) <= derived.peak_lr for step in range(steps + 2))
