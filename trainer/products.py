"""Matrix products in the type of their inputs, on every device in good time.

Without bf16 instructions a CPU multiplies bf16 matrices number by number, 2 to 50 times slower than fp32 ones. There
the products are made in fp32 from the same rounded numbers and rounded once, which is what a GPU does too. It costs
fp32 copies of what the backward pass needs, on that CPU only.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor


def _has_bf16_products() -> bool:
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 - torch asks it by this name itself
    except AttributeError:
        # A torch without oneDNN.
        return False


WIDENED = not _has_bf16_products()
"""Whether this machine's CPU multiplies bf16 in fp32."""


def wide(tensor: Tensor) -> Tensor:
    """Return what a product should read in a tensor's place: fp32 of bf16 on a CPU that has no bf16 products."""
    return tensor.float() if WIDENED and tensor.dtype == torch.bfloat16 and tensor.device.type == "cpu" else tensor


def product(left: Tensor, right: Tensor) -> Tensor:
    """Return left @ right, in the type of `left`."""
    return (wide(left) @ wide(right)).to(left.dtype)


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return inputs @ weight.T + bias in the type of the inputs, to which weights are cast first."""
    bias = None if bias is None else wide(bias.to(inputs.dtype))
    return F.linear(wide(inputs), wide(weight.to(inputs.dtype)), bias).to(inputs.dtype)


def causal_attention(query: Tensor, key: Tensor, value: Tensor, *, grouped: bool) -> Tensor:
    """Return softmax(query @ key.T / sqrt(E)) @ value with each position reading those up to it; all (B, H, T, E).

    With `grouped`, key and value have fewer heads, and each serves several of the query's.
    """
    wides = (wide(query), wide(key), wide(value))
    return F.scaled_dot_product_attention(*wides, is_causal=True, enable_gqa=grouped).to(query.dtype)
