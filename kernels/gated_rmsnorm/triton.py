"""Gate and grouped RMSNorm as one Triton kernel: a program for each group of each row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from kernels.formulas import silu
from kernels.rows import as_rows, check_weight, warps_of

if TYPE_CHECKING:
    from torch import Tensor


@triton.jit
def _gated_kernel(
    y,
    z,
    weight,
    out,
    eps,
    width,
    d_inner,
    stride_y,
    stride_z,
    BLOCK: tl.constexpr,
):
    row, group = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    column = group * width + lane
    is_inside = lane < width
    gate = tl.load(z + row * stride_z + column, mask=is_inside, other=0.0).to(tl.float32)
    gated = tl.load(y + row * stride_y + column, mask=is_inside, other=0.0).to(tl.float32)
    gated *= silu(gate)
    scale = 1.0 / tl.sqrt(tl.sum(gated * gated, axis=0) / width + eps)
    w = tl.load(weight + column, mask=is_inside, other=0.0).to(tl.float32)
    normed = gated * scale * w
    tl.store(out + row * d_inner + column, normed.to(out.dtype.element_ty), mask=is_inside)


def gated_rmsnorm(y: Tensor, z: Tensor, weight: Tensor, eps: float, ngroups: int) -> Tensor:
    """Gate, then normalize each group; arguments and result as in `reference`.

    The rows of y and z may lie apart, as slices of wider ones. Raises ValueError where shapes do
    not fit together, or a row has gaps in it.
    """
    if y.dim() < 1 or z.shape != y.shape:
        raise ValueError(f"z is {tuple(z.shape)}, expected the shape of y, {tuple(y.shape)}")
    d_inner = y.shape[-1]
    check_weight(weight, d_inner)
    if ngroups < 1 or d_inner % ngroups:
        raise ValueError(f"ngroups is {ngroups}, expected a divisor of d_inner = {d_inner}")
    out = torch.empty(y.shape, dtype=y.dtype, device=y.device)
    if not y.numel():
        return out
    rows_y, rows_z = (as_rows(tensor, name) for tensor, name in ((y, "y"), (z, "z")))
    width = d_inner // ngroups
    block = triton.next_power_of_2(width)
    _gated_kernel[rows_y.shape[0], ngroups](
        rows_y,
        rows_z,
        weight,
        out,
        eps,
        width,
        d_inner,
        rows_y.stride(0),
        rows_z.stride(0),
        BLOCK=block,
        num_warps=warps_of(block),
    )
    return out
