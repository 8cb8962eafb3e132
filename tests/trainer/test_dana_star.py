"""Dana-Star gives its authors' numbers, and where gradients are steady it goes as far as ADana does."""

import pytest
import torch

from test_adana import One, weights
from trainer.optim.dana_star import build_dana_star, dana_star_update
from trainer.optim.groups import Horizon
from trainwright.spec.optimizers import DanaStar, DanaStarMk4


def test_three_updates_give_the_authors_numbers() -> None:
    model = One()
    found = weights(build_dana_star(DanaStarMk4(), model, Horizon(100, 0.01)), model)
    assert found == pytest.approx((0.61914499, 0.52694514, 0.48990792), abs=1e-6)


def test_a_rare_gradient_moves_less_than_a_steady_one() -> None:
    state = {name: torch.zeros(2) for name in ("mean", "square", "tau")}
    p = torch.zeros(2)
    for t in range(1, 201):
        dana_star_update(p, torch.tensor([1.0, float(t % 50 == 0)]), state, t=t, lr=1e-3, settings=DanaStar())
    assert state["tau"][0].item() == pytest.approx(0.5, abs=0.01)
    assert 0 < state["tau"][1].item() < 0.05
    assert 0 < -p[1].item() < -p[0].item() / 20


def test_the_clip_is_all_that_mk4_adds() -> None:
    found = []
    for settings in (DanaStar(), DanaStarMk4(clip_snr=1e9), DanaStarMk4(clip_snr=0.1)):
        model = One()
        found.append(weights(build_dana_star(settings, model, Horizon(100, 0.01)), model))
    assert found[0] == found[1] != found[2]
