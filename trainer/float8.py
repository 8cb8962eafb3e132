"""fp8: the large matrices of the blocks multiply in float8 while training, by torchao; everything else is as with bf16.

Each product casts its two sides anew, scaled by their largest magnitude: e4m3 for values and weights, e5m2 for
gradients. Nothing of it is kept, so weights, names and checkpoints are those of any other run. Scores and samples
multiply in bf16: they speak of the weights, as an export has them, and compare with those of other runs.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trainer.products import linear
from trainwright.spec.exits import MissingError, UserError
from trainwright.spec.shape import fits_float8

log = logging.getLogger("trainer")

FIRST_CAPABILITY = (8, 9)
"""Of NVIDIA's GPUs, Ada and Hopper were the first to multiply float8."""


def use_float8(blocks: nn.Module, device: torch.device, *, compiled: bool) -> None:
    """Let the large matrices of the blocks multiply in float8; raise `UserError` where the device cannot.

    CPUs cannot either, but round as if they could: slow, and right for tests.
    """
    check_float8(device, compiled=compiled)
    with _unsaid():
        try:
            from torchao.float8 import Float8LinearConfig, convert_to_float8_training
            from torchao.float8.float8_linear import Float8Linear, matmul_with_hp_or_float8_args
        except ImportError as error:
            raise MissingError(f"train.precision=fp8: needs torchao ({error}); install it, or give bf16") from None
    config = Float8LinearConfig(emulate=device.type == "cpu")
    convert_to_float8_training(blocks, config=config, module_filter_fn=_is_large)

    # The library has no types.
    class Float8Product(Float8Linear):  # type: ignore[misc]
        def forward(self, inputs: Tensor) -> Tensor:
            return _product(self, matmul_with_hp_or_float8_args.apply, inputs)

    for module in blocks.modules():
        if isinstance(module, Float8Linear):
            module.__class__ = Float8Product


@contextmanager
def _unsaid() -> Iterator[None]:
    """Keep back what a library says while it is imported: of kernels that this machine lacks, and of its own text."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def check_float8(device: torch.device, *, compiled: bool) -> None:
    """Raise `UserError` when a GPU cannot multiply float8; warn of what makes it slow."""
    if device.type == "cpu":
        log.warning("train.precision=fp8: emulated on CPUs, for tests; it is slower than bf16 and gains nothing")
        return
    found = torch.cuda.get_device_capability(device)
    if found < FIRST_CAPABILITY:
        has = f"{torch.cuda.get_device_name(device)} has capability {found[0]}.{found[1]}"
        raise UserError(f"train.precision=fp8: needs capability 8.9 (Ada, Hopper) or newer, but {has}; give bf16")
    if not compiled:
        log.warning("train.precision=fp8: without train.compile its casts cost more than its products gain")


def _is_large(module: nn.Module, _name: str) -> bool:
    return isinstance(module, nn.Linear) and fits_float8(module.in_features, module.out_features)


def _product(module: Any, in_float8: Callable[..., Tensor], inputs: Tensor) -> Tensor:
    """Multiply in float8 while training, else in the type of the inputs.

    The library's own forward pass would cast a single rank's weights from fp32, where sharded ones come in bf16, and
    one rank would not learn what several do.
    """
    if not module.training:
        return linear(inputs, module.weight, module.bias)
    product = in_float8(inputs, module.weight.to(inputs.dtype).t(), module.linear_mm_config, module.config)
    return product if module.bias is None else product + module.bias.to(inputs.dtype)
