"""The Hugging Face layouts that are loaded and saved: `config.json` to a `Shape` and back.

Read by `init --checkpoint` (settings for a checkpoint), by the trainer (does a checkpoint fit the model?), by `export`.
A config is untrusted: what would change the computation and is not known here is refused by name, never passed over.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from trainwright.spec.exits import UserError
from trainwright.spec.shape import Rope, Shape

Config = Mapping[str, Any]

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "arcee": "ArceeForCausalLM",
    "qwen3_next": "Qwen3NextForCausalLM",
    "nanochat": "NanoChatForCausalLM",
    "persimmon": "PersimmonForCausalLM",
}
"""`model_type` of a layout -> its class. A shape is saved in the first that computes the same.

Arcee is Llama with an ungated MLP, which holds the RunPod profiles; Persimmon, with biases of zero, holds Enoki;
Qwen3-Next with full attention in every layer and no experts holds the gated Qwen3.
"""

MAX_NUMBER = 1 << 31
ACTIVATIONS = ("gelu", "silu", "relu2")
FIXED: Mapping[str, Mapping[str, Any]] = {
    "qwen2": {"bias": "qkv"},
    "qwen3": {"qk_norm": "before"},
    "qwen3_next": {"norm": "rms_offset", "qk_norm": "before", "gated": True},
    "nanochat": {"norm": "rms_bare", "mlp": "relu2", "qk_norm": "after", "norm_embedding": True},
    "persimmon": {"norm": "layer", "bias": "all"},
}
"""What a layout does not leave open, where it is not as in Llama."""
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "qwen3": {"head_dim": 128},
    "arcee": {"rms_norm_eps": 1e-5, "hidden_act": "relu2"},
    "qwen3_next": {
        "head_dim": 256,
        "num_experts": 512,
        "partial_rotary_factor": 0.25,
        "layer_types": "linear_attention",
    },
    "nanochat": {"hidden_act": "relu2", "final_logit_softcapping": 15.0},
    "persimmon": {"layer_norm_eps": 1e-5, "hidden_act": "relu2", "partial_rotary_factor": 0.5, "qk_layernorm": True},
}
"""What the classes take for a key that is not there, where it is not as in Llama."""


@dataclass(frozen=True, slots=True)
class HubConfig:
    """What a `config.json` says."""

    model_type: str
    shape: Shape
    rows: int
    """Rows of the embedding."""
    context_tokens: int


def read_config(config: Config, where: str) -> HubConfig:
    """Return what a config says; raise `UserError` naming the key that is not known here."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise _Reader(config, where).unknown("model_type", f"this layout is not known here; known are {known}")
    read = _Reader({**DEFAULTS.get(model_type, {}), **config}, where)
    read.refuse_far_types()
    heads, dim = read.count("num_attention_heads"), read.count("hidden_size")
    kv_heads, head_dim = read.count("num_key_value_heads", heads), read.count("head_dim", dim // heads)
    if heads % kv_heads or head_dim % 2:
        raise read.unknown("num_key_value_heads", "heads must be a multiple of it, and heads are rotated in pairs")
    like_llama = Shape(
        dim=dim,
        num_layers=read.count("num_hidden_layers"),
        num_heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        mlp_dim=read.count("intermediate_size"),
        norm_eps=read.number("layer_norm_eps" if model_type == "persimmon" else "rms_norm_eps", 1e-6),
        tied=read.flag("tie_word_embeddings", default=False),
        rope=_rope(read),
    )
    open_choices = _open_choices(read, model_type)
    shape = replace(like_llama, **{**open_choices, **FIXED.get(model_type, {})})
    return HubConfig(model_type, shape, read.count("vocab_size"), read.count("max_position_embeddings"))


def _open_choices(read: "_Reader", model_type: str) -> dict[str, Any]:
    """Return what a layout leaves open, and refuse what its class could do and this model cannot."""
    found: dict[str, Any] = {}
    if model_type in ("arcee", "persimmon"):
        found["mlp"] = read.activation()
    else:
        read.must("hidden_act", "relu2" if model_type == "nanochat" else "silu")
    if model_type in ("llama", "arcee"):
        found["bias"] = _both_or_none(read)
    elif model_type not in ("qwen2", "persimmon"):
        read.must("attention_bias", False)
    if model_type == "nanochat":
        found["softcap"] = read.number("final_logit_softcapping", 15.0)
    if model_type == "persimmon":
        found["qk_norm"] = "before" if read.flag("qk_layernorm", default=True) else "none"
    return found


def _both_or_none(read: "_Reader") -> Any:
    both = read.flag("attention_bias", default=False), read.flag("mlp_bias", default=False)
    if len(set(both)) > 1:
        raise read.unknown("mlp_bias", "biases in attention alone, or in the MLP alone, are not known in this layout")
    return "all" if both[0] else "none"


def _rope(read: "_Reader") -> Rope:
    """Return the rotation; newer configs have it in one block, older ones in two keys."""
    block = read.config.get("rope_parameters")
    old = read.config.get("rope_scaling") or {}
    if not isinstance(old, Mapping):
        raise read.unknown("rope_scaling", "expected a block of keys")
    inner = _Reader(block if isinstance(block, Mapping) else {**old, **_theta(read.config)}, f"{read.where}: rotation")
    kind = inner.config.get("rope_type", inner.config.get("type", "default"))
    share = inner.config.get("partial_rotary_factor", read.config.get("partial_rotary_factor", 1))
    if share != 1:
        raise read.unknown("partial_rotary_factor", "only whole heads are rotated here")
    theta = inner.number("rope_theta", 10_000.0)
    if kind == "default":
        return Rope(theta)
    if kind != "llama3":
        raise inner.unknown("rope_type", "known are default and llama3")
    original = inner.count("original_max_position_embeddings")
    low, high = inner.number("low_freq_factor", 1.0), inner.number("high_freq_factor", 4.0)
    if high <= low:
        raise inner.unknown("high_freq_factor", "must be above low_freq_factor")
    return Rope(theta, inner.number("factor", 1.0), low, high, original)


def _theta(config: Config) -> dict[str, Any]:
    return {"rope_theta": config["rope_theta"]} if "rope_theta" in config else {}


def computes_the_same(left: Shape, right: Shape) -> bool:
    """Return whether two shapes compute the same; how their weights begin does not count."""
    return replace(left, init="flat", init_std=0.0) == replace(right, init="flat", init_std=0.0)


def fits(stored: HubConfig, shape: Shape) -> bool:
    """Return whether a model of this shape can take a checkpoint's weights.

    Persimmon's layout has biases everywhere; a model without any takes it when they are zero, which the loader checks.
    """
    without = stored.model_type == "persimmon" and shape.bias == "none"
    return computes_the_same(replace(stored.shape, bias="none") if without else stored.shape, shape)


def check_fits(stored: HubConfig, folder: Path, shape: Shape, rows: int, seq_len_tokens: int) -> None:
    """Raise `UserError` naming everything in which the checkpoint of a folder and an experiment's model differ."""
    where = f"train.init_from: {folder}"
    section = f"`trainwright init NAME --checkpoint {folder}` writes a model section that fits"
    if not fits(stored, shape):
        ours, theirs = ({f.name: getattr(each, f.name) for f in fields(Shape)} for each in (shape, stored.shape))
        names = [name for name in ours if ours[name] != theirs[name] and name not in ("init", "init_std")]
        found = ", ".join(f"{name} is {ours[name]}, the checkpoint's is {theirs[name]}" for name in names)
        raise UserError(f"{where}: is of another model: {found}; {section}")
    if stored.rows != rows:
        way = f"take the tokenizer that it was trained with, and model.vocab_multiple={stored.rows}"
        raise UserError(f"{where}: its vocabulary has {stored.rows} rows, the model's {rows}; {way}")
    if seq_len_tokens > stored.context_tokens:
        way = f"give train.seq_len_tokens at most {stored.context_tokens}"
        raise UserError(f"{where}: was made for a context of {stored.context_tokens}, not of {seq_len_tokens}; {way}")


def write_config(shape: Shape, rows: int, context_tokens: int, separator: int) -> dict[str, Any]:
    """Return the `config.json` of the first layout that computes what this shape does; raise `UserError` for none."""
    for model_type in ARCHITECTURES:
        config = _written(model_type, shape, rows, context_tokens, separator)
        try:
            # By reading it back nothing is left out that would matter.
            if fits(read_config(config, "config.json"), shape):
                return config
        except UserError:
            continue
    choices = f"norm {shape.norm}, mlp {shape.mlp}, qk_norm {shape.qk_norm}, bias {shape.bias}"
    heads = f"{shape.num_heads} heads of {shape.head_dim} over {shape.kv_heads} key-value heads"
    raise UserError(f"export: Hugging Face has no layout that computes this model ({choices}, {heads})")


def _written(model_type: str, shape: Shape, rows: int, context_tokens: int, separator: int) -> dict[str, Any]:
    rope = shape.rope
    config: dict[str, Any] = {
        "architectures": [ARCHITECTURES[model_type]],
        "model_type": model_type,
        "vocab_size": rows,
        "hidden_size": shape.dim,
        "intermediate_size": shape.mlp_dim,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "hidden_act": "silu" if shape.mlp == "swiglu" else shape.mlp,
        "max_position_embeddings": context_tokens,
        "tie_word_embeddings": shape.tied,
        "rope_theta": rope.theta,
        "partial_rotary_factor": 1.0,
        "initializer_range": shape.init_std,
        "bos_token_id": separator,
        "eos_token_id": separator,
        "use_cache": True,
    }
    if rope.factor is not None:
        config["rope_scaling"] = {
            "rope_type": "llama3",
            "factor": rope.factor,
            "low_freq_factor": rope.low,
            "high_freq_factor": rope.high,
            "original_max_position_embeddings": rope.original_tokens,
        }
    if model_type == "persimmon":
        # It has no key for fewer key-value heads, nor for heads of another width: what it would ignore is not written.
        return {**config, "layer_norm_eps": shape.norm_eps, "qk_layernorm": shape.qk_norm != "none"}
    config |= {"num_key_value_heads": shape.kv_heads, "head_dim": shape.head_dim, "rms_norm_eps": shape.norm_eps}
    config |= {"attention_bias": shape.bias == "all"}
    if model_type in ("llama", "arcee"):
        config |= {"mlp_bias": shape.bias == "all"}
    if model_type == "nanochat":
        config |= {"final_logit_softcapping": shape.softcap}
    if model_type == "qwen2":
        # Its class has neither key; heads are as wide as they divide the width.
        del config["head_dim"], config["attention_bias"]
    if model_type == "qwen3_next":
        config |= {"num_experts": 0, "layer_types": ["full_attention"] * shape.num_layers}
    return config


def settings_of(stored: HubConfig) -> dict[str, Any]:
    """Return the `model` section, of kind llama, for a checkpoint; raise `UserError` for a layout beyond it."""
    shape, rope = stored.shape, stored.shape.rope
    if shape.norm not in ("rms", "layer") or stored.model_type == "persimmon":
        raise UserError(f"{stored.model_type}: its models are of a kind of their own; write the model section by hand")
    return {
        "kind": "llama",
        "dim": shape.dim,
        "num_layers": shape.num_layers,
        "num_heads": shape.num_heads,
        "num_kv_heads": shape.kv_heads,
        "head_width": shape.head_dim,
        "hidden_dim": shape.mlp_dim,
        "norm": shape.norm,
        "norm_eps": shape.norm_eps,
        "mlp": shape.mlp,
        "qk_norm": shape.qk_norm == "before",
        "bias": shape.bias == "all",
        "qkv_bias": shape.bias == "qkv",
        "tie_embeddings": shape.tied,
        "rope_theta": rope.theta,
        **({} if rope.factor is None else _stretch(rope)),
        # The embedding keeps its rows, whatever the tokenizer uses of them.
        "vocab_multiple": stored.rows,
    }


def _stretch(rope: Rope) -> dict[str, Any]:
    names = {"factor": "rope_factor", "low": "rope_low", "high": "rope_high", "original_tokens": "rope_original_tokens"}
    return {names[name]: getattr(rope, name) for name in names}


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads one key after another and says which is wrong."""

    config: Config
    where: str

    def unknown(self, key: str, hint: str) -> UserError:
        """Return the error for a key whose value is not known here."""
        return UserError(f"{self.where}: {key}={str(self.config.get(key))[:60]}: {hint}")

    def count(self, key: str, default: int | None = None) -> int:
        """Return a whole number of at least one."""
        value = self.config.get(key)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_NUMBER:
            raise self.unknown(key, "expected a whole number of at least 1")
        return value

    def number(self, key: str, default: float) -> float:
        """Return a finite number above zero."""
        value = self.config.get(key)
        value = default if value is None else value
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= MAX_NUMBER:
            raise self.unknown(key, "expected a number above 0")
        return float(value)

    def flag(self, key: str, *, default: bool) -> bool:
        """Return true or false."""
        value = self.config.get(key)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise self.unknown(key, "expected true or false")
        return value

    def activation(self) -> str:
        """Return the activation of an ungated MLP."""
        value = self.config.get("hidden_act")
        if value not in ACTIVATIONS:
            raise self.unknown("hidden_act", f"known are {', '.join(ACTIVATIONS)}")
        return str(value)

    def must(self, key: str, only: object) -> None:
        """Refuse any value but one."""
        if self.config.get(key, only) not in (only, None):
            raise self.unknown(key, f"only {str(only).lower()} is known in this layout")

    def refuse_far_types(self) -> None:
        """Refuse what changes the computation in ways that are not known here."""
        self.must("quantization_config", None)
        self.must("use_sliding_window", False)
        self.must("num_experts", 0)
        types = self.config.get("layer_types") or ["full_attention"]
        if not isinstance(types, list) or any(each != "full_attention" for each in types):
            raise self.unknown("layer_types", "only full_attention in every layer is known")
