"""The shape of a decoder-only transformer: every choice by which the families differ, and the counts that follow.

A family's settings (`trainwright.spec.model`) give a shape; `trainer/models/llama.py` builds it. No torch: a test holds
the counts against the real modules.
"""

from dataclasses import dataclass
from typing import Literal

Norm = Literal["rms", "layer", "rms_offset", "rms_bare"]
"""RMSNorm; LayerNorm without bias; RMSNorm that keeps its weight's distance from one; RMSNorm without a weight."""
Mlp = Literal["swiglu", "gelu", "silu", "relu2"]
"""The gated SwiGLU (arXiv 2002.05202), or two matrices around an activation."""


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary positions; pairs are (e, e + E/2). With a `factor`, low frequencies are slowed as Llama 3.1 does."""

    theta: float = 10_000.0
    factor: float | None = None
    low: float = 1.0
    high: float = 4.0
    original_tokens: int = 8192


FLOAT8_TILE = 16
"""Sides of float8 products must be multiples of it."""
FLOAT8_LEAST = 128
"""With a shorter side, casting costs more than the product gains."""


def fits_float8(rows: int, columns: int) -> bool:
    """Return whether a matrix is one that multiplies in float8."""
    return min(rows, columns) >= FLOAT8_LEAST and rows % FLOAT8_TILE == columns % FLOAT8_TILE == 0


@dataclass(frozen=True, slots=True)
class Shape:
    """Everything that decides what a model computes, and how its weights begin."""

    dim: int
    num_layers: int
    num_heads: int
    kv_heads: int
    head_dim: int
    mlp_dim: int
    norm: Norm = "rms"
    norm_eps: float = 1e-5
    mlp: Mlp = "swiglu"
    qk_norm: Literal["none", "before", "after"] = "none"
    """Normalise queries and keys over the head dimension, before or after the rotation."""
    gated: bool = False
    """Multiply what attention mixed by the sigmoid of a second half of the query projection."""
    bias: Literal["none", "qkv", "all"] = "none"
    """Biases in no linear layer, in those of query, key and value, or in all but the output matrix."""
    tied: bool = False
    rope: Rope = Rope()
    norm_embedding: bool = False
    """Normalise the embedding before the first block."""
    softcap: float | None = None
    """Logits are squeezed into (-softcap, softcap) by tanh."""
    init: Literal["flat", "scaled", "nanochat"] = "flat"
    init_std: float = 0.02

    @property
    def gates(self) -> int:
        """Return how many times as wide the query projection is."""
        return 2 if self.gated else 1

    @property
    def mlp_matrices(self) -> int:
        """Return the matrices of an MLP."""
        return 3 if self.mlp == "swiglu" else 2

    @property
    def matrices_of_block(self) -> tuple[tuple[int, int], ...]:
        """Return the sides of each matrix of a block, input and output: query, key, value, output, MLP."""
        heads, kv_heads = self.num_heads * self.head_dim, self.kv_heads * self.head_dim
        attention = ((self.dim, self.gates * heads), (self.dim, kv_heads), (self.dim, kv_heads), (heads, self.dim))
        return (*attention, *(((self.dim, self.mlp_dim),) * (self.mlp_matrices - 1)), (self.mlp_dim, self.dim))

    @property
    def block_matrices(self) -> int:
        """Return the weights in the matrices of all blocks."""
        return self.num_layers * sum(rows * columns for rows, columns in self.matrices_of_block)

    @property
    def num_matrices(self) -> int:
        """Return how many matrices all blocks have."""
        return self.num_layers * len(self.matrices_of_block)

    @property
    def float8_matrices(self) -> int:
        """Return how many of them multiply in float8 when asked to."""
        return self.num_layers * sum(fits_float8(*sides) for sides in self.matrices_of_block)

    @property
    def vectors(self) -> int:
        """Return the norms' weights and the biases."""
        weighted = 0 if self.norm == "rms_bare" else 1
        qk_norms = 0 if self.qk_norm == "none" else 2 * self.head_dim
        heads, kv_heads = self.num_heads * self.head_dim, self.kv_heads * self.head_dim
        of_mlp = (self.mlp_matrices - 1) * self.mlp_dim + self.dim
        biases = 0 if self.bias == "none" else self.gates * heads + 2 * kv_heads
        biases += self.dim + of_mlp if self.bias == "all" else 0
        embedding_norm = self.dim if self.norm_embedding else 0
        norms = self.num_layers * (2 * self.dim + qk_norms) + self.dim + embedding_norm
        return weighted * norms + self.num_layers * biases

    def matrix_parameters(self, rows: int) -> int:
        """Return the weights that every token is multiplied by: block matrices and an output matrix of so many rows."""
        return self.block_matrices + rows * self.dim

    def num_parameters(self, rows: int) -> int:
        """Return all trainable parameters, for a vocabulary of so many rows."""
        return self.block_matrices + self.vectors + (1 if self.tied else 2) * rows * self.dim

    def flops_per_token(self, rows: int, seq_len_tokens: int) -> int:
        """Return the training FLOPs of one token: 6 for each matrix weight, and attention counted causally.

        Forward is 2 FLOPs a weight and backward twice that. Attention is two products of seq_len x (heads x head_dim) a
        layer, of which a causal mask needs half: 6 * 2 * seq_len * width / 2 = 6 * seq_len * width a layer and token.
        """
        attention = 6 * self.num_layers * seq_len_tokens * self.num_heads * self.head_dim
        return 6 * self.matrix_parameters(rows) + attention

    @property
    def initial_logit_variance(self) -> float:
        """Return the variance of the first logits: a normalised stream of `dim` entries times the output's weights."""
        std = {"flat": self.init_std, "scaled": self.dim**-0.5, "nanochat": 0.001}[self.init]
        return float(self.dim * std**2)
