"""The product of a few rows with a quantized weight on a GPU: the integers are moved once.

A program multiplies a block of output channels by all rows at once, on tensor cores: the integers
are exact in the dtype of x, products are summed in float32 and scaled there. Each warp has 16
channels of its own, so none is unpacked twice. Where the channels alone would leave the device
idle, several programs share them, each a part of the inputs, and their sums are added after.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

    from kernels.quantized_linear.weight import QuantizedWeight

MAX_ROWS = 16
# What keeps the 132 multiprocessors of an H100 or H200 busy: two programs for each.
_N_PROGRAMS = 264


class Launch(NamedTuple):
    """How a product is cut: outputs and inputs of a step, programs that share an output, stages."""

    block_out: int
    block_in: int
    n_splits: int
    n_stages: int


# By (n_out, n_in): Codestral's projections and its head. A warp has 16 outputs, so 4096 of them are
# two warps a multiprocessor: too few to unpack as fast as memory delivers.
_LAUNCHES = {
    (18560, 4096): Launch(block_out=32, block_in=256, n_splits=1, n_stages=4),
    (4096, 8192): Launch(block_out=32, block_in=256, n_splits=4, n_stages=4),
    (32768, 4096): Launch(block_out=64, block_in=256, n_splits=1, n_stages=4),
}


def launch_for(n_out: int, n_in: int, dtype: torch.dtype) -> Launch:
    """Give the launch for a weight's shape and the dtype of x."""
    launch = _LAUNCHES.get((n_out, n_in))
    if launch is None:
        block_out = 64 if n_out >= 64 * _N_PROGRAMS else 32
        missing = _N_PROGRAMS // triton.cdiv(n_out, block_out)
        n_splits = max(1, min(8, missing, triton.cdiv(n_in, 512)))
        launch = Launch(block_out, block_in=256, n_splits=n_splits, n_stages=4)
    if dtype == torch.float32:
        # Without tensor cores; twice the bytes.
        launch = launch._replace(block_in=128, n_stages=2)
    return launch


def quantized_linear(x: Tensor, weight: QuantizedWeight) -> Tensor:
    """Multiply x (..., n_in), up to 16 rows, by the weight's transpose.

    x is float32 or bfloat16. Gives (..., n_out) in its dtype; sums are float32. Raises ValueError
    for what does not fit.
    """
    n_out, n_in = weight.shape
    rows = x.reshape(-1, n_in).contiguous()  # (l, n_in)
    n_rows = rows.shape[0]
    if n_rows > MAX_ROWS:
        raise ValueError(f"x has {n_rows} rows, expected at most {MAX_ROWS}")
    if x.dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"x is {x.dtype}, expected float32 or bfloat16")
    if x.device != weight.values.device:
        raise ValueError(f"x is on {x.device}, expected {weight.values.device}, as the weight is")
    launch = launch_for(n_out, n_in, x.dtype)
    sums_dtype = x.dtype if launch.n_splits == 1 else torch.float32
    sums = torch.empty(launch.n_splits, n_rows, n_out, dtype=sums_dtype, device=x.device)
    if n_rows:
        grid = (triton.cdiv(n_out, launch.block_out), launch.n_splits)
        sizes = {
            "BLOCK_ROWS": MAX_ROWS,
            "BLOCK_OUT": launch.block_out,
            "N_SPLITS": launch.n_splits,
            # On a CPU the kernel is interpreted, and the interpreter multiplies no bfloat16.
            "DOT_DTYPE": tl.bfloat16 if x.is_cuda and x.dtype == torch.bfloat16 else tl.float32,
            "num_warps": launch.block_out // 16,
            "num_stages": launch.n_stages,
        }
        if weight.bits == 8:
            _multiply_8[grid](
                rows, weight.values, weight.scales, sums, n_rows, n_out, n_in,
                BLOCK_IN=launch.block_in, **sizes,
            )  # fmt: skip
        else:
            group_size = weight.group_size
            assert group_size is not None, "4 bits go by groups"
            zeros = weight.scales if weight.zero_points is None else weight.zero_points
            _multiply_4[grid](
                rows, weight.values, weight.scales, zeros, sums, n_rows, n_out, n_in,
                HAS_ZEROS=weight.zero_points is not None,
                GROUP_SIZE=group_size, N_GROUPS=max(1, launch.block_in // group_size), **sizes,
            )  # fmt: skip
    y = sums[0] if launch.n_splits == 1 else sums.sum(0).to(x.dtype)
    return y.view(*x.shape[:-1], n_out)


@triton.jit(do_not_specialize=["n_rows"])
def _multiply_8(
    x, values, scales, sums, n_rows, n_out, n_in,
    BLOCK_ROWS: tl.constexpr, BLOCK_OUT: tl.constexpr, BLOCK_IN: tl.constexpr,
    N_SPLITS: tl.constexpr, DOT_DTYPE: tl.constexpr,
):  # fmt: skip
    """x (n_rows, n_in), values (n_out, n_in), scales (n_out,), sums (n_splits, n_rows, n_out)."""
    split = tl.program_id(1)
    outs = tl.program_id(0).to(tl.int64) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    rows = tl.arange(0, BLOCK_ROWS)
    is_out = outs < n_out
    is_row = rows < n_rows
    total = tl.zeros((BLOCK_OUT, BLOCK_ROWS), dtype=tl.float32)
    for start in range(split * BLOCK_IN, n_in, N_SPLITS * BLOCK_IN):
        ins = start + tl.arange(0, BLOCK_IN)
        is_in = ins < n_in
        w = tl.load(
            values + outs[:, None] * n_in + ins[None, :],
            mask=is_out[:, None] & is_in[None, :],
            other=0,
        )  # (out, in)
        u = tl.load(
            x + rows[None, :] * n_in + ins[:, None],
            mask=is_row[None, :] & is_in[:, None],
            other=0.0,
        ).to(DOT_DTYPE)  # (in, row)
        total = tl.dot(w.to(DOT_DTYPE), u, total, input_precision="ieee")
    total *= tl.load(scales + outs, mask=is_out, other=0.0)[:, None]
    target = sums + (split * n_rows + rows[None, :]) * n_out + outs[:, None]
    tl.store(target, total.to(sums.dtype.element_ty), mask=is_out[:, None] & is_row[None, :])


@triton.jit(do_not_specialize=["n_rows"])
def _multiply_4(
    x, values, scales, zeros, sums, n_rows, n_out, n_in,
    HAS_ZEROS: tl.constexpr, GROUP_SIZE: tl.constexpr, N_GROUPS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_OUT: tl.constexpr, N_SPLITS: tl.constexpr,
    DOT_DTYPE: tl.constexpr,
):  # fmt: skip
    """As `_multiply_8`, with values (n_out, n_in / 2), scales and zeros (n_out, n_groups)."""
    HALF: tl.constexpr = GROUP_SIZE // 2
    split = tl.program_id(1)
    outs = tl.program_id(0).to(tl.int64) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    rows = tl.arange(0, BLOCK_ROWS)
    halves = tl.arange(0, HALF)
    is_out = outs < n_out
    is_row = rows < n_rows
    n_groups = n_in // GROUP_SIZE
    total = tl.zeros((BLOCK_OUT, BLOCK_ROWS), dtype=tl.float32)
    for first in range(split * N_GROUPS, n_groups, N_SPLITS * N_GROUPS):
        for i in tl.static_range(N_GROUPS):
            ins = (first + i) * GROUP_SIZE + halves
            is_in = ins < n_in
            packed = tl.load(
                values + outs[:, None] * (n_in // 2) + (first + i) * HALF + halves[None, :],
                mask=is_out[:, None] & is_in[None, :],
                other=0,
            )  # (out, half)
            inputs = x + rows[None, :] * n_in + ins[:, None]  # (half, row)
            is_input = is_row[None, :] & is_in[:, None]
            u_low = tl.load(inputs, mask=is_input, other=0.0).to(DOT_DTYPE)
            u_high = tl.load(inputs + HALF, mask=is_input, other=0.0).to(DOT_DTYPE)
            # Behind the last group the inputs are zeros, whatever the scale.
            group = outs * n_groups + tl.minimum(first + i, n_groups - 1)
            scale = tl.load(scales + group, mask=is_out, other=0.0)
            low = (packed & 15).to(tl.int8)
            high = (packed >> 4).to(tl.int8)
            if HAS_ZEROS:
                zero = tl.load(zeros + group, mask=is_out, other=0)
                low -= zero.to(tl.int8)[:, None]
                high -= zero.to(tl.int8)[:, None]
            else:
                low -= 8
                high -= 8
            part = tl.dot(low.to(DOT_DTYPE), u_low, input_precision="ieee")
            part = tl.dot(high.to(DOT_DTYPE), u_high, part, input_precision="ieee")
            total += part * scale.to(tl.float32)[:, None]
    target = sums + (split * n_rows + rows[None, :]) * n_out + outs[:, None]
    tl.store(target, total.to(sums.dtype.element_ty), mask=is_out[:, None] & is_row[None, :])
