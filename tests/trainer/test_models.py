"""What the settings say about a model is what the module has and does."""

from functools import cache

from hypothesis import given
from hypothesis import strategies as st
import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from families import FAMILIES
from trainer.initialise import initialise
from trainer.models import build_model
from trainwright.spec.model import Enoki, Llama, Model, Nanochat, Qwen3

NUM_LAYERS = 2
RUNPOD = {"mlp": "silu", "bias": True, "tie_embeddings": True}


COUNTED: dict[str, tuple[Model, int, int]] = {
    # ADana's ladders: matrices as their rule counts them are held in tests/trainwright/test_shape.py.
    "enoki-8": (Enoki(heads=8), 50257, 70_393_088),
    "enoki-48": (Enoki(heads=48), 50257, 4_386_160_128),
    "qwen3-4": (Qwen3(heads=4), 50257, 80_882_176),
    # The RunPod guide's profiles, by arithmetic from their shapes.
    "m3_medium": (Llama(dim=384, num_layers=6, num_heads=6, **RUNPOD), 32_000, 22_930_560),
    "runpod_1b": (Llama(dim=2048, num_layers=20, num_heads=32, **RUNPOD), 32_000, 1_072_621_568),
    "runpod_2b": (Llama(dim=2560, num_layers=24, num_heads=40, **RUNPOD), 32_000, 1_970_035_200),
    "runpod_4b": (Llama(dim=3072, num_layers=32, num_heads=48, **RUNPOD), 32_000, 3_723_267_072),
    # nanochat's dial, with the vocabulary of its first version.
    "d4": (Nanochat(depth=4), 65_536, 36_700_160),
    "d20": (Nanochat(depth=20), 65_536, 560_988_160),
    "d26": (Nanochat(depth=26), 65_536, 1_081_999_360),
    "d32": (Nanochat(depth=32), 65_536, 1_879_048_192),
}
"""Name -> settings, vocabulary, parameters of the real module."""


@pytest.mark.parametrize("name", COUNTED)
def test_the_models_of_the_guides_have_the_parameters_that_are_stated(name: str) -> None:
    chosen, vocab_size, parameters = COUNTED[name]
    module = on_meta(chosen, vocab_size)
    assert sum(each.numel() for each in module.parameters()) == parameters
    assert chosen.num_parameters(vocab_size) == parameters


@pytest.mark.parametrize("family", FAMILIES)
def test_the_counts_of_a_family_are_those_of_its_module_and_of_the_products_that_torch_makes(family: str) -> None:
    chosen, shape = FAMILIES[family], (2, 16)
    parameters = dict(on_meta(chosen, 64).named_parameters())
    matrices = {name: each.numel() for name, each in parameters.items() if each.dim() == 2}
    rows = chosen.padded_vocab_size(64)
    assert chosen.num_parameters(64) == sum(each.numel() for each in parameters.values())
    assert chosen.matrix_parameters(64) == sum(matrices.values()) - (0 if chosen.shape.tied else rows * chosen.dim)
    attention = 6 * chosen.num_layers * shape[1] * chosen.num_heads * chosen.head_dim
    assert chosen.flops_per_token(64, shape[1]) == 6 * chosen.matrix_parameters(64) + attention
    # torch counts attention without its mask.
    stated = (chosen.flops_per_token(64, shape[1]) + attention) * shape[0] * shape[1]
    assert products(chosen, shape, rows, backward=False) * 3 == stated
    assert products(chosen, shape, rows, backward=True) == stated


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_logits_of_a_family_vary_as_its_shape_says(family: str) -> None:
    # A tied embedding still holds the current token; wide enough, the rest is the law's.
    chosen = FAMILIES[family]
    if chosen.shape.tied:
        chosen = chosen.model_copy(update={"tie_embeddings": False})
    model = build_model(chosen, 512, 32)
    initialise(model, 0)
    with torch.no_grad():
        logits: Tensor = model(torch.arange(512).view(16, 32))
    assert logits.var().item() == pytest.approx(chosen.initial_logit_variance, rel=0.1)


@st.composite
def settings(draw: st.DrawFn) -> Llama:
    kv_heads = draw(st.integers(1, 3))
    heads = kv_heads * draw(st.integers(1, 3))
    return Llama(
        dim=heads * 2 * draw(st.integers(1, 8)),
        num_layers=draw(st.integers(1, 3)),
        num_heads=heads,
        num_kv_heads=draw(st.sampled_from([None, kv_heads])),
        hidden_dim=draw(st.sampled_from([None, 24])),
        norm=draw(st.sampled_from(["rms", "layer"])),
        mlp=draw(st.sampled_from(["swiglu", "gelu", "silu", "relu2"])),
        qk_norm=draw(st.booleans()),
        tie_embeddings=draw(st.booleans()),
        bias=draw(st.booleans()),
        vocab_multiple=draw(st.sampled_from([1, 64])),
    )


def on_meta(chosen: Model, vocab_size: int) -> nn.Module:
    with torch.device("meta"):
        return build_model(chosen, chosen.padded_vocab_size(vocab_size), 16)


@given(chosen=settings(), vocab_size=st.integers(2, 300))
def test_the_counts_of_parameters_are_those_of_the_module(chosen: Llama, vocab_size: int) -> None:
    parameters = dict(on_meta(chosen, vocab_size).named_parameters())
    matrices = {name: each.numel() for name, each in parameters.items() if each.dim() == 2}
    assert chosen.num_parameters(vocab_size) == sum(each.numel() for each in parameters.values())
    # The embedding is looked up, not multiplied by, unless it is the output matrix too.
    looked_up = 0 if chosen.tie_embeddings else matrices["embedding.weight"]
    assert chosen.matrix_parameters(vocab_size) == sum(matrices.values()) - looked_up


@given(chosen=settings(), vocab_size=st.integers(2, 300), seq_len=st.integers(1, 64))
def test_the_flops_of_a_token_have_a_closed_form(chosen: Llama, vocab_size: int, seq_len: int) -> None:
    parameters = dict(on_meta(chosen, vocab_size).named_parameters())
    matrices = sum(each.numel() for name, each in parameters.items() if each.dim() == 2 and "embedding" not in name)
    output = parameters["embedding.weight"].numel() if chosen.tie_embeddings else 0
    attention = 6 * chosen.num_layers * seq_len * chosen.dim
    assert chosen.flops_per_token(vocab_size, seq_len) == 6 * (matrices + output) + attention


def products(chosen: Model, shape: tuple[int, int], rows: int = 64, *, backward: bool) -> int:
    """Return the FLOPs of all matrix products as torch counts them; attention in its plain form, unmasked."""
    with torch.device("meta"):
        model = build_model(chosen, rows, shape[1])
        model.reset_buffers(torch.device("meta"))
        tokens = torch.zeros(shape, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        logits: Tensor = model(tokens)
        if backward:
            logits.sum().backward()
    return counter.get_total_flops()


@cache
def counted(chosen: Llama, seq_len: int) -> int:
    """Return the stated FLOPs of a token with the masked half of attention added, which torch's counter includes."""
    masked = 6 * chosen.num_layers * seq_len * chosen.dim
    return chosen.flops_per_token(64, seq_len) + masked


@pytest.mark.parametrize("mlp", ["swiglu", "gelu"])
@pytest.mark.parametrize("kv_heads", [1, 4])
@pytest.mark.parametrize("tie", [False, True])
def test_the_flops_are_those_of_the_products_that_torch_makes(mlp: str, kv_heads: int, *, tie: bool) -> None:
    chosen = Llama.model_validate(
        {"dim": 32, "num_layers": NUM_LAYERS, "num_heads": 4, "num_kv_heads": kv_heads, "mlp": mlp}
        | {"tie_embeddings": tie}
    )
    shape = (2, 16)
    stated = counted(chosen, shape[1]) * shape[0] * shape[1]
    assert products(chosen, shape, backward=False) * 3 == stated
    assert products(chosen, shape, backward=True) == stated


def test_the_first_logits_vary_as_the_settings_say() -> None:
    chosen = Llama(dim=128, num_layers=2, num_heads=4, init_std=0.05)
    model = build_model(chosen, 512, 32)
    initialise(model, 0)
    with torch.no_grad():
        logits: Tensor = model(torch.arange(512).view(16, 32))
    assert logits.var().item() == pytest.approx(chosen.initial_logit_variance, rel=0.05)
