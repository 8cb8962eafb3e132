"""Products in bf16 are the same numbers whether a CPU has instructions for them or makes them in fp32."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tiny_run import blank_model, tiny_experiment
from trainer import products
from trainer.initialise import initialise
from trainer.optim import build_optimizer
from trainer.parallelize import parallelize
from trainwright.spec.derived import Derived


@contextmanager
def widened(yes: bool) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "WIDENED", yes)
        yield


def both(function: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    with widened(True):
        wide = function()
    with widened(False):
        return wide, function()


@given(st.integers(1, 9), st.integers(1, 70), st.integers(1, 9), st.integers(0, 99), st.booleans())
def test_products_made_in_fp32_are_those_of_bf16(rows: int, width: int, out: int, seed: int, bias: bool) -> None:
    draw = torch.Generator().manual_seed(seed)
    inputs, weight, more = (
        torch.randn(shape, generator=draw).bfloat16() for shape in ((rows, width), (out, width), (out,))
    )
    pairs = [
        both(lambda: products.product(inputs, weight.T)),
        both(lambda: products.linear(inputs, weight.float(), more.float() if bias else None)),
    ]
    for wide, narrow in pairs:
        assert wide.dtype == narrow.dtype == torch.bfloat16
        # A sum that comes out between two numbers of bf16 may go to either.
        torch.testing.assert_close(wide, narrow, rtol=2**-7, atol=2**-7)


@pytest.mark.parametrize("grouped", [False, True])
def test_attention_and_its_gradients_are_the_same(grouped: bool) -> None:
    draw = torch.Generator().manual_seed(3)
    query, key, value = (torch.randn(2, 2 if grouped and index else 4, 9, 8, generator=draw) for index in range(3))

    def attended() -> Tensor:
        parts = [part.bfloat16().requires_grad_() for part in (query, key, value)]
        mixed = products.causal_attention(*parts, grouped=grouped)
        mixed.sum().backward()
        assert all(part.grad.dtype == torch.bfloat16 for part in parts)
        return torch.cat([mixed.flatten(), *(part.grad.flatten() for part in parts)])

    wide, narrow = both(attended)
    torch.testing.assert_close(wide.detach(), narrow.detach(), rtol=0.03, atol=0.03)


def test_fp32_is_left_alone() -> None:
    tensor = torch.zeros(3)
    with widened(True):
        assert products.wide(tensor) is tensor


class Products(TorchDispatchMode):
    """Notes the types of all that is multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.types: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(name in func.name() for name in ("::mm", "::addmm", "::bmm", "::baddbmm", "dot_product")):
            self.types |= {each.dtype for each in args if isinstance(each, Tensor)}
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("yes", [True, False])
@pytest.mark.parametrize("bias", ["false", "true"])
def test_no_product_of_a_step_stays_in_bf16_where_that_is_slow(tmp_path: Path, bias: str, yes: bool) -> None:
    words = ("train.precision=bf16", "optimizer.kind=muon", "optimizer.lr=0.01", f"model.bias={bias}")
    derived = Derived(tiny_experiment(tmp_path, *words))
    with widened(yes), Products() as seen:
        model = parallelize(blank_model(derived), derived.experiment.train, None)
        initialise(model, 3)
        optimizer = build_optimizer(derived, model)
        tokens = torch.arange(2 * 8).view(2, 8)
        model(tokens, tokens).backward()
        optimizer.step()
        model(tokens)
        model(tokens, tokens, each_token=True)
    assert (torch.bfloat16 in seen.types) is not yes
