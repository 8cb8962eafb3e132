"""The one order in which parallelism is put on a model: fp8, recompute, compile each block, shard it, then the root.

fp8 and recomputing lie inside, so that the compiler sees them. Compiling comes before sharding because FSDP's hooks
must not be traced. With one rank nothing is sharded.
"""

from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts, noop_context_fn

from trainer.float8 import use_float8
from trainer.products import linear
from trainwright.spec.training import Train

CPU = torch.device("cpu")


def parallelize(model: nn.Module, train: Train, mesh: DeviceMesh | None, device: torch.device = CPU) -> nn.Module:
    """Recompute, compile and shard a model in place, and return it; `device` is where it will compute.

    The model may still be on the meta device.
    """
    blocks: nn.ModuleList = model.blocks  # type: ignore[assignment]
    if train.precision != "fp32":
        _cast_at_use(model)
    if train.precision == "fp8":
        # After the casts: the modules that it puts in their places cast for themselves.
        use_float8(blocks, device, compiled=train.compile)
    if train.recompute != "none":
        for block in blocks:
            _recompute(block, selective=train.recompute == "selective")
    if train.compile:
        for block in blocks:
            block.compile()
    if mesh is not None:
        # Gathered in bf16, reduced in fp32: half the traffic, and sums that keep their digits.
        compute = None if train.precision == "fp32" else torch.bfloat16
        # Inputs are left alone: the only ones that are not bf16 already are the angles of positions, which need fp32.
        policy = MixedPrecisionPolicy(compute, torch.float32, cast_forward_inputs=False)
        for block in blocks:
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(model, mesh=mesh, mp_policy=policy)
    return model


def _cast_at_use(model: nn.Module) -> None:
    """Let every module compute in bf16 with weights that stay fp32; those that sharding gathers are bf16 already.

    Autocast would keep the stream and the norms in fp32, and cast each input once for every matrix that reads it.
    """
    for module in model.modules():
        # A class, not a function for each module: the compiler takes blocks with functions of their own for different
        # programs, and leaves those after the eighth uncompiled.
        module.__class__ = _CASTING.get(type(module), type(module))


class _Linear(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return linear(inputs, self.weight, self.bias)


class _Embedding(nn.Embedding):
    def forward(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens, self.weight).bfloat16()


class _LayerNorm(nn.LayerNorm):
    def forward(self, inputs: Tensor) -> Tensor:
        weight = None if self.weight is None else self.weight.to(inputs.dtype)
        return F.layer_norm(inputs, self.normalized_shape, weight, None, self.eps)


class _RMSNorm(nn.RMSNorm):
    def forward(self, inputs: Tensor) -> Tensor:
        weight = None if self.weight is None else self.weight.to(inputs.dtype)
        return F.rms_norm(inputs, self.normalized_shape, weight, self.eps)


_CASTING: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: _Linear,
    nn.Embedding: _Embedding,
    nn.LayerNorm: _LayerNorm,
    nn.RMSNorm: _RMSNorm,
}


def _recompute(block: nn.Module, *, selective: bool) -> None:
    """Let a block's backward pass make its activations again; its name and its parameters' names stay."""
    forward = block.forward

    def recomputed(*inputs: Tensor) -> Tensor:
        contexts = _keep_products if selective else noop_context_fn
        # Nothing in a block draws random numbers.
        output: Tensor = checkpoint(
            forward, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=contexts
        )
        return output

    block.forward = recomputed


def _keep_products() -> tuple[AbstractContextManager[object], AbstractContextManager[object]]:
    """Return the contexts of a forward pass that keeps only what is dear to make: products and attention."""
    contexts: tuple[AbstractContextManager[object], AbstractContextManager[object]]
    contexts = create_selective_checkpoint_contexts(_PRODUCTS)  # type: ignore[no-untyped-call]
    return contexts


_ATEN = torch.ops.aten
_PRODUCTS = [
    _ATEN.mm.default,
    _ATEN.addmm.default,
    _ATEN.bmm.default,
    _ATEN._scaled_mm.default,  # noqa: SLF001 - the operator of float8 products has no public name
    # What float8 casts scale by: one number, for which a whole tensor would be read again.
    _ATEN.max.default,
    _ATEN._scaled_dot_product_flash_attention.default,  # noqa: SLF001 - operators of attention have no public name
    _ATEN._scaled_dot_product_flash_attention_for_cpu.default,  # noqa: SLF001 - likewise
    _ATEN._scaled_dot_product_efficient_attention.default,  # noqa: SLF001 - likewise
    _ATEN._scaled_dot_product_cudnn_attention.default,  # noqa: SLF001 - likewise
]


def set_gradient_sync(model: nn.Module, *, sync: bool) -> None:
    """Reduce gradients over the ranks in the next backward pass, or only add them up on this rank."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(sync)


def settle(model: nn.Module) -> None:
    """Give every parameter back to its shards.

    A forward pass without a backward one leaves the root's parameters gathered. Asked for its parameters then, the
    model gives tensors that the optimizer has never seen, and a checkpoint would lack their state.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
