"""Names and values of other layouts, there and back; that transformers reads them is held in test_export.py."""

from hypothesis import given
from hypothesis import strategies as st
import pytest
import torch
from torch import Tensor

from families import FAMILIES, lively
from trainer.layouts import from_layout, to_layout
from trainer.pretrained import by_block, of_block
from trainwright.spec.layouts import write_config
from trainwright.spec.model import Enoki, Llama, Model, Nanochat


def weights_of(settings: Model) -> dict[str, Tensor]:
    return {name: each.detach() for name, each in lively(settings, 8, 4).named_parameters()}


def there_and_back(settings: Model) -> None:
    model_type, weights = write_config(settings.shape, 8, 4, 0)["model_type"], weights_of(settings)
    names: list[str] = []
    for block in by_block(weights):
        held = of_block(weights, block)
        stored = to_layout(model_type, settings.shape, held, block)
        names += stored
        back = from_layout(model_type, settings.shape, stored, held, block)
        assert {name: each.shape for name, each in back.items()} == {name: each.shape for name, each in held.items()}
        assert all(torch.equal(back[name], held[name]) for name in held)
    assert len(names) == len(set(names))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_stored_comes_back(family: str) -> None:
    there_and_back(FAMILIES[family])


@given(heads=st.integers(1, 3), half=st.integers(1, 4), bias=st.booleans(), qk_norm=st.booleans())
def test_fused_heads_come_back_with_biases_and_without(heads: int, half: int, *, bias: bool, qk_norm: bool) -> None:
    shape = {"dim": 2 * half * heads, "num_layers": 1, "num_heads": heads, "norm": "layer", "mlp": "gelu"}
    there_and_back(Llama.model_validate({**shape, "bias": bias, "qk_norm": qk_norm}))


def test_fused_rows_are_query_key_and_value_of_one_head_after_another() -> None:
    settings = Enoki(heads=2)
    block = of_block(weights_of(settings), 0)
    fused = to_layout("persimmon", settings.shape, block, 0)["model.layers.0.self_attn.query_key_value.weight"]
    assert torch.equal(fused[64:128], block["attention.key.weight"][:64])
    assert torch.equal(fused[3 * 64 : 4 * 64], block["attention.query.weight"][64:])


def test_nanochats_heads_are_stored_with_their_halves_swapped() -> None:
    settings = Nanochat(depth=2, head_width=32)
    block = of_block(weights_of(settings), 1)
    stored = to_layout("nanochat", settings.shape, block, 1)
    query, key = (stored[f"model.layers.1.self_attn.{name}_proj.weight"] for name in ("q", "k"))
    assert torch.equal(query[32:48], block["attention.query.weight"][48:64])
    assert torch.equal(key[16:32], block["attention.key.weight"][:16])
    assert torch.equal(stored["model.layers.1.self_attn.v_proj.weight"], block["attention.value.weight"])


def test_blocks_are_cut_by_name() -> None:
    weights = weights_of(FAMILIES["llama"])
    assert by_block(weights) == [None, 0, 1]
    assert set(of_block(weights, None)) == {"embedding.weight", "norm.weight", "output.weight"}
    assert sum(len(of_block(weights, block)) for block in by_block(weights)) == len(weights)
