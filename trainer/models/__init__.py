"""The models, by the `kind` of their settings. A model has `.blocks`, and a forward that knows nothing of ranks."""

from collections.abc import Callable

from torch import nn

from trainer.models.llama import LlamaModel
from trainwright.spec.model import Model

MODELS: dict[str, Callable[[Model, int, int], nn.Module]] = dict.fromkeys(
    ("llama", "enoki", "qwen3", "nanochat"), LlamaModel
)
"""The families differ by choices that one transformer has; see `trainwright.spec.shape`."""


def build_model(settings: Model, vocab_size: int, seq_len_tokens: int) -> nn.Module:
    """Return a model with parameters of unset values; `initialise` or a checkpoint fills them."""
    return MODELS[settings.kind](settings, vocab_size, seq_len_tokens)
