"""The chunked loss is torch's cross-entropy, in any chunks, with its gradients."""

from hypothesis import given
from hypothesis import strategies as st
import pytest
import torch
from torch import Tensor
import torch.nn.functional as F  # noqa: N812 - torch's own name for it

from trainer import loss
from trainwright.tokens.shards import IGNORED

VOCABULARY, WIDTH = 37, 8
SCALE = 0.37
"""What the sum is multiplied by before the backward pass, as the loop does."""


def case(num: int, seed: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Return hidden states, an output matrix and targets, some of them ignored."""
    draw = torch.Generator().manual_seed(seed)
    hidden = torch.randn((num, WIDTH), generator=draw)
    weight = torch.randn((VOCABULARY, WIDTH), generator=draw)
    targets = torch.randint(VOCABULARY, (num,), generator=draw)
    targets[torch.rand(num, generator=draw) < 0.3] = IGNORED
    return hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), targets


def reference(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return torch's summed loss and its gradients, all in fp64."""
    exact = [each.detach().double().requires_grad_() for each in (hidden, weight)]
    summed = F.cross_entropy(exact[0] @ exact[1].T, targets, ignore_index=IGNORED, reduction="sum")
    gradients = torch.autograd.grad(summed * SCALE, exact)
    return summed.detach(), *gradients


@pytest.mark.parametrize("rows", [0, 1, 3, 16, 17, 1000])
@given(num=st.integers(1, 17), seed=st.integers(0, 999))
def test_any_chunks_give_the_loss_and_gradients_of_torch(rows: int, num: int, seed: int) -> None:
    hidden, weight, targets = case(num, seed)
    with pytest.MonkeyPatch.context() as patch:
        # Fewer logits than one row has still make chunks of one row.
        patch.setattr(loss, "CHUNK_LOGITS", rows * VOCABULARY)
        summed = loss.summed_loss(hidden, weight, targets)
        each = loss.token_losses(hidden, weight, targets)
    (summed * SCALE).backward()
    expected, grad_hidden, grad_weight = reference(hidden, weight, targets)
    assert summed.dtype == torch.float32
    assert torch.allclose(summed.detach().double(), expected, rtol=1e-5, atol=1e-5)
    assert torch.allclose(hidden.grad.double(), grad_hidden, rtol=1e-4, atol=1e-6)
    assert torch.allclose(weight.grad.double(), grad_weight, rtol=1e-4, atol=1e-6)
    assert torch.allclose(each.sum(), summed.detach(), rtol=1e-5, atol=1e-5)
    assert not each[targets == IGNORED].any()


@given(num=st.integers(1, 40), seed=st.integers(0, 999))
def test_bf16_inputs_give_an_fp32_loss(num: int, seed: int) -> None:
    hidden, weight, targets = case(num, seed, torch.bfloat16)
    summed = loss.summed_loss(hidden, weight, targets)
    (summed * SCALE).backward()
    expected, grad_hidden, grad_weight = reference(hidden, weight, targets)
    assert summed.dtype == torch.float32
    assert torch.allclose(summed.detach().double(), expected, rtol=1e-2, atol=1e-2)
    assert hidden.grad.dtype == weight.grad.dtype == torch.bfloat16
    for found, wanted in ((hidden.grad, grad_hidden), (weight.grad, grad_weight)):
        assert (found.double() - wanted).norm() <= 2e-2 * wanted.norm() + 1e-6


def test_ignored_targets_alone_lose_nothing_and_teach_nothing() -> None:
    hidden, weight, targets = case(6, 0)
    summed = loss.summed_loss(hidden, weight, torch.full_like(targets, IGNORED))
    summed.backward()
    assert summed.item() == 0
    assert not hidden.grad.any()
    assert not weight.grad.any()


def test_large_logits_do_not_overflow() -> None:
    hidden, weight, targets = case(6, 1)
    summed = loss.summed_loss(hidden.detach() * 1e4, weight.detach(), targets)
    assert torch.isfinite(summed)


def test_a_gradient_passes_through_under_autocast() -> None:
    hidden, weight, targets = case(9, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        summed = loss.summed_loss(hidden, weight, targets)
    (summed * SCALE).backward()
    expected, grad_hidden, grad_weight = reference(hidden, weight, targets)
    assert summed.item() == pytest.approx(expected.item(), rel=1e-2)
    assert (hidden.grad.double() - grad_hidden).norm() <= 2e-2 * grad_hidden.norm()
    assert (weight.grad.double() - grad_weight).norm() <= 2e-2 * grad_weight.norm()


@given(num=st.integers(1, 17), seed=st.integers(0, 999))
def test_the_z_loss_adds_the_square_of_the_logarithm_of_the_sum(num: int, seed: int) -> None:
    hidden, weight, targets = case(num, seed)
    summed = loss.summed_loss(hidden, weight, targets, None, loss.LossOptions(z_loss=0.01))
    (summed * SCALE).backward()
    exact = [each.detach().double().requires_grad_() for each in (hidden, weight)]
    logits = exact[0] @ exact[1].T
    z_terms = logits.logsumexp(1).square()[targets != IGNORED].sum()
    expected = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum") + 0.01 * z_terms
    gradients = torch.autograd.grad(expected * SCALE, exact)
    assert torch.allclose(summed.detach().double(), expected.detach(), rtol=1e-5, atol=1e-5)
    assert torch.allclose(hidden.grad.double(), gradients[0], rtol=1e-4, atol=1e-6)
    assert torch.allclose(weight.grad.double(), gradients[1], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_the_compiled_loss_is_the_plain_one(softcap: float | None) -> None:
    found = []
    for fused in (False, True):
        hidden, weight, targets = case(17, 5)
        summed = loss.summed_loss(hidden, weight, targets, softcap, loss.LossOptions(1e-3, fused))
        summed.backward()
        found.append((summed.detach(), hidden.grad, weight.grad))
    for plain, compiled in zip(*found, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-5, atol=1e-5)
