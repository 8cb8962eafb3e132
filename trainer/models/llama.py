"""A decoder-only transformer in the manner of Llama (Touvron and others, arXiv 2302.13971).

Reads top-down: the model, a block, attention, the MLP, the rotation. Shapes: B batch, T tokens, D width, H heads,
K key-value heads, E head width. The model is built on the meta device and sharded before it has values: parameters get
theirs from `trainer.initialise`, buffers are recomputed, so nothing here may depend on values set in a constructor.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from trainer.loss import summed_loss, token_losses
from trainwright.spec.model import Llama


class LlamaModel(nn.Module):
    """Tokens in; summed loss, losses of each token, or logits out."""

    def __init__(self, settings: Llama, vocab_size: int, seq_len_tokens: int) -> None:
        super().__init__()
        self.settings = settings
        self.seq_len_tokens = seq_len_tokens
        self.embedding = nn.Embedding(vocab_size, settings.dim)
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.num_layers))
        self.norm = make_norm(settings, settings.dim)
        # One parameter under one name: two modules that share one come apart when memory is made for them.
        self.output = None if settings.tie_embeddings else nn.Linear(settings.dim, vocab_size, bias=False)
        self.register_buffer("rotation", torch.empty(0), persistent=False)

    def forward(self, tokens: Tensor, targets: Tensor | None = None, *, each_token: bool = False) -> Tensor:
        """Return the fp32 sum of losses over `targets`, losses (B, T), or without targets logits (B, T, V).

        tokens and targets: (B, T) int64; targets of IGNORED count nothing. The loss is computed in here because the
        output matrix is whole only inside the root's forward when the model is sharded.
        """
        rotation: Tensor = self.rotation[: tokens.shape[1]]
        hidden = self.embedding(tokens)  # B T D
        for block in self.blocks:
            hidden = block(hidden, rotation)
        hidden = self.norm(hidden)
        weight: Tensor = self.embedding.weight if self.output is None else self.output.weight
        if targets is None:
            return F.linear(hidden, weight)
        flat, wanted = hidden.flatten(0, 1), targets.flatten()
        if each_token:
            return token_losses(flat, weight, wanted).view_as(targets)
        return summed_loss(flat, weight, wanted)

    def reset_buffers(self, device: torch.device) -> None:
        """Compute the buffers; they are in no checkpoint."""
        self.rotation = rotation_table(self.seq_len_tokens, self.settings.head_dim, self.settings.rope_theta, device)

    def initial_std(self, name: str) -> float | None:
        """Return the standard deviation of a parameter's initial values; None for a norm's weight, which is 1."""
        if "norm" in name:
            return None
        if name.endswith("bias"):
            return 0.0
        into_stream = name.endswith(("attention.output.weight", "mlp.down.weight"))
        shrink: float = (2 * self.settings.num_layers) ** 0.5 if into_stream else 1.0
        return self.settings.init_std / shrink


class Block(nn.Module):
    """Attention, then the MLP, each on a normalised copy and added back."""

    def __init__(self, settings: Llama) -> None:
        super().__init__()
        self.attention_norm = make_norm(settings, settings.dim)
        self.attention = Attention(settings)
        self.mlp_norm = make_norm(settings, settings.dim)
        self.mlp = MLP(settings)

    def forward(self, hidden: Tensor, rotation: Tensor) -> Tensor:
        """Return the stream after this block; hidden: (B, T, D)."""
        hidden = hidden + self.attention(self.attention_norm(hidden), rotation)
        hidden = hidden + self.mlp(self.mlp_norm(hidden))
        return hidden  # noqa: RET504 - the two halves read alike


class Attention(nn.Module):
    """Causal self-attention with rotary positions and grouped queries (arXiv 2305.13245)."""

    def __init__(self, settings: Llama) -> None:
        super().__init__()
        self.head_dim = settings.head_dim
        kv_dim = settings.kv_heads * settings.head_dim
        self.grouped = settings.kv_heads != settings.num_heads
        self.query = nn.Linear(settings.dim, settings.dim, bias=settings.bias)
        self.key = nn.Linear(settings.dim, kv_dim, bias=settings.bias)
        self.value = nn.Linear(settings.dim, kv_dim, bias=settings.bias)
        self.output = nn.Linear(settings.dim, settings.dim, bias=settings.bias)
        self.query_norm = make_norm(settings, self.head_dim) if settings.qk_norm else nn.Identity()
        self.key_norm = make_norm(settings, self.head_dim) if settings.qk_norm else nn.Identity()

    def forward(self, hidden: Tensor, rotation: Tensor) -> Tensor:
        """Return what attention adds to the stream; hidden: (B, T, D)."""
        query, key, value = (
            part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # B H T E
            for part in (self.query(hidden), self.key(hidden), self.value(hidden))
        )
        query, key = rotate(self.query_norm(query), rotation), rotate(self.key_norm(key), rotation)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=self.grouped)
        added: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return added


class MLP(nn.Module):
    """SwiGLU (arXiv 2002.05202), or two matrices around an activation."""

    def __init__(self, settings: Llama) -> None:
        super().__init__()
        self.kind = settings.mlp
        if self.kind == "swiglu":
            self.gate = nn.Linear(settings.dim, settings.mlp_dim, bias=settings.bias)
        self.up = nn.Linear(settings.dim, settings.mlp_dim, bias=settings.bias)
        self.down = nn.Linear(settings.mlp_dim, settings.dim, bias=settings.bias)

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


def make_norm(settings: Llama, width: int) -> nn.Module:
    """Return the norm that the settings choose; neither kind has a bias."""
    if settings.norm == "rms":
        return nn.RMSNorm(width, eps=settings.norm_eps)
    return nn.LayerNorm(width, eps=settings.norm_eps, bias=False)


def rotation_table(num_positions: int, head_dim: int, theta: float, device: torch.device) -> Tensor:
    """Return cosines and sines of the rotary angles (arXiv 2104.09864), shape (positions, 2, head_dim / 2), fp32."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float64, device="cpu") / head_dim
    angles = torch.outer(torch.arange(num_positions, dtype=torch.float64, device="cpu"), theta**-exponents)
    return torch.stack((angles.cos(), angles.sin()), dim=1).float().to(device)


def rotate(heads: Tensor, rotation: Tensor) -> Tensor:
    """Rotate the pairs (e, e + E/2) of each head by their position's angles; heads: (B, H, T, E)."""
    cosine, sine = rotation.unbind(1)  # T E/2
    first, second = heads.float().chunk(2, dim=-1)
    turned = torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)
    return turned.type_as(heads)
