"""Residual addition, then RMSNorm."""

from torch import Tensor
from torch.nn import functional as F


def add_rmsnorm(
    residual: Tensor, update: Tensor | None, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Add `update` to the residual stream and normalize the sum.

    residual (..., d_model) float32; update the same shape in any dtype, or None for nothing to
    add; weight (d_model,). Computes in float32, or in float64 when residual is float64.
    Returns the normed sum in the weight's dtype, and the sum itself in residual's; no argument is
    changed. Without an update the sum is `residual` itself.
    """
    if update is not None:
        residual = residual + update.to(residual.dtype)
    scaled = F.rms_norm(residual, residual.shape[-1:], None, eps)
    return (scaled * weight.to(residual.dtype)).to(weight.dtype), residual
