"""Gate, then RMSNorm over each group of channels."""

import torch
from torch import Tensor
from torch.nn import functional as F


def gated_rmsnorm(y: Tensor, z: Tensor, weight: Tensor, eps: float, ngroups: int) -> Tensor:
    """Multiply `y` by SiLU(z), then normalize every group of channels by its own mean square.

    y, z (..., d_inner); weight (d_inner,); d_inner is a multiple of ngroups. Computes in float32,
    or in float64 when y is float64.
    Returns the shape and dtype of y. The order (gate first) and the grouping follow Mamba-2.
    """
    work = torch.promote_types(y.dtype, torch.float32)
    gated = y.to(work) * F.silu(z.to(work))
    grouped = gated.unflatten(-1, (ngroups, -1))
    scale = torch.rsqrt(grouped.square().mean(-1, keepdim=True) + eps)
    return ((grouped * scale).flatten(-2) * weight.to(work)).to(y.dtype)
