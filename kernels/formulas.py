"""What several Triton kernels do with tiles: load one, and functions of its float32 values."""

import triton
import triton.language as tl


@triton.jit
def load_tile(base, row, row_stride, column, column_stride, is_row, is_column):
    """Give the values at some rows and columns (index vectors), and 0 where either is outside."""
    at = base + row[:, None] * row_stride + column[None, :] * column_stride
    return tl.load(at, mask=is_row[:, None] & is_column[None, :], other=0.0)


@triton.jit
def silu(v):
    """Give v · sigmoid(v)."""
    return v / (1.0 + tl.exp(-v))


@triton.jit
def softplus(v):
    """Give log(1 + exp(v)), to full relative accuracy however small it is."""
    e = tl.exp(-tl.abs(v))
    # 1 + e loses digits of a small e; what was lost shows in u - 1, and is taken out again.
    u = 1.0 + e
    log1p = tl.where(u == 1.0, e, tl.log(u) * (e / tl.where(u == 1.0, 1.0, u - 1.0)))
    return tl.maximum(v, 0.0) + log1p
