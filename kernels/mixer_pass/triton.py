"""A short run's convolution, step sizes and recurrence as one Triton kernel.

A program reads its part of one head's state once, and works out for itself the few tokens' B and C,
which all heads of a group share: they come from the L2 cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from kernels.causal_conv1d.triton import check_convolution, convolved
from kernels.formulas import load_tile, softplus
from kernels.ssm_pass import MAX_TOKENS
from kernels.ssm_pass.triton import pass_blocks, readout

if TYPE_CHECKING:
    from torch import Tensor


# The rows of a tensor core's tile, which any run is repeated to.
ROWS = tl.constexpr(MAX_TOKENS)


@triton.jit
def repeated(tile):
    """Give a tile (tokens, n) as often as makes up a tensor core's rows, one below the other."""
    repeats: tl.constexpr = ROWS // tile.shape[0]
    stacked = tl.broadcast_to(tile[None, :, :], (repeats, tile.shape[0], tile.shape[1]))
    return tl.reshape(stacked, (ROWS, tile.shape[1]))


@triton.jit(do_not_specialize=["length"])
def _mixer_kernel(
    xBC,
    dt,
    weight,
    bias,
    dt_bias,
    A_log,
    D,
    conv_state,
    ssm_state,
    y,
    x_log,
    B_log,
    dt_log,
    dt_least,
    dt_most,
    length,
    nheads,
    ngroups,
    headdim,
    d_state,
    conv_dim,
    stride_x_b,
    stride_x_l,
    stride_x_c,
    stride_dt_b,
    stride_dt_l,
    stride_dt_h,
    stride_w_c,
    stride_w_k,
    stride_c_b,
    stride_c_l,
    stride_c_c,
    stride_s_b,
    stride_s_h,
    stride_s_p,
    stride_s_n,
    BY_ADDRESS: tl.constexpr,
    IS_ALIGNED: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    D_CONV: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    row, head = tl.program_id(2).to(tl.int64), tl.program_id(1).to(tl.int64)
    ratio = nheads // ngroups
    group = head // ratio
    if BY_ADDRESS:
        conv_state = tl.load(conv_state).to(tl.pointer_type(xBC.dtype.element_ty))
        ssm_state = tl.load(ssm_state).to(tl.pointer_type(tl.float32))
        if IS_ALIGNED:
            # Known of tensors; without it, every number is loaded by itself.
            conv_state, ssm_state = tl.multiple_of(conv_state, 16), tl.multiple_of(ssm_state, 16)
    t = tl.arange(0, BLOCK_T)
    row_t = tl.arange(0, ROWS)
    p = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    n = tl.arange(0, BLOCK_N).to(tl.int64)
    is_token, is_row, is_channel, is_state = t < length, row_t < length, p < headdim, n < d_state
    # The state first: the longest way.
    ssm_state += row * stride_s_b + head * stride_s_h
    h0 = load_tile(ssm_state, p, stride_s_p, n, stride_s_n, is_channel, is_state)
    own_dt = tl.load(
        dt + row * stride_dt_b + head * stride_dt_h + row_t * stride_dt_l, mask=is_row, other=0.0
    ).to(tl.float32)
    own_dt = softplus(own_dt + tl.load(dt_bias + head).to(tl.float32))
    own_dt = tl.where(is_row, tl.minimum(tl.maximum(own_dt, dt_least), dt_most), 0.0)
    A = -tl.exp(tl.load(A_log + head).to(tl.float32))
    xBC += row * stride_x_b
    conv_state += row * stride_c_b
    dtype = xBC.dtype.element_ty
    first_B = nheads * headdim + group * d_state
    x = convolved(
        xBC, weight, bias, conv_state, t.to(tl.int64), head * headdim + p, length, conv_dim,
        stride_x_l, stride_x_c, stride_w_c, stride_w_k, stride_c_l, stride_c_c, HAS_BIAS, D_CONV,
    ).to(dtype)  # fmt: skip
    B = convolved(
        xBC, weight, bias, conv_state, t.to(tl.int64), first_B + n, length, conv_dim,
        stride_x_l, stride_x_c, stride_w_c, stride_w_k, stride_c_l, stride_c_c, HAS_BIAS, D_CONV,
    ).to(dtype)  # fmt: skip
    C = convolved(
        xBC, weight, bias, conv_state, t.to(tl.int64), first_B + ngroups * d_state + n, length,
        conv_dim, stride_x_l, stride_x_c, stride_w_c, stride_w_k, stride_c_l, stride_c_c, HAS_BIAS,
        D_CONV,
    ).to(dtype)  # fmt: skip
    # Of the rows that repeat, B and x meet step sizes of 0, and C gives rows that nobody stores.
    float_x = repeated(x.to(tl.float32))
    float_B = repeated(tl.where(is_state[None, :], B.to(tl.float32), 0.0))
    float_C = repeated(tl.where(is_state[None, :], C.to(tl.float32), 0.0))
    out = readout(float_x, own_dt, A, float_B, float_C, h0)
    out += tl.load(D + head).to(tl.float32) * float_x
    y += ((row * length + row_t[:, None]) * nheads + head) * headdim + p[None, :]
    tl.store(y, out.to(dtype), mask=is_row[:, None] & is_channel[None, :])
    token = row * length + t[:, None]
    x_log += (token * nheads + head) * headdim + p[None, :]
    tl.store(x_log, x, mask=is_token[:, None] & is_channel[None, :])
    if tl.program_id(0) == 0:
        tl.store(dt_log + (row * length + row_t) * nheads + head, own_dt, mask=is_row)
        if head % ratio == 0:
            at = (token * ngroups + group) * d_state + n[None, :]
            tl.store(B_log + at, B, mask=is_token[:, None] & is_state[None, :])


def mixer_pass(
    xBC: Tensor,
    dt: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    conv_state: Tensor,
    ssm_state: Tensor,
    *,
    headdim: int,
    ngroups: int,
    dt_limit: tuple[float, float],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Give outputs and what the recurrence took in; arguments and results as in `reference`.

    At most 16 tokens. At batch 1 both states may also be int64 tensors () on the device: addresses
    of a layer of a model's states, without gaps and at multiples of 16 bytes, conv_state's in the
    dtype of xBC. They are followed when the kernel runs, so that a captured graph can be replayed
    on any state.
    Raises ValueError where shapes or dtypes do not fit together.
    """
    by_address = ssm_state.dtype == torch.int64
    check_convolution(xBC, weight, bias, None if by_address else conv_state)
    batch, length, conv_dim = xBC.shape
    if dt.dim() != 3 or dt.shape[:2] != (batch, length):
        raise ValueError(f"dt is {tuple(dt.shape)}, expected ({batch}, {length}, nheads)")
    nheads, d_conv = dt.shape[2], weight.shape[1]
    if length > MAX_TOKENS:
        raise ValueError(f"xBC has {length} tokens, expected at most {MAX_TOKENS}")
    if ngroups < 1 or nheads % ngroups:
        raise ValueError(f"ngroups is {ngroups}, expected a divisor of the {nheads} heads")
    d_state, odd = divmod(conv_dim - nheads * headdim, 2 * ngroups)
    if d_state < 1 or odd:
        raise ValueError(
            f"xBC has {conv_dim} channels, expected {nheads} · {headdim} + 2 · {ngroups} · d_state"
        )
    for name, vector in (("dt_bias", dt_bias), ("A_log", A_log), ("D", D)):
        if vector.shape != (nheads,) or not vector.is_contiguous():
            raise ValueError(f"{name} is {tuple(vector.shape)}, expected ({nheads},) without gaps")
    ssm_shape = (batch, nheads, headdim, d_state)
    if by_address:
        if (batch, conv_state.dtype, conv_state.dim(), ssm_state.dim()) != (1, torch.int64, 0, 0):
            raise ValueError(
                f"conv_state is {conv_state.dtype} {tuple(conv_state.shape)}, ssm_state"
                f" {tuple(ssm_state.shape)}, batch {batch}: expected two addresses and batch 1"
            )
        conv_strides: tuple[int, ...] = (0, conv_dim, 1)
        ssm_strides: tuple[int, ...] = (0, headdim * d_state, d_state, 1)
    elif ssm_state.shape != ssm_shape or ssm_state.dtype != torch.float32:
        raise ValueError(
            f"ssm_state is {ssm_state.dtype} {tuple(ssm_state.shape)}, expected float32 {ssm_shape}"
        )
    else:
        conv_strides, ssm_strides = conv_state.stride(), ssm_state.stride()
    y, x_log = (xBC.new_empty(batch, length, nheads, headdim) for _ in range(2))
    B_log = xBC.new_empty(batch, length, ngroups, d_state)
    dt_log = torch.empty(dt.shape, dtype=torch.float32, device=dt.device)
    if not y.numel():
        return y, x_log, B_log, dt_log
    block_p, block_n, n_warps = pass_blocks(headdim, d_state)
    if not by_address:
        conv_state = conv_state.to(xBC.dtype)
    _mixer_kernel[triton.cdiv(headdim, block_p), nheads, batch](
        xBC,
        dt,
        weight,
        weight if bias is None else bias,
        dt_bias,
        A_log,
        D,
        conv_state,
        ssm_state,
        y,
        x_log,
        B_log,
        dt_log,
        *dt_limit,
        length,
        nheads,
        ngroups,
        headdim,
        d_state,
        conv_dim,
        *xBC.stride(),
        *dt.stride(),
        *weight.stride(),
        *conv_strides,
        *ssm_strides,
        BY_ADDRESS=by_address,
        IS_ALIGNED=conv_dim * xBC.itemsize % 16 == 0 and headdim * d_state % 4 == 0,
        HAS_BIAS=bias is not None,
        D_CONV=d_conv,
        BLOCK_T=triton.next_power_of_2(length),
        BLOCK_P=block_p,
        BLOCK_N=block_n,
        num_warps=n_warps,
    )
    return y, x_log, B_log, dt_log
