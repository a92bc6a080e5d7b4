"""Functions of a float32 tile that several Triton kernels compute."""

import triton
import triton.language as tl


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
