"""The product with a quantized weight in plain torch: some rows of the weight at a time.

For a CPU, where such a block stays in the cache while the integers alone come from memory, and for
long runs on a GPU, where multiplying is the cost and not moving the weight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from kernels.quantized_linear.weight import QuantizedWeight

# A block in float32: 1 MiB, about a second-level cache. On a GPU any of Codestral's weights whole.
_CPU_BLOCK_WEIGHTS, _GPU_BLOCK_WEIGHTS = 2**18, 2**27


def quantized_linear(x: Tensor, weight: QuantizedWeight) -> Tensor:
    """Multiply x (..., n_in) by the weight's transpose; gives (..., n_out) in the dtype of x.

    Multiplies in the dtype of x, and scales in float32.
    """
    n_out, n_in = weight.shape
    rows = x.reshape(-1, n_in)  # (l, n_in)
    y = rows.new_empty(rows.shape[0], n_out)
    n_weights = _GPU_BLOCK_WEIGHTS if x.is_cuda else _CPU_BLOCK_WEIGHTS
    n_rows = max(1, n_weights // n_in)
    for start in range(0, n_out, n_rows):
        block = weight.rows(slice(start, start + n_rows))
        into = y[:, start : start + n_rows]
        if weight.bits == 8:
            torch.mm(rows, block.values.to(x.dtype).T, out=into)
            into *= block.scales
        else:
            torch.mm(rows, block.dequantize(x.dtype).T, out=into)
    return y.view(*x.shape[:-1], n_out)
