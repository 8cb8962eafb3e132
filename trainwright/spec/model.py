"""Settings of the models, and the counts that follow from their shapes alone.

A model states its parameter and FLOP counts here, so that `plan` and `show` need no torch; a test holds them against
the real modules.
"""

from collections.abc import Iterator
from typing import Literal

from trainwright.spec.settings import Count, NonNegative, OptionalCount, Positive, Problem, Settings


class Llama(Settings):
    """A decoder-only transformer in the manner of Llama, with the choices by which its relatives differ."""

    kind: Literal["llama"] = "llama"
    dim: Count = 768
    """Width of the residual stream."""
    num_layers: Count = 12
    """Transformer blocks."""
    num_heads: Count = 12
    """Query heads."""
    num_kv_heads: OptionalCount = None
    """Key and value heads (grouped-query attention); null gives each query head its own."""
    hidden_dim: OptionalCount = None
    """Width inside the MLP; null takes 8/3 of `dim` for swiglu and 4 times `dim` otherwise, up to a multiple of 64."""
    norm: Literal["rms", "layer"] = "rms"
    """RMSNorm, or LayerNorm without bias."""
    norm_eps: Positive = 1e-5
    """Added to the variance before the root."""
    mlp: Literal["swiglu", "gelu", "silu", "relu2"] = "swiglu"
    """The gated SwiGLU, or a plain two-matrix MLP with this activation."""
    qk_norm: bool = False
    """Normalise queries and keys over the head dimension before the rotation."""
    tie_embeddings: bool = False
    """Use the embedding as the output matrix too."""
    bias: bool = False
    """Biases in the linear layers (never in the output matrix)."""
    rope_theta: Positive = 10_000.0
    """Base of the rotary frequencies."""
    init_std: NonNegative = 0.02
    """Standard deviation of the initial weights; outputs into the residual stream get it divided by sqrt(2 layers)."""
    vocab_multiple: Count = 64
    """The vocabulary is padded up to a multiple of this."""

    def problems(self) -> Iterator[Problem]:
        """Check the shapes that must divide each other."""
        if self.dim % self.num_heads:
            ways = _near_divisors(self.dim, self.num_heads)
            yield Problem("num_heads", self.num_heads, f"model.dim {self.dim} is not divisible by it; try {ways}")
        elif self.head_dim % 2:
            hint = f"the head dimension {self.head_dim} is odd and cannot be rotated in pairs; change dim or num_heads"
            yield Problem("num_heads", self.num_heads, hint)
        if self.num_kv_heads is not None and self.num_heads % self.num_kv_heads:
            ways = _near_divisors(self.num_heads, self.num_kv_heads)
            hint = f"model.num_heads {self.num_heads} is not divisible by it; try {ways}"
            yield Problem("num_kv_heads", self.num_kv_heads, hint)

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim // self.num_heads

    @property
    def kv_heads(self) -> int:
        """Key and value heads in use."""
        return self.num_kv_heads or self.num_heads

    @property
    def mlp_dim(self) -> int:
        """Width inside the MLP in use."""
        if self.hidden_dim is not None:
            return self.hidden_dim
        return _round_up(8 * self.dim // 3 if self.mlp == "swiglu" else 4 * self.dim, 64)

    def padded_vocab_size(self, vocab_size: int) -> int:
        """Return the rows of the embedding for a tokenizer of `vocab_size` entries."""
        return _round_up(vocab_size, self.vocab_multiple)

    def matrix_parameters(self, vocab_size: int) -> int:
        """Return the weights that every token is multiplied by: block matrices and output matrix, no biases."""
        kv_dim = self.kv_heads * self.head_dim
        attention = 2 * self.dim * self.dim + 2 * self.dim * kv_dim
        mlp = (3 if self.mlp == "swiglu" else 2) * self.dim * self.mlp_dim
        return self.num_layers * (attention + mlp) + self.padded_vocab_size(vocab_size) * self.dim

    def num_parameters(self, vocab_size: int) -> int:
        """Return all trainable parameters."""
        kv_dim = self.kv_heads * self.head_dim
        norms = self.num_layers * (2 * self.dim + (2 * self.head_dim if self.qk_norm else 0)) + self.dim
        biases = 0
        if self.bias:
            mlp = (2 if self.mlp == "swiglu" else 1) * self.mlp_dim + self.dim
            biases = self.num_layers * (2 * self.dim + 2 * kv_dim + mlp)
        embedding = 0 if self.tie_embeddings else self.padded_vocab_size(vocab_size) * self.dim
        return self.matrix_parameters(vocab_size) + embedding + norms + biases

    def flops_per_token(self, vocab_size: int, seq_len_tokens: int) -> int:
        """Return the training FLOPs of one token: 6 for each matrix weight, and attention counted causally.

        Forward is 2 FLOPs a weight and backward twice that. Attention is two products of seq_len x dim a layer, of
        which a causal mask needs half: 6 * 2 * seq_len * dim / 2 = 6 * seq_len * dim a layer and token.
        """
        attention = 6 * self.num_layers * seq_len_tokens * self.num_heads * self.head_dim
        return 6 * self.matrix_parameters(vocab_size) + attention

    @property
    def initial_logit_variance(self) -> float:
        """Return the variance of the first logits: a normalised stream of `dim` entries times weights of init_std."""
        return self.dim * self.init_std**2


Model = Llama
"""The union of model settings, told apart by `kind`; a second family makes it a real one."""


SEARCH = 4096
"""How far from the wanted number a divisor is looked for: a typing error may have any size."""


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _near_divisors(number: int, wanted: int) -> str:
    middle = min(wanted, number)
    span = range(max(1, middle - SEARCH), min(number, middle + SEARCH) + 1)
    divisors = [candidate for candidate in span if number % candidate == 0]
    near = sorted(sorted(divisors, key=lambda divisor: abs(divisor - wanted))[:2] or [1])
    return " or ".join(str(divisor) for divisor in near)
