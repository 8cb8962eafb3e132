"""Tensors in Hugging Face's layouts: our names and values to theirs and back, one block of the model at a time.

Most layouts only name things otherwise. Two store other values: Persimmon fuses query, key and value head by head and
has biases that are zero here; nanochat turns its pairs the other way round, which is the same model with the halves of
each query and key head swapped.
"""

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from trainwright.spec.exits import UserError
from trainwright.spec.shape import Shape

Tensors = Mapping[str, Tensor]

_LLAMA: Final = {
    "embedding": "model.embed_tokens",
    "norm": "model.norm",
    "output": "lm_head",
    "attention_norm": "input_layernorm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj",
    "attention.query_norm": "self_attn.q_norm",
    "attention.key_norm": "self_attn.k_norm",
    "mlp_norm": "post_attention_layernorm",
    "mlp.gate": "mlp.gate_proj",
    "mlp.up": "mlp.up_proj",
    "mlp.down": "mlp.down_proj",
}
_OTHERS: Final[Mapping[str, Mapping[str, str]]] = {
    "nanochat": {"mlp.up": "mlp.fc1", "mlp.down": "mlp.fc2"},
    "persimmon": {
        "norm": "model.final_layernorm",
        "attention.fused": "self_attn.query_key_value",
        "attention.output": "self_attn.dense",
        "attention.query_norm": "self_attn.q_layernorm",
        "attention.key_norm": "self_attn.k_layernorm",
        "mlp.up": "mlp.dense_h_to_4h",
        "mlp.down": "mlp.dense_4h_to_h",
    },
}
_QKV: Final = ("attention.query", "attention.key", "attention.value")


def to_layout(model_type: str, shape: Shape, weights: Tensors, block: int | None) -> dict[str, Tensor]:
    """Return the tensors of one block (or, for None, those outside of the blocks) as a layout stores them.

    Names of a block's weights come without `blocks.N.`.
    """
    found = dict(weights)
    if model_type == "nanochat" and block is not None:
        found |= _swapped(found, shape)
    if model_type == "persimmon":
        if block is not None:
            found |= _fused(found, shape)
        found |= {name: _zero_bias(found[_twin(name)]) for name in _zero_biases(found)}
    return {_named(model_type, name, block): tensor for name, tensor in found.items() if not _is_part(found, name)}


def from_layout(
    model_type: str, shape: Shape, stored: Tensors, wanted: Tensors, block: int | None
) -> dict[str, Tensor]:
    """Return the weights that `wanted` names from what a layout stores; `to_layout` gives the same again.

    Raises `UserError` when a bias that the model does not have is not zero.
    """
    names = {_named(model_type, name, block): name for name in _stored_names(model_type, shape, wanted, block)}
    found = {names[name]: tensor for name, tensor in stored.items()}
    if model_type == "nanochat" and block is not None:
        found |= _swapped(found, shape)
    if model_type == "persimmon":
        for name in [name for name in found if name.startswith("attention.fused")]:
            found |= _unfused(found.pop(name), name, shape)
        for name in sorted(set(found) - set(wanted)):
            if found.pop(name).any():
                raise UserError(f"{_named(model_type, name, block)}: is not zero, and the model has no such bias")
    return found


def _stored_names(model_type: str, shape: Shape, wanted: Tensors, block: int | None) -> list[str]:
    """Return our names for all that a layout stores, by storing tensors that have no memory."""
    blank = {name: torch.empty(tensor.shape, device="meta") for name, tensor in wanted.items()}
    found = dict(blank)
    if model_type == "persimmon":
        if block is not None:
            found |= _fused(found, shape)
        found |= dict.fromkeys(_zero_biases(found), torch.empty(0, device="meta"))
    return [name for name in found if not _is_part(found, name)]


def _named(model_type: str, name: str, block: int | None) -> str:
    module, _, kind = name.rpartition(".")
    theirs = {**_LLAMA, **_OTHERS.get(model_type, {})}[module]
    return f"{theirs}.{kind}" if block is None else f"model.layers.{block}.{theirs}.{kind}"


def _is_part(found: Tensors, name: str) -> bool:
    """Return whether a tensor is stored within the fused one."""
    return "attention.fused.weight" in found and name.rpartition(".")[0] in _QKV


def _zero_biases(found: Tensors) -> list[str]:
    """Return the biases that Persimmon has and the weights lack: those of every norm and every matrix of a block."""
    missing = []
    for name in found:
        module, _, kind = name.rpartition(".")
        plain = module in ("embedding", "output") or _is_part(found, name)
        if kind == "weight" and not plain and f"{module}.bias" not in found:
            missing.append(f"{module}.bias")
    return missing


def _twin(bias: str) -> str:
    return bias.removesuffix("bias") + "weight"


def _zero_bias(weight: Tensor) -> Tensor:
    return weight.new_zeros(weight.shape[0])


def _swapped(found: Tensors, shape: Shape) -> dict[str, Tensor]:
    """Return queries and keys with the halves of each head swapped; done twice it is undone."""
    return {
        name: _cut(found[name], -1, 2, shape.head_dim // 2).flip(1).flatten(0, 2)
        for name in ("attention.query.weight", "attention.key.weight")
    }


def _fused(found: Tensors, shape: Shape) -> dict[str, Tensor]:
    """Return query, key and value as one tensor: head by head, and within a head one after the other."""
    kinds = [kind for kind in ("weight", "bias") if f"attention.query.{kind}" in found]
    parts = {kind: [_cut(found[f"{name}.{kind}"], shape.num_heads, shape.head_dim) for name in _QKV] for kind in kinds}
    return {f"attention.fused.{kind}": torch.stack(each, dim=1).flatten(0, 2) for kind, each in parts.items()}


def _unfused(fused: Tensor, name: str, shape: Shape) -> dict[str, Tensor]:
    kind = name.rpartition(".")[2]
    parts = _cut(fused, shape.num_heads, 3, shape.head_dim).unbind(1)
    return {f"{part}.{kind}": each.flatten(0, 1) for part, each in zip(_QKV, parts, strict=True)}


def _cut(tensor: Tensor, *sizes: int) -> Tensor:
    """Return a tensor with its rows cut into several dimensions."""
    return tensor.reshape(*sizes, *tensor.shape[1:])
