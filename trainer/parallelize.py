"""The one order in which parallelism is put on a model: compile each block, then shard it, then the root.

Compiling comes first because FSDP's hooks must not be traced. With one rank nothing is sharded.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from trainwright.spec.training import Train


def parallelize(model: nn.Module, train: Train, mesh: DeviceMesh | None) -> nn.Module:
    """Compile and shard a model in place, on the meta device or on a real one, and return it."""
    blocks: nn.ModuleList = model.blocks  # type: ignore[assignment]
    if train.compile:
        for block in blocks:
            block.compile()
    if mesh is not None:
        # Gathered in bf16, reduced in fp32: half the traffic, and sums that keep their digits.
        compute = torch.bfloat16 if train.precision == "bf16" else None
        policy = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32)
        for block in blocks:
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(model, mesh=mesh, mp_policy=policy)
    return model


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


def computing(train: Train, device: torch.device, mesh: DeviceMesh | None) -> AbstractContextManager[object]:
    """Return the context of a forward pass: autocast for bf16 on one rank, where no sharding casts for us."""
    if train.precision == "bf16" and mesh is None:
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()
