"""Settings of the model families; each gives a `Shape`, from which counts follow and modules are built.

`llama` has every dimension as a setting, and holds Hugging Face's Llama, Qwen2 and Qwen3 and the RunPod profiles too.
`enoki`, `qwen3` and `nanochat` have one dial, as their authors use them.
"""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from trainwright.spec.settings import Count, NonNegative, OptionalCount, OptionalPositive, Positive, Problem, Settings
from trainwright.spec.shape import Rope, Shape


class Family(Settings):
    """What every family has, besides `dim`, `num_layers` and `num_heads`."""

    vocab_multiple: Count = 64
    """The vocabulary is padded up to a multiple of this."""

    @property
    @abstractmethod
    def shape(self) -> Shape:
        """Every choice that decides what the model computes."""

    @property
    def kv_heads(self) -> int:
        """Key and value heads in use."""
        return self.shape.kv_heads

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.shape.head_dim

    @property
    def mlp_dim(self) -> int:
        """Width inside the MLP in use."""
        return self.shape.mlp_dim

    def padded_vocab_size(self, vocab_size: int) -> int:
        """Return the rows of the embedding for a tokenizer of `vocab_size` entries."""
        return _round_up(vocab_size, self.vocab_multiple)

    def matrix_parameters(self, vocab_size: int) -> int:
        """Return the weights that every token is multiplied by: block matrices and output matrix, no biases."""
        return self.shape.matrix_parameters(self.padded_vocab_size(vocab_size))

    def num_parameters(self, vocab_size: int) -> int:
        """Return all trainable parameters."""
        return self.shape.num_parameters(self.padded_vocab_size(vocab_size))

    def flops_per_token(self, vocab_size: int, seq_len_tokens: int) -> int:
        """Return the training FLOPs of one token, attention counted causally; `Shape` has the formula."""
        return self.shape.flops_per_token(self.padded_vocab_size(vocab_size), seq_len_tokens)

    @property
    def initial_logit_variance(self) -> float:
        """Return the variance of the first logits."""
        return self.shape.initial_logit_variance


class Llama(Family):
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
    head_width: OptionalCount = None
    """Width of one attention head; null is dim / num_heads."""
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
    qkv_bias: bool = False
    """Biases in the projections to queries, keys and values alone, as Qwen2 has them."""
    rope_theta: Positive = 10_000.0
    """Base of the rotary frequencies."""
    rope_factor: OptionalPositive = None
    """Slow the low frequencies by this factor, as Llama 3.1 does for long contexts; null leaves them."""
    rope_low: Positive = 1.0
    """With rope_factor: frequencies that turn less often than this in `rope_original_tokens` are slowed in full."""
    rope_high: Positive = 4.0
    """With rope_factor: frequencies that turn more often than this are left alone."""
    rope_original_tokens: Count = 8192
    """With rope_factor: the context for which the frequencies were first chosen."""
    init_std: NonNegative = 0.02
    """Standard deviation of the initial weights; outputs into the residual stream get it divided by sqrt(2 layers)."""

    def problems(self) -> Iterator[Problem]:
        """Check the shapes that must divide each other, and that biases are chosen once."""
        if self.head_width is None and self.dim % self.num_heads:
            ways = _near_divisors(self.dim, self.num_heads)
            yield Problem("num_heads", self.num_heads, f"model.dim {self.dim} is not divisible by it; try {ways}")
        elif self._head_dim % 2:
            hint = f"the head dimension {self._head_dim} is odd and cannot be rotated in pairs; change dim or num_heads"
            yield Problem("num_heads", self.num_heads, hint)
        if self.num_kv_heads is not None and self.num_heads % self.num_kv_heads:
            ways = _near_divisors(self.num_heads, self.num_kv_heads)
            hint = f"model.num_heads {self.num_heads} is not divisible by it; try {ways}"
            yield Problem("num_kv_heads", self.num_kv_heads, hint)
        if self.bias and self.qkv_bias:
            yield Problem("qkv_bias", "true", "model.bias covers these already; give one of the two")
        if self.rope_high <= self.rope_low:
            yield Problem("rope_high", self.rope_high, f"must be above model.rope_low {self.rope_low:g}")

    @property
    def _head_dim(self) -> int:
        return self.head_width or self.dim // self.num_heads

    @property
    def shape(self) -> Shape:
        """Every choice that decides what the model computes."""
        ratio = 8 * self.dim // 3 if self.mlp == "swiglu" else 4 * self.dim
        return Shape(
            dim=self.dim,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            kv_heads=self.num_kv_heads or self.num_heads,
            head_dim=self._head_dim,
            mlp_dim=self.hidden_dim or _round_up(ratio, 64),
            norm=self.norm,
            norm_eps=self.norm_eps,
            mlp=self.mlp,
            qk_norm="before" if self.qk_norm else "none",
            bias="all" if self.bias else "qkv" if self.qkv_bias else "none",
            tied=self.tie_embeddings,
            rope=Rope(self.rope_theta, self.rope_factor, self.rope_low, self.rope_high, self.rope_original_tokens),
            init_std=self.init_std,
        )


class Enoki(Family):
    """The Enoki ladder of ADana's authors (arXiv 2602.05298): heads of width 64, and 3/4 as many layers as heads.

    LayerNorm without bias, norms of queries and keys, an ungated GELU of four times the width, and weights that begin
    with the variance 1 / fan-in. Its rotation turns neighbouring pairs; here pairs are half a head apart, which is the
    same model with the rows of query and key in another order.
    """

    kind: Literal["enoki"] = "enoki"
    heads: Count = 8
    """The dial: attention heads. Width is 64 and layers are 3/4 of this, rounded down."""
    vocab_multiple: Count = 128
    """The vocabulary is padded up to a multiple of this."""

    def problems(self) -> Iterator[Problem]:
        """Check that there is a layer."""
        if self.heads < 2:
            yield Problem("heads", self.heads, "makes no layer (3/4 of it, rounded down); give at least 2")

    @property
    def dim(self) -> int:
        """Width of the residual stream."""
        return 64 * self.heads

    @property
    def num_layers(self) -> int:
        """Transformer blocks."""
        return 3 * self.heads // 4

    @property
    def num_heads(self) -> int:
        """Query heads."""
        return self.heads

    @property
    def shape(self) -> Shape:
        """Every choice that decides what the model computes."""
        return Shape(
            dim=self.dim,
            num_layers=self.num_layers,
            num_heads=self.heads,
            kv_heads=self.heads,
            head_dim=64,
            mlp_dim=4 * self.dim,
            norm="layer",
            mlp="gelu",
            qk_norm="before",
            init="scaled",
        )


class Qwen3(Family):
    """Qwen3 with gated attention (arXiv 2505.06708), as ADana's authors scale it: heads of 128, two layers a head.

    RMSNorm, norms of queries and keys, SwiGLU of three times the width, a sigmoid gate on what attention mixes. Norms
    keep their weight's distance from one, as the gated Qwen3-Next does.
    """

    kind: Literal["qwen3"] = "qwen3"
    heads: Count = 4
    """The dial: attention heads. Width is 128 times and layers are twice this."""
    vocab_multiple: Count = 128
    """The vocabulary is padded up to a multiple of this."""

    @property
    def dim(self) -> int:
        """Width of the residual stream."""
        return 128 * self.heads

    @property
    def num_layers(self) -> int:
        """Transformer blocks."""
        return 2 * self.heads

    @property
    def num_heads(self) -> int:
        """Query heads."""
        return self.heads

    @property
    def shape(self) -> Shape:
        """Every choice that decides what the model computes."""
        return Shape(
            dim=self.dim,
            num_layers=self.num_layers,
            num_heads=self.heads,
            kv_heads=self.heads,
            head_dim=128,
            mlp_dim=3 * self.dim,
            norm="rms_offset",
            qk_norm="before",
            gated=True,
            init="scaled",
        )


class Nanochat(Family):
    """The first nanochat's model, with depth as its one dial: width 64 a layer, up to whole heads.

    Norms without weights (one more after the embedding), norms of queries and keys after the rotation, squared ReLU,
    logits under a soft cap. As in Hugging Face's class of the name.
    """

    kind: Literal["nanochat"] = "nanochat"
    depth: Count = 20
    """The dial: transformer blocks; d4 to d32 are usual."""
    head_width: Count = 128
    """Width of one attention head."""
    rope_theta: Positive = 10_000.0
    """Base of the rotary frequencies."""
    softcap: Positive = 15.0
    """Logits are squeezed into (-softcap, softcap)."""

    def problems(self) -> Iterator[Problem]:
        """Check that heads can be rotated in pairs."""
        if self.head_width % 2:
            yield Problem("head_width", self.head_width, "is odd and cannot be rotated in pairs; 128 is usual")

    @property
    def dim(self) -> int:
        """Width of the residual stream."""
        return _round_up(64 * self.depth, self.head_width)

    @property
    def num_layers(self) -> int:
        """Transformer blocks."""
        return self.depth

    @property
    def num_heads(self) -> int:
        """Query heads."""
        return self.dim // self.head_width

    @property
    def shape(self) -> Shape:
        """Every choice that decides what the model computes."""
        return Shape(
            dim=self.dim,
            num_layers=self.depth,
            num_heads=self.num_heads,
            kv_heads=self.num_heads,
            head_dim=self.head_width,
            mlp_dim=4 * self.dim,
            norm="rms_bare",
            norm_eps=1e-6,
            mlp="relu2",
            qk_norm="after",
            rope=Rope(self.rope_theta),
            norm_embedding=True,
            softcap=self.softcap,
            init="nanochat",
        )


Model = Annotated[Llama | Enoki | Qwen3 | Nanochat, Field(discriminator="kind")]
"""The union of model settings, told apart by `kind`."""


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
