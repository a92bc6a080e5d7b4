"""Weights of 8 bits an output channel or 4 bits a group, and products with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernels.choice import use_triton
from kernels.quantized_linear import blockwise
from kernels.quantized_linear.weight import GROUP_SIZE, QuantizedWeight, quantize, shapes_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["GROUP_SIZE", "QuantizedWeight", "quantize", "quantized_linear", "shapes_of"]


def quantized_linear(x: Tensor, weight: QuantizedWeight) -> Tensor:
    """Multiply x (..., n_in) by the weight's transpose; gives (..., n_out) in the dtype of x.

    x is float32 or bfloat16. Products are those of the integers with x, summed in float32.
    """
    if use_triton(x):
        # Triton may be absent.
        from kernels.quantized_linear import triton

        if x.numel() <= triton.MAX_ROWS * x.shape[-1]:
            return triton.quantized_linear(x, weight)
    return blockwise.quantized_linear(x, weight)
