"""A decoder-only transformer in the manner of Llama (arXiv 2302.13971), with the choices by which relatives differ.

Reads top-down: the model, a block, attention, the MLP, norms, the rotation. Shapes: B batch, T tokens, D width, H
heads, K key-value heads, E head width. The model is built on the meta device and sharded before it has values:
parameters get theirs from `trainer.initialise`, buffers are recomputed, so nothing here may depend on values set in a
constructor.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from trainer.loss import PLAIN, soft_capped, summed_loss, token_losses
from trainer.products import causal_attention, linear
from trainwright.spec.exits import UserError
from trainwright.spec.model import Model
from trainwright.spec.shape import Rope, Shape


class LlamaModel(nn.Module):
    """Tokens in; summed loss, losses of each token, or logits out."""

    def __init__(self, settings: Model, vocab_size: int, seq_len_tokens: int) -> None:
        super().__init__()
        shape = settings.shape
        self.shape = shape
        self.seq_len_tokens = seq_len_tokens
        self.loss = PLAIN
        """What training adds to the loss; set by who builds the model for it."""
        self.embedding = nn.Embedding(vocab_size, shape.dim)
        self.embedding_norm = make_norm(shape, shape.dim) if shape.norm_embedding else nn.Identity()
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.num_layers))
        self.norm = make_norm(shape, shape.dim)
        # One parameter under one name: two modules that share one come apart when memory is made for them.
        self.output = None if shape.tied else nn.Linear(shape.dim, vocab_size, bias=False)
        self.register_buffer("rotation", torch.empty(0), persistent=False)

    def forward(self, tokens: Tensor, targets: Tensor | None = None, *, each_token: bool = False) -> Tensor:
        """Return the fp32 sum of losses over `targets`, losses (B, T), or without targets logits (B, T, V).

        tokens and targets: (B, T) int64; targets of IGNORED count nothing. The loss is computed in here because the
        output matrix is whole only inside the root's forward when the model is sharded.
        """
        if tokens.shape[1] > self.seq_len_tokens:
            raise UserError(
                f"{tokens.shape[1]} tokens do not fit the model's context of {self.seq_len_tokens}; cut them"
            )
        rotation: Tensor = self.rotation[: tokens.shape[1]]
        hidden = self.embedding_norm(self.embedding(tokens))  # B T D
        for block in self.blocks:
            hidden = block(hidden, rotation)
        hidden = self.norm(hidden)
        owner = self.embedding if self.output is None else self.output
        weight = owner.weight.to(hidden.dtype)
        if targets is None:
            return soft_capped(linear(hidden, weight), self.shape.softcap)
        flat, wanted = hidden.flatten(0, 1), targets.flatten()
        if each_token:
            return token_losses(flat, weight, wanted, self.shape.softcap).view_as(targets)
        return summed_loss(flat, weight, wanted, self.shape.softcap, self.loss)

    def reset_buffers(self, device: torch.device) -> None:
        """Compute the buffers; they are in no checkpoint."""
        self.rotation = rotation_table(self.seq_len_tokens, self.shape.head_dim, self.shape.rope, device)

    def initial_std(self, name: str) -> float | None:
        """Return the standard deviation of a parameter's initial values; None for a norm's weight that is 1."""
        if "norm" in name:
            return 0.0 if self.shape.norm == "rms_offset" else None
        if name.endswith("bias"):
            return 0.0
        into_stream = name.endswith(("attention.output.weight", "mlp.down.weight"))
        fan_in = self.get_parameter(name).shape[1]
        match self.shape.init:
            case "flat":
                shrink: float = (2 * self.shape.num_layers) ** 0.5 if into_stream else 1.0
                return self.shape.init_std / shrink
            case "scaled":
                # Variance 1 / fan-in; a sum of 2 layers outputs then keeps the stream's size.
                return float((fan_in * (2 * self.shape.num_layers if into_stream else 1)) ** -0.5)
            case "nanochat":
                of_ends = {"embedding.weight": 1.0, "output.weight": 0.001}
                return 0.0 if into_stream else of_ends.get(name, fan_in**-0.5)


class Block(nn.Module):
    """Attention, then the MLP, each on a normalised copy and added back."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention_norm = make_norm(shape, shape.dim)
        self.attention = Attention(shape)
        self.mlp_norm = make_norm(shape, shape.dim)
        self.mlp = MLP(shape)

    def forward(self, hidden: Tensor, rotation: Tensor) -> Tensor:
        """Return the stream after this block; hidden: (B, T, D)."""
        hidden = hidden + self.attention(self.attention_norm(hidden), rotation)
        hidden = hidden + self.mlp(self.mlp_norm(hidden))
        return hidden  # noqa: RET504 - the two halves read alike


class Attention(nn.Module):
    """Causal self-attention with rotary positions and grouped queries (arXiv 2305.13245), gated or not."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        width, kv_width = shape.num_heads * shape.head_dim, shape.kv_heads * shape.head_dim
        qkv_bias = shape.bias != "none"
        self.query = nn.Linear(shape.dim, shape.gates * width, bias=qkv_bias)
        self.key = nn.Linear(shape.dim, kv_width, bias=qkv_bias)
        self.value = nn.Linear(shape.dim, kv_width, bias=qkv_bias)
        self.output = nn.Linear(width, shape.dim, bias=shape.bias == "all")
        normed = shape.qk_norm != "none"
        self.query_norm = make_norm(shape, shape.head_dim) if normed else nn.Identity()
        self.key_norm = make_norm(shape, shape.head_dim) if normed else nn.Identity()

    def forward(self, hidden: Tensor, rotation: Tensor) -> Tensor:
        """Return what attention adds to the stream; hidden: (B, T, D)."""
        query, key, value = (
            part.unflatten(-1, (heads, -1)).transpose(1, 2)  # B H T E
            for part, heads in (
                (self.query(hidden), self.shape.num_heads),
                (self.key(hidden), self.shape.kv_heads),
                (self.value(hidden), self.shape.kv_heads),
            )
        )
        gate = None
        if self.shape.gated:
            query, gate = query.chunk(2, dim=-1)
        if self.shape.qk_norm == "after":
            query, key = self.query_norm(rotate(query, rotation)), self.key_norm(rotate(key, rotation))
        else:
            query, key = rotate(self.query_norm(query), rotation), rotate(self.key_norm(key), rotation)
        grouped = self.shape.kv_heads != self.shape.num_heads
        mixed = causal_attention(query, key, value, grouped=grouped)
        if gate is not None:
            mixed = mixed * torch.sigmoid(gate)
        added: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return added


class MLP(nn.Module):
    """SwiGLU (arXiv 2002.05202), or two matrices around an activation."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.kind = shape.mlp
        bias = shape.bias == "all"
        if self.kind == "swiglu":
            self.gate = nn.Linear(shape.dim, shape.mlp_dim, bias=bias)
        self.up = nn.Linear(shape.dim, shape.mlp_dim, bias=bias)
        self.down = nn.Linear(shape.mlp_dim, shape.dim, bias=bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return what the MLP adds to the stream."""
        inner: Tensor = self.up(hidden)
        match self.kind:
            case "swiglu":
                inner = F.silu(self.gate(hidden)) * inner
            case "gelu":
                inner = F.gelu(inner)
            case "silu":
                inner = F.silu(inner)
            case "relu2":
                inner = F.relu(inner).square()
        added: Tensor = self.down(inner)
        return added


class OffsetRMSNorm(nn.Module):
    """RMSNorm that keeps its weight's distance from one."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(width))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the inputs, normalised over their last dimension and scaled."""
        return F.rms_norm(inputs, self.weight.shape, (1.0 + self.weight).to(inputs.dtype), self.eps)


def make_norm(shape: Shape, width: int) -> nn.Module:
    """Return the norm that the shape chooses; none has a bias."""
    match shape.norm:
        case "layer":
            return nn.LayerNorm(width, eps=shape.norm_eps, bias=False)
        case "rms_offset":
            return OffsetRMSNorm(width, shape.norm_eps)
        case _:
            return nn.RMSNorm(width, eps=shape.norm_eps, elementwise_affine=shape.norm != "rms_bare")


def rotation_table(num_positions: int, head_dim: int, rope: Rope, device: torch.device) -> Tensor:
    """Return cosines and sines of the rotary angles (arXiv 2104.09864), shape (positions, 2, head_dim / 2), fp32."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float64, device="cpu") / head_dim
    frequencies = _slowed(rope.theta**-exponents, rope)
    angles = torch.outer(torch.arange(num_positions, dtype=torch.float64, device="cpu"), frequencies)
    return torch.stack((angles.cos(), angles.sin()), dim=1).float().to(device)


def _slowed(frequencies: Tensor, rope: Rope) -> Tensor:
    """Divide the frequencies that turn seldom in the original context by the factor, with a smooth way between."""
    if rope.factor is None:
        return frequencies
    turns = frequencies * rope.original_tokens / (2 * math.pi)
    kept = ((turns - rope.low) / (rope.high - rope.low)).clamp(0.0, 1.0)
    return frequencies * (kept + (1.0 - kept) / rope.factor)


def rotate(heads: Tensor, rotation: Tensor) -> Tensor:
    """Rotate the pairs (e, e + E/2) of each head by their position's angles; heads: (B, H, T, E)."""
    cosine, sine = rotation.unbind(1)  # T E/2
    first, second = heads.float().chunk(2, dim=-1)
    turned = torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)
    return turned.type_as(heads)
