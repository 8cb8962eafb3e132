"""Memory of a training step by arithmetic, without torch: what each GPU holds, and what a run keeps on disk.

Three moments decide. When a pass turns at the loss, everything that its backward pass needs is alive; when it comes to
the first block, nearly every gradient is; and then the optimizer works on them. Activations are those of the eager
model, so with `train.compile` this is an upper bound. Held in tests against torch's own `MemTracker`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from trainwright.spec.derived import Derived
from trainwright.spec.optimizers import Muon
from trainwright.spec.shape import Shape

GIB = 2**30
CONTEXT_BYTES = int(1.5 * GIB)
"""What CUDA, NCCL and the libraries of matrices take before the first tensor."""
FRAGMENTS = 0.04
"""Share of the rest that allocators cannot use."""
CHUNK_LOGITS = {"cpu": 1 << 24, "cuda": 1 << 28}
"""Logits that the loss makes at once: 64 MiB in fp32 on CPUs, 1 GiB where products want to be large."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes on one GPU, by what they are; `staging` is in the host's memory."""

    parameters: int
    optimizer: int
    gathered: int
    """Weights in the type of the computation: all that one rank casts, or what sharding gathers at a time."""
    activations: int
    logits: int
    """The loss: a chunk of logits, and the gradient of the output matrix."""
    gradients: int
    kept_gradients: int
    """Gradients that earlier passes of the same step left behind."""
    block: int
    """One block at work in the backward pass: what it keeps, or makes again, and the gradients that pass through it."""
    passing: int
    """Of that, the gradients that pass through."""
    update: int
    """What the optimizer needs besides."""
    staging: int
    """Host memory of one rank while it saves."""

    @property
    def at_loss(self) -> int:
        """Return what is alive when a pass turns at its loss."""
        return self.gathered + self.activations + max(self.logits, self.passing) + self.kept_gradients

    @property
    def at_first_block(self) -> int:
        """Return what is alive when the backward pass is at its last block, which is the first one."""
        return self.gathered + self.block + max(self.gradients, self.kept_gradients)

    @property
    def at_update(self) -> int:
        """Return what is alive, besides weights and averages, when the optimizer works."""
        return self.gradients + self.update

    @property
    def tensors(self) -> int:
        """Return the most that tensors take."""
        return self.parameters + self.optimizer + max(self.at_loss, self.at_first_block, self.at_update)

    @property
    def total(self) -> int:
        """Return what a GPU must have: tensors, the libraries, and what allocators cannot use."""
        return int(self.tensors * (1 + FRAGMENTS)) + CONTEXT_BYTES


def memory_plan(derived: Derived, *, micro_batch: int | None = None, device: str = "cuda") -> MemoryPlan:
    """Return the memory of one rank, on request for another micro batch."""
    experiment = derived.experiment
    train, shape = experiment.train, experiment.model.shape
    micro = train.micro_batch if micro_batch is None else micro_batch
    passes = max(1, derived.global_batch_sequences // (micro * derived.ranks))
    shards = experiment.resources.shard_ranks or derived.ranks
    weights, tokens = derived.num_parameters, micro * train.seq_len_tokens
    width = 4 if train.precision == "fp32" else 2
    block = _block_weights(shape)
    fused = device == "cuda"
    of_layer = sum(_kept_by_layer(shape, width, fused_norms=fused))
    sharded = derived.ranks > 1
    whole_kept = 4 * weights if passes > 1 and sharded and not train.reduce_every_pass else 0
    kept_shards = 4 * weights // shards if passes > 1 and not whole_kept else 0
    return MemoryPlan(
        parameters=4 * weights // shards,
        optimizer=_optimizer_bytes(derived) // shards,
        gathered=_gathered(derived, block, width),
        activations=activation_bytes(shape, tokens, width, train.recompute, fused_norms=fused),
        logits=_loss_bytes(derived, tokens, width, device),
        gradients=4 * weights // shards + (6 * block if sharded else 0),
        kept_gradients=whole_kept + kept_shards,
        block=tokens * (of_layer + _passing(shape, width)),
        passing=tokens * _passing(shape, width),
        update=_update_bytes(derived, shards),
        staging=checkpoint_bytes(derived) // derived.ranks,
    )


def activation_bytes(shape: Shape, tokens: int, width: int, recompute: str, *, fused_norms: bool = True) -> int:
    """Return what the blocks keep for the backward pass of so many tokens; `width` is the bytes of a number."""
    of_layer = sum(_kept_by_layer(shape, width, fused_norms=fused_norms))
    ends = (2 if shape.norm_embedding else 1) * _norm_bytes(shape, shape.dim, width, fused_norms=fused_norms)
    match recompute:
        case "full":
            # The input of each block; one block whole, while it is computed again.
            layers = shape.num_layers * width * shape.dim + of_layer
        case "selective":
            heads, kv = shape.num_heads * shape.head_dim, shape.kv_heads * shape.head_dim
            products = (shape.gates * heads + 2 * kv + heads) + 3 * shape.dim + (shape.mlp_matrices - 1) * shape.mlp_dim
            layers = shape.num_layers * (width * products + 4 * shape.num_heads) + of_layer
        case _:
            layers = shape.num_layers * of_layer
    return tokens * (layers + ends)


def _kept_by_layer(shape: Shape, width: int, *, fused_norms: bool) -> Iterator[int]:
    """Yield the bytes for each token that one block keeps, operation by operation."""
    heads, kv = shape.num_heads * shape.head_dim, shape.kv_heads * shape.head_dim
    # Two norms of the stream, and what they give to the matrices.
    yield 2 * (_norm_bytes(shape, shape.dim, width, fused_norms=fused_norms) + width * shape.dim)
    if shape.qk_norm != "none":
        yield _norm_bytes(shape, heads + kv, width, fused_norms=fused_norms)
    # Attention: query, key, value, its output and the logarithm of each softmax's sum.
    yield width * (2 * heads + 2 * kv) + 4 * shape.num_heads
    if shape.gated:
        yield width * heads
    # What the output matrix reads.
    yield width * heads
    yield width * (4 if shape.mlp == "swiglu" else 2) * shape.mlp_dim


def _passing(shape: Shape, width: int) -> int:
    """Return the bytes for each token of the gradients inside an MLP, the widest place of a block."""
    return width * (3 if shape.mlp == "swiglu" else 2) * shape.mlp_dim


def _norm_bytes(shape: Shape, numbers: int, width: int, *, fused_norms: bool) -> int:
    """Return what a norm keeps: its input, or without a fused kernel for RMSNorm two fp32 copies of it."""
    return width * numbers if fused_norms or shape.norm == "layer" else 8 * numbers


def _block_weights(shape: Shape) -> int:
    return (shape.block_matrices + shape.vectors) // shape.num_layers


def _gathered(derived: Derived, block: int, width: int) -> int:
    """Return the weights in the computation's type: a block and the next one, and the two ends for the whole pass."""
    shape = derived.experiment.model.shape
    ends = (1 if shape.tied else 2) * derived.vocab_size * shape.dim
    if derived.ranks > 1:
        return width * (ends + 3 * block)
    if width == 4:
        return 0
    # Cast at use, and kept for the backward pass unless it casts again.
    blocks = shape.block_matrices if derived.experiment.train.recompute == "none" else block
    return width * (blocks + derived.vocab_size * shape.dim)


def _loss_bytes(derived: Derived, tokens: int, width: int, device: str) -> int:
    dim, rows = derived.experiment.model.dim, derived.vocab_size
    chunk = min(tokens * rows, max(rows, CHUNK_LOGITS[device]))
    # Logits as the product gives them and in fp32, whose exponentials are a second copy where nothing is fused; under a
    # soft cap its slope and the gradient are copies too. The gradients of output matrix and hidden states.
    experiment = derived.experiment
    copies = 1 if experiment.train.compile else 4 if experiment.model.shape.softcap else 2
    return chunk * (4 * copies + width) + rows * dim * (4 + width) + 2 * tokens * dim * width


def _optimizer_bytes(derived: Derived) -> int:
    """Return the bytes of the averages of all weights."""
    settings = derived.experiment.optimizer
    matrices = derived.experiment.model.shape.block_matrices
    others = derived.num_parameters - matrices
    states = matrices * settings.states_of_matrices + others * settings.states_of_others
    return states * settings.bytes_per_state


def _update_bytes(derived: Derived, shards: int) -> int:
    """Return what an update makes for itself: nothing when fused, else some copies of the largest parameter."""
    settings, shape = derived.experiment.optimizer, derived.experiment.model.shape
    if settings.kind == "adamw" and settings.moments == "fp32":
        return 0
    largest = derived.vocab_size * shape.dim // shards
    whole = shape.dim * shape.mlp_dim if isinstance(settings, Muon) else 0
    return 4 * max(6 * largest, 6 * whole)


def checkpoint_bytes(derived: Derived) -> int:
    """Return the bytes of one checkpoint: every weight in fp32 and its averages."""
    return 4 * derived.num_parameters + _optimizer_bytes(derived)


def peak_disk_bytes(derived: Derived) -> int:
    """Return the most that checkpoints take: those that are kept, and the one that is being written."""
    policy = derived.experiment.checkpoint
    kept = policy.dump.keep
    if policy.eval.every_steps is not None:
        studied = derived.steps // policy.eval.every_steps
        kept += studied if policy.eval.keep is None else min(studied, policy.eval.keep)
    return (kept + 1) * checkpoint_bytes(derived)


def fitting_micro_batch(derived: Derived, gpu_bytes: int) -> int | None:
    """Return the largest micro batch that fits a GPU and divides the batch; None where not even one sequence fits."""
    share = derived.global_batch_sequences // derived.ranks
    sizes = [size for size in range(1, min(share, 4096) + 1) if share % size == 0]
    fitting = [size for size in sizes if memory_plan(derived, micro_batch=size).total <= gpu_bytes]
    return max(fitting, default=None)


def smaller_micro_batch(derived: Derived) -> int | None:
    """Return the next smaller micro batch that divides the batch; None below one sequence."""
    share = derived.global_batch_sequences // derived.ranks
    below = range(min(derived.experiment.train.micro_batch - 1, 4096), 0, -1)
    return next((size for size in below if share % size == 0), None)
