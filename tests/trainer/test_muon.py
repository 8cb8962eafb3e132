"""Muon moves matrices of blocks along their orthogonalised momentum, and leaves all else to AdamW."""

import pytest
import torch
from torch import nn

from trainer.optim.groups import Horizon
from trainer.optim.muon import build_muon, orthogonalise, update_size
from trainwright.spec.optimizers import Muon
from trainwright.spec.scaling import MuonRates

HORIZON = Horizon(100, 0.1)


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(6, 4)
        self.blocks = nn.ModuleList([nn.Linear(4, 8), nn.Linear(8, 4)])
        self.output = nn.Linear(4, 6, bias=False)


@pytest.mark.parametrize("shape", [(8, 8), (4, 16), (16, 4), (1, 7)])
def test_singular_values_come_near_one_and_vectors_stay(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found = orthogonalise(matrix, 5, torch.float32)
    assert found.shape == matrix.shape
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    seen = left.mT @ found @ right.mT
    torch.testing.assert_close(seen, seen.diagonal().diag(), atol=1e-4, rtol=0)
    # The iteration is tuned for speed: it stays between 0.68 and 1.13 for all but the smallest values.
    assert ((seen.diagonal() > 0.6) & (seen.diagonal() < 1.25) | (values < 0.01 * values.sum())).all()


def test_a_tall_matrix_is_worked_on_as_its_transpose() -> None:
    matrix = torch.randn((12, 5), generator=torch.Generator().manual_seed(2))
    wide = orthogonalise(matrix.mT.contiguous(), 5, torch.float32)
    torch.testing.assert_close(orthogonalise(matrix, 5, torch.float32), wide.mT)


def test_an_update_is_the_direction_times_size_and_rate_after_decay() -> None:
    model = Toy()
    settings = Muon(weight_decay=0.3, newton_schulz="fp32")
    before = model.blocks[0].weight.detach().clone()
    gradient = torch.randn(8, 4, generator=torch.Generator().manual_seed(3))
    optimizer = build_muon(settings, model, HORIZON)
    model.blocks[0].weight.grad = gradient.clone()
    optimizer.step()
    moved = orthogonalise(gradient * 1.95, 5, torch.float32) * 0.2 * 8**0.5
    torch.testing.assert_close(model.blocks[0].weight.detach(), before * (1 - 0.1 * 0.3) - 0.1 * moved)


def test_updates_are_those_of_torchs_own_muon() -> None:
    ours, theirs = Toy(), Toy()
    rest = {"nesterov": True, "ns_steps": 5, "adjust_lr_fn": "match_rms_adamw"}
    plain = torch.optim.Muon([theirs.blocks[0].weight], lr=0.1, weight_decay=0.3, momentum=0.95, **rest)
    optimizer = build_muon(Muon(weight_decay=0.3), ours, HORIZON)
    draw = torch.Generator().manual_seed(3)
    for _ in range(3):
        gradient = torch.randn(8, 4, generator=draw)
        for model, each in ((ours, optimizer), (theirs, plain)):
            model.blocks[0].weight.grad = gradient.clone()
            each.step()
    # Both iterate in bf16, on numbers that differ by a factor; an update moves weights by 0.03.
    torch.testing.assert_close(ours.blocks[0].weight, theirs.blocks[0].weight, rtol=0, atol=3e-3)


def test_each_kind_of_parameter_has_its_rate() -> None:
    model = Toy()
    rates = MuonRates(0.1, 0.3, 0.02, 0.005)
    groups = build_muon(Muon(), model, Horizon(100, 0.1, rates)).param_groups
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = {names[each]: (group["muon"], round(group["lr"], 6)) for group in groups for each in group["params"]}
    assert found == {
        "embedding.weight": (False, 0.3),
        "blocks.0.weight": (True, 0.1),
        "blocks.0.bias": (False, 0.005),
        "blocks.1.weight": (True, 0.1),
        "blocks.1.bias": (False, 0.005),
        "output.weight": (False, 0.02),
    }


def test_sizes_are_as_published() -> None:
    assert update_size((4, 16), Muon()) == pytest.approx(0.8)
    assert update_size((4, 16), Muon(scale="spectral")) == 1
    assert update_size((16, 4), Muon(scale="spectral")) == 2
