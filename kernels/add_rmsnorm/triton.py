"""Residual addition and RMSNorm as one Triton kernel: a program for each row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from kernels.rows import as_rows, check_weight, warps_of

if TYPE_CHECKING:
    from torch import Tensor


@triton.jit
def _add_norm_kernel(
    residual,
    update,
    weight,
    normed,
    total,
    eps,
    width,
    stride_r,
    stride_u,
    HAS_UPDATE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    is_inside = column < width
    sums = tl.load(residual + row * stride_r + column, mask=is_inside, other=0.0)
    if HAS_UPDATE:
        added = tl.load(update + row * stride_u + column, mask=is_inside, other=0.0)
        sums += added.to(tl.float32)
        tl.store(total + row * width + column, sums, mask=is_inside)
    scale = 1.0 / tl.sqrt(tl.sum(sums * sums, axis=0) / width + eps)
    w = tl.load(weight + column, mask=is_inside, other=0.0).to(tl.float32)
    result = (sums * scale * w).to(normed.dtype.element_ty)
    tl.store(normed + row * width + column, result, mask=is_inside)


def add_rmsnorm(
    residual: Tensor, update: Tensor | None, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Add and normalize; arguments and results as in `reference`.

    Raises ValueError where dtypes or shapes do not fit, or a row has gaps in it.
    """
    if residual.dim() < 1 or residual.dtype != torch.float32:
        raise ValueError(
            f"residual is {residual.dtype} {tuple(residual.shape)}, expected float32 (..., d_model)"
        )
    if update is not None and update.shape != residual.shape:
        raise ValueError(
            f"update is {tuple(update.shape)}, expected the shape of residual,"
            f" {tuple(residual.shape)}"
        )
    width = residual.shape[-1]
    check_weight(weight, width)
    normed = torch.empty(residual.shape, dtype=weight.dtype, device=residual.device)
    total = residual if update is None else torch.empty_like(normed, dtype=torch.float32)
    if not residual.numel():
        return normed, total
    rows_r = as_rows(residual, "residual")
    rows_u = rows_r if update is None else as_rows(update, "update")
    block = triton.next_power_of_2(width)
    _add_norm_kernel[rows_r.shape[0],](
        rows_r,
        rows_u,
        weight,
        normed,
        total,
        eps,
        width,
        rows_r.stride(0),
        rows_u.stride(0),
        HAS_UPDATE=update is not None,
        BLOCK=block,
        num_warps=warps_of(block),
    )
    return normed, total
