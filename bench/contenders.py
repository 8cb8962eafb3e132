"""Ways to train the same Llama for one step: ours, plain PyTorch as nanoGPT has it, litgpt's and torchtitan's.

Each takes a shape, a device and whether to compile, and returns a function that makes one step and returns its loss.
Same shape, type (bf16 with fp32 weights unless told otherwise), batch, optimizer (fused AdamW) and clipping for all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
import tempfile
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
import torch.nn.functional as F  # noqa: N812 - torch's own name for it

if TYPE_CHECKING:
    from trainwright.spec.derived import Derived

Step = Callable[[], float]


@dataclass(frozen=True)
class Size:
    """The shape of a model and of a step."""

    dim: int
    layers: int
    heads: int
    vocab: int
    seq: int
    micro: int
    passes: int = 1

    @property
    def hidden(self) -> int:
        """Width inside the MLP."""
        return -(-(8 * self.dim // 3) // 64) * 64

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.micro * self.passes * self.seq

    def batch(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return inputs and targets of one pass, the same for all."""
        draw = torch.Generator().manual_seed(0)
        rows = torch.randint(0, self.vocab, (self.micro, self.seq + 1), generator=draw).to(device)
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


TEXT = """\
name: bench
model:
  kind: llama
  dim: {dim}
  num_layers: {layers}
  num_heads: {heads}
  hidden_dim: {hidden}
  vocab_multiple: {vocab}
train:
  seq_len_tokens: {seq}
  micro_batch: {micro}
  global_batch_sequences: {batch}
  steps: 1000
  compile: {compile}
  recompute: {recompute}
  precision: {precision}
optimizer: {{kind: {optimizer}, lr: 1e-4, moments: {moments}}}
resources: {{device: {device}}}
"""


def derived_of(
    size: Size,
    device: torch.device,
    *,
    compiled: bool,
    optimizer: str = "adamw",
    recompute: str = "none",
    moments: str = "fp32",
    precision: str = "bf16",
) -> "Derived":
    """Return the experiment of a shape and what follows from it."""
    from trainwright.spec.derived import Derived
    from trainwright.spec.load import load_experiment

    choices = {"optimizer": optimizer, "recompute": recompute, "moments": moments, "precision": precision}
    more = {"compile": str(compiled).lower(), "hidden": size.hidden, "batch": size.micro * size.passes}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.yaml"
        path.write_text(TEXT.format(**vars(size), **choices, **more, device=device.type))
        return Derived(load_experiment(path, (), {}).experiment)


def ours(size: Size, device: torch.device, *, compiled: bool, **choices: str) -> Step:
    """Return a step of the real loop: schedule, agreement, clipping and all."""
    from trainer.data import Batch
    from trainer.initialise import initialise
    from trainer.loop import Parts, train_step
    from trainer.optim import build_optimizer
    from trainer.ranks import Ranks
    from trainer.requests import Requests
    from trainer.run import build_sharded

    derived, ranks = derived_of(size, device, compiled=compiled, **choices), Ranks(device, {})
    model = build_sharded(derived, ranks)
    initialise(model, 0)
    inputs, targets = size.batch(torch.device("cpu"))
    windows = torch.cat((inputs, targets[:, -1:]), 1).int().repeat(size.passes, 1, 1)
    batch = Batch(windows, None, num_targets=size.tokens, cursor=0, next_cursor=1)
    never = Requests(Path("/nowhere"))
    parts = Parts(derived, model, build_optimizer(derived, model), iter(()), ranks, never, *([print] * 4))
    return lambda: train_step(parts, batch, 1e-4).loss


class PlainBlock(nn.Module):
    """A block as one writes it on an afternoon."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.heads
        self.norms = nn.ModuleList(nn.RMSNorm(size.dim) for _ in range(2))
        self.qkv = nn.Linear(size.dim, 3 * size.dim, bias=False)
        self.out = nn.Linear(size.dim, size.dim, bias=False)
        self.gate_up = nn.Linear(size.dim, 2 * size.hidden, bias=False)
        self.down = nn.Linear(size.hidden, size.dim, bias=False)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Return the stream after this block."""
        q, k, v = (
            each.unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in self.qkv(self.norms[0](x)).chunk(3, -1)
        )
        mixed = F.scaled_dot_product_attention(_turn(q, cosine, sine), _turn(k, cosine, sine), v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        gate, up = self.gate_up(self.norms[1](x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


def _turn(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), -1).type_as(x)


class PlainModel(nn.Module):
    """All logits at once, as nanoGPT has them."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size.vocab, size.dim)
        self.blocks = nn.ModuleList(PlainBlock(size) for _ in range(size.layers))
        self.norm = nn.RMSNorm(size.dim)
        self.output = nn.Linear(size.dim, size.vocab, bias=False)
        width = size.dim // size.heads
        angles = torch.outer(torch.arange(size.seq), 10_000.0 ** (-torch.arange(0, width, 2) / width))
        self.register_buffer("cosine", angles.cos())
        self.register_buffer("sine", angles.sin())

    def forward(self, tokens: Tensor) -> Tensor:
        """Return all logits."""
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.cosine, self.sine)
        return self.output(self.norm(x))


def plain(size: Size, device: torch.device, *, compiled: bool, precision: str = "bf16") -> Step:
    """Return a step of plain PyTorch: autocast, fused AdamW, the whole model compiled."""
    return _stepping(PlainModel(size), size, device, compiled=compiled, precision=precision)


def litgpt(size: Size, device: torch.device, *, compiled: bool, precision: str = "bf16") -> Step:
    """Return a step of litgpt's model in the loop of its own pretraining: autocast and chunked loss."""
    from litgpt.config import Config
    from litgpt.model import GPT

    config = Config(
        block_size=size.seq,
        n_layer=size.layers,
        n_head=size.heads,
        n_embd=size.dim,
        vocab_size=size.vocab,
        padded_vocab_size=size.vocab,
        intermediate_size=size.hidden,
        norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP",
        bias=False,
        parallel_residual=False,
        rotary_percentage=1.0,
    )
    return _stepping(GPT(config), size, device, compiled=compiled, precision=precision)


def torchtitan(size: Size, device: torch.device, *, compiled: bool, precision: str = "bf16") -> Step:
    """Return a step of torchtitan's Llama 3, each block compiled by itself, as its own trainer does it.

    Its releases after 0.1 import kernels that a CPU does not have.
    """
    from torchtitan.models.llama3 import Transformer, TransformerModelArgs

    shape = TransformerModelArgs(
        dim=size.dim,
        n_layers=size.layers,
        n_heads=size.heads,
        vocab_size=size.vocab,
        multiple_of=64,
        max_seq_len=size.seq,
        rope_theta=10_000,
    )
    model = Transformer(shape)
    model.init_weights()
    if compiled:
        for block in model.layers.values():
            block.compile(fullgraph=True)
    return _stepping(model, size, device, compiled=False, precision=precision)


def _stepping(model: nn.Module, size: Size, device: torch.device, *, compiled: bool, precision: str) -> Step:
    model = model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    run = torch.compile(model) if compiled else model
    inputs, targets = size.batch(device)

    def step() -> float:
        total = 0.0
        for _ in range(size.passes):
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
                loss = F.cross_entropy(run(inputs).flatten(0, 1).float(), targets.flatten()) / size.passes
            loss.backward()
            total = total + loss.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(total)

    return step


CONTENDERS: dict[str, Callable[..., Step]] = {
    "trainwright": ours,
    "plain": plain,
    "litgpt": litgpt,
    "torchtitan": torchtitan,
}
