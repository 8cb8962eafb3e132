"""ADana gives its authors' numbers, and its clip is all that dana-mk4 adds."""

import pytest
import torch
from torch import nn

from trainer.optim.adana import adana_update, build_adana
from trainer.optim.groups import Horizon
from trainwright.spec.optimizers import Adana, DanaMk4

GRADIENTS, RATES = (0.1, -0.2, 0.3), (0.01, 0.005, 0.002)


class One(nn.Module):
    """A model of one weight, in a matrix so that it decays."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 1))


def weights(optimizer: torch.optim.Optimizer, model: One) -> list[float]:
    """Return the weight after each update of the authors' test: decay omega 4, ten steps of head start."""
    found = []
    for gradient, rate in zip(GRADIENTS, RATES, strict=True):
        model.weight.grad = torch.full((1, 1), gradient)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        found.append(model.weight.item())
    return found


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Adana(), (0.61695721, 0.52569155, 0.48853137)),
        (DanaMk4(clip_snr=0.25), (0.62202338, 0.52715305, 0.49095075)),
    ],
)
def test_three_updates_give_the_authors_numbers(settings: Adana, expected: tuple[float, ...]) -> None:
    model = One()
    assert weights(build_adana(settings, model, Horizon(100, 0.01)), model) == pytest.approx(expected, abs=1e-6)


def test_without_a_clip_the_update_is_the_closed_form() -> None:
    torch.manual_seed(0)
    settings = Adana(delta=5, kappa=0.7, gamma3=0.5, eps=1e-6)
    p, m, v = torch.randn(50).double(), torch.zeros(50).double(), torch.zeros(50).double()
    expected, mean, square = p.clone(), m.clone(), v.clone()
    for t in range(1, 6):
        g = torch.randn(50).double()
        adana_update(p, g, m, v, t=t, lr=0.1, settings=settings)
        forget = 5 / (5 + t)
        mean = (1 - forget) * mean + forget * g
        square = (1 - forget) * square + forget * g * g
        expected -= 0.1 / (square.sqrt() + 1e-6) * (g + 0.5 * (1 + (1 + t) ** 0.3) * mean)
        torch.testing.assert_close(p, expected)


def test_a_weight_that_never_had_a_gradient_only_decays() -> None:
    model = One()
    optimizer = build_adana(Adana(), model, Horizon(100, 0.01))
    model.weight.grad = torch.zeros(1, 1)
    optimizer.step()
    assert model.weight.item() == pytest.approx(1 - 4 / (10 + 1))
