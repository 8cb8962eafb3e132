"""Every family in its smallest form, as overrides of the tiny experiment, and models of them with lively weights."""

import torch
from torch import nn

from trainer.initialise import initialise
from trainer.models import build_model
from trainwright.spec.model import Enoki, Llama, Model, Nanochat, Qwen3

SMALL = {"dim": 32, "num_layers": 2, "num_heads": 4}
RUNPOD = {"hidden_dim": 128, "mlp": "silu", "bias": True, "tie_embeddings": True}

FAMILIES: dict[str, Model] = {
    "llama": Llama(**SMALL, num_kv_heads=2),
    "llama-3": Llama(**SMALL, num_kv_heads=2, rope_factor=8, rope_original_tokens=64, rope_theta=500.0),
    "qwen-2": Llama(**SMALL, num_kv_heads=1, qkv_bias=True, tie_embeddings=True, rope_theta=1e6),
    "qwen-3": Llama(**SMALL, num_kv_heads=2, head_width=16, qk_norm=True),
    "runpod": Llama(**SMALL, **RUNPOD),
    "enoki": Enoki(heads=3),
    "qwen3": Qwen3(heads=1),
    "nanochat": Nanochat(depth=2, head_width=32),
}
"""Name -> settings; the first five are layouts of the one kind `llama`."""


def overrides(family: str) -> list[str]:
    """Return the family as words of a command line."""
    chosen = FAMILIES[family].model_dump(mode="json")
    return [f"model.kind={chosen.pop('kind')}", *(f"model.{key}={value}" for key, value in chosen.items())]


@torch.no_grad()
def lively(settings: Model, rows: int, seq_len_tokens: int) -> nn.Module:
    """Return a model in which every weight matters: norms are not one, biases not zero."""
    model = build_model(settings, rows, seq_len_tokens)
    initialise(model, 3)
    draw = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=draw), alpha=0.2)
    return model
