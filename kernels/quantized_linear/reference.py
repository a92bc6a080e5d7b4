"""The product with a quantized weight as it is defined: dequantize, then multiply."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor

    from kernels.quantized_linear.weight import QuantizedWeight


def quantized_linear(x: Tensor, weight: QuantizedWeight) -> Tensor:
    """Multiply x (..., n_in) by the weight's transpose; gives (..., n_out) in the dtype of x.

    Computes in float64 for a float64 x, else in float32.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    return F.linear(x.to(dtype), weight.dequantize(dtype)).to(x.dtype)
