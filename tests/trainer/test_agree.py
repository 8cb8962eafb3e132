"""What the ranks agree on: sums, the norm of the whole gradient, and the highest request."""

import math

from hypothesis import given
from hypothesis import strategies as st
import pytest
import torch

from trainer.agree import Agreed, agree
from trainer.ranks import Ranks
from trainer.requests import Request

SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=4)


def alone(loss: float, gradients: list[torch.Tensor], one: Ranks, seen: Request = Request.NONE) -> Agreed:
    return agree(torch.tensor(loss), gradients, seen, save_due=False, ranks=one)


@given(sizes=SIZES, seed=st.integers(0, 99), loss=st.floats(0, 1e6, width=32))
def test_the_norm_is_that_of_all_gradients_laid_end_to_end(
    one: Ranks, sizes: list[int], seed: int, loss: float
) -> None:
    draw = torch.Generator().manual_seed(seed)
    gradients = [torch.randn(size, generator=draw) for size in sizes]
    agreed = alone(loss, gradients, one)
    assert agreed.grad_norm == pytest.approx(torch.cat(gradients).double().norm().item(), rel=1e-5)
    assert agreed.loss_sum == loss
    assert agreed.finite


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_number_that_is_none_makes_the_step_not_finite(one: Ranks, bad: float) -> None:
    sound, spoiled = torch.ones(3), torch.tensor([1.0, bad])
    assert not alone(bad, [sound], one).finite
    assert not alone(1.0, [sound, spoiled], one).finite


@pytest.mark.parametrize("seen", list(Request))
def test_a_single_rank_gets_what_it_has_seen(one: Ranks, seen: Request) -> None:
    assert alone(1.0, [torch.ones(1)], one, seen).request is seen


def test_only_the_first_ranks_clock_decides_about_saving() -> None:
    for rank, due in ((0, True), (1, False)):
        ranks = Ranks(torch.device("cpu"), {"RANK": str(rank)})
        agreed = agree(torch.tensor(1.0), [torch.ones(1)], Request.NONE, save_due=True, ranks=ranks)
        assert agreed.save_due is due
