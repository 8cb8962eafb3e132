"""Configs of Hugging Face checkpoints: what is read is what was written, and what is not known is named."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
import pytest

from trainwright.spec.exits import UserError
from trainwright.spec.layouts import ARCHITECTURES, computes_the_same, fits, read_config, settings_of, write_config
from trainwright.spec.model import Enoki, Llama, Nanochat, Qwen3
from trainwright.spec.shape import Shape

SMALL = {"dim": 32, "num_layers": 2, "num_heads": 4}
SHAPES = {
    "llama": Llama(**SMALL, num_kv_heads=2).shape,
    "qwen2": Llama(**SMALL, qkv_bias=True).shape,
    "qwen3": Llama(**SMALL, qk_norm=True, head_width=64).shape,
    "arcee": Llama(**SMALL, mlp="silu", bias=True, tie_embeddings=True).shape,
    "qwen3_next": Qwen3(heads=1).shape,
    "nanochat": Nanochat(depth=2).shape,
    "persimmon": Enoki(heads=8).shape,
}
QWEN3_0_6B: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}


KEYS = [*QWEN3_0_6B, "rope_parameters", "rope_type", "type", "factor", "partial_rotary_factor", "layer_types"]


def written(shape: Shape) -> dict[str, Any]:
    return write_config(shape, 256, 64, 0)


def test_every_layout_is_written_for_some_shape() -> None:
    assert set(SHAPES) == set(ARCHITECTURES)


@pytest.mark.parametrize("layout", SHAPES)
def test_a_shape_is_written_in_its_layout_and_read_back(layout: str) -> None:
    config = written(SHAPES[layout])
    assert (config["model_type"], config["architectures"]) == (layout, [ARCHITECTURES[layout]])
    stored = read_config(config, "config.json")
    assert fits(stored, SHAPES[layout])
    assert (stored.rows, stored.context_tokens) == (256, 64)
    assert not any(fits(stored, other) for name, other in SHAPES.items() if name != layout)


@given(
    heads=st.integers(1, 4),
    kv=st.booleans(),
    width=st.sampled_from([None, 2, 24]),
    norm=st.sampled_from(["rms", "layer"]),
    mlp=st.sampled_from(["swiglu", "gelu", "silu", "relu2"]),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
    stretch=st.booleans(),
)
def test_a_shape_is_written_so_that_it_fits_or_not_at_all(
    heads: int, *, kv: bool, width: int | None, norm: str, mlp: str, flags: tuple[bool, ...], stretch: bool
) -> None:
    qk_norm, tied, bias, qkv_bias = flags
    given_choices = {"dim": 48, "num_layers": 2, "num_heads": heads, "num_kv_heads": 1 if kv else None}
    choices = {"norm": norm, "mlp": mlp, "qk_norm": qk_norm, "tie_embeddings": tied, "bias": bias}
    more = {"qkv_bias": qkv_bias and not bias, "head_width": width, "rope_factor": 8 if stretch else None}
    shape = Llama.model_validate({**given_choices, **choices, **more}).shape
    try:
        config = written(shape)
    except UserError:
        # What Llama itself can be is always written.
        assert shape.bias == "qkv" or norm == "layer" or qk_norm or mlp != "swiglu"
        return
    assert fits(read_config(config, "config.json"), shape)


def test_a_published_config_is_read_and_gives_a_model_section() -> None:
    stored = read_config(QWEN3_0_6B, "config.json")
    chosen = Llama.model_validate(settings_of(stored))
    assert computes_the_same(chosen.shape, stored.shape)
    assert (chosen.head_dim, chosen.kv_heads, chosen.qk_norm) == (128, 8, True)
    # 0.6B: 440 million outside of the one table of 151,936 x 1024.
    assert chosen.padded_vocab_size(151_669) == 151_936
    assert chosen.num_parameters(151_669) == 596_049_920


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "mamba"}, "model_type=mamba: this layout is not known here; known are llama, qwen2"),
        ({"model_type": None}, "model_type=None: this layout"),
        ({"hidden_act": "gelu"}, "hidden_act=gelu: only silu is known in this layout"),
        ({"attention_bias": True}, "attention_bias=True: only false is known"),
        ({"quantization_config": {"bits": 4}}, "quantization_config={'bits': 4}: only none is known"),
        ({"use_sliding_window": True}, "use_sliding_window=True: only false"),
        ({"layer_types": ["sliding_attention"]}, "layer_types=['sliding_attention']: only full_attention"),
        ({"layer_types": 3}, "layer_types=3: only full_attention"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_type=yarn: known are default and llama3"),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, "known are default and llama3"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "only whole heads are rotated"),
        ({"hidden_size": "1024"}, "hidden_size=1024: expected a whole number"),
        ({"hidden_size": None}, "hidden_size=None: expected a whole number"),
        ({"num_hidden_layers": 10**30}, "expected a whole number of at least 1"),
        ({"num_hidden_layers": True}, "expected a whole number of at least 1"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps=nan: expected a number above 0"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings=yes: expected true or false"),
        ({"num_key_value_heads": 3}, "num_key_value_heads=3: heads must be a multiple of it"),
        ({"head_dim": 127}, "heads are rotated in pairs"),
        ({"num_experts": 8}, "num_experts=8: only 0 is known"),
    ],
)
def test_what_is_not_known_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        read_config({**QWEN3_0_6B, **change}, "here/config.json")
    assert said in str(caught.value)
    assert str(caught.value).startswith("here/config.json: ")


def test_the_newer_block_of_rotation_is_read_as_the_older_keys_are() -> None:
    llama = {**written(SHAPES["llama"]), "rope_theta": 500_000.0}
    stretch = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    older = read_config({**llama, "rope_scaling": {"rope_type": "llama3", **stretch}}, "x")
    block = {"rope_type": "llama3", "rope_theta": 500_000.0, **stretch}
    newer = read_config({**llama, "rope_parameters": block, "rope_theta": None}, "x")
    assert older == newer
    assert (newer.shape.rope.factor, newer.shape.rope.theta) == (8.0, 500_000.0)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
ANY_JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYS), inner))


@given(st.dictionaries(st.sampled_from(KEYS), ANY_JSON))
def test_no_config_makes_a_traceback(change: dict[str, Any]) -> None:
    try:
        read_config({**QWEN3_0_6B, **change}, "x")
    except UserError:
        return
