"""Pass and commit as Triton kernels that read each number of the state once.

A pass is matrix products on one tile of up to 16 tokens, so 16 cost about what 1 does. They are in
three TF32 parts each, as accurate as float32. A commit is the plain recurrence: it multiplies
nothing that the state's bytes do not hide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from kernels.formulas import load_tile
from kernels.ssm_pass import MAX_TOKENS

if TYPE_CHECKING:
    from torch import Tensor


@triton.jit
def readout(x, dt, A, B, C, state):
    """Give y (tokens, channels) of one head, without D, of tokens that follow `state`.

    All float32: x (tokens, channels), dt (tokens,), 0 past the last one; A a number; B and C
    (tokens, d_state); state (channels, d_state).
    """
    decay = tl.cumsum(dt * A, axis=0)
    carried = tl.dot(C, tl.trans(state), input_precision="tf32x3")
    scores = tl.dot(C, tl.trans(B), input_precision="tf32x3")
    t = tl.arange(0, dt.shape[0])
    # Masked before exp: above the diagonal the difference is positive and could overflow.
    gaps = tl.where(t[:, None] >= t[None, :], decay[:, None] - decay[None, :], float("-inf"))
    weights = scores * tl.exp(gaps) * dt[None, :]
    return carried * tl.exp(decay)[:, None] + tl.dot(weights, x, input_precision="tf32x3")


@triton.jit(do_not_specialize=["length"])
def _pass_kernel(
    x,
    dt,
    A,
    B,
    C,
    D,
    state,
    y,
    length,
    nheads,
    ratio,
    headdim,
    d_state,
    stride_x_b,
    stride_x_l,
    stride_x_h,
    stride_x_p,
    stride_dt_b,
    stride_dt_l,
    stride_dt_h,
    stride_B_b,
    stride_B_l,
    stride_B_g,
    stride_B_n,
    stride_C_b,
    stride_C_l,
    stride_C_g,
    stride_C_n,
    stride_s_b,
    stride_s_h,
    stride_s_p,
    stride_s_n,
    HAS_D: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    row, head = tl.program_id(2).to(tl.int64), tl.program_id(1).to(tl.int64)
    group = head // ratio
    t = tl.arange(0, BLOCK_T)
    p = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    n = tl.arange(0, BLOCK_N)
    is_token, is_channel, is_state = t < length, p < headdim, n < d_state
    state += row * stride_s_b + head * stride_s_h
    x += row * stride_x_b + head * stride_x_h
    B += row * stride_B_b + group * stride_B_g
    C += row * stride_C_b + group * stride_C_g
    h0 = load_tile(state, p, stride_s_p, n, stride_s_n, is_channel, is_state)
    own_x = load_tile(x, t, stride_x_l, p, stride_x_p, is_token, is_channel).to(tl.float32)
    own_dt = tl.load(
        dt + row * stride_dt_b + head * stride_dt_h + t * stride_dt_l, mask=is_token, other=0.0
    ).to(tl.float32)
    own_B = load_tile(B, t, stride_B_l, n, stride_B_n, is_token, is_state).to(tl.float32)
    own_C = load_tile(C, t, stride_C_l, n, stride_C_n, is_token, is_state).to(tl.float32)
    out = readout(own_x, own_dt, tl.load(A + head).to(tl.float32), own_B, own_C, h0)
    if HAS_D:
        out += tl.load(D + head).to(tl.float32) * own_x
    y += ((row * length + t[:, None]) * nheads + head) * headdim + p[None, :]
    tl.store(y, out.to(y.dtype.element_ty), mask=is_token[:, None] & is_channel[None, :])


@triton.jit(do_not_specialize=["n_tokens"])
def _commit_kernel(
    x,
    dt,
    A,
    B,
    state,
    after,
    n_tokens,
    nheads,
    ratio,
    headdim,
    d_state,
    stride_x_b,
    stride_x_l,
    stride_x_h,
    stride_x_p,
    stride_dt_b,
    stride_dt_l,
    stride_dt_h,
    stride_A_b,
    stride_A_h,
    stride_B_b,
    stride_B_l,
    stride_B_g,
    stride_B_n,
    stride_s_b,
    stride_s_h,
    stride_s_p,
    stride_s_n,
    BLOCK_P: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    # Rows and heads on the first axis: the others end at 65,535.
    row_head = tl.program_id(0).to(tl.int64)
    row, head = row_head // nheads, row_head % nheads
    p = tl.program_id(1).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    n = tl.arange(0, BLOCK_N)
    is_channel, is_state = p < headdim, n < d_state
    state += row * stride_s_b + head * stride_s_h
    h = load_tile(state, p, stride_s_p, n, stride_s_n, is_channel, is_state)
    x += row * stride_x_b + head * stride_x_h + p * stride_x_p
    dt += row * stride_dt_b + head * stride_dt_h
    B += row * stride_B_b + (head // ratio) * stride_B_g + n * stride_B_n
    rate = tl.load(A + row * stride_A_b + head * stride_A_h).to(tl.float32)
    for t in range(n_tokens):
        dt_t = tl.load(dt + t * stride_dt_l).to(tl.float32)
        x_t = tl.load(x + t * stride_x_l, mask=is_channel, other=0.0).to(tl.float32)
        B_t = tl.load(B + t * stride_B_l, mask=is_state, other=0.0).to(tl.float32)
        h = h * tl.exp(dt_t * rate) + (dt_t * x_t)[:, None] * B_t[None, :]
    after += (row_head * headdim + p[:, None]) * d_state + n[None, :]
    tl.store(after, h, mask=is_channel[:, None] & is_state[None, :])


def ssm_pass(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, ssm_state: Tensor
) -> Tensor:
    """Give the outputs of l tokens that follow `ssm_state`; arguments as in `reference`.

    Any strides; at most 16 tokens. Raises ValueError where shapes or dtypes do not fit together.
    """
    check_readout(x, dt, A, B, C, D, ssm_state)
    batch, length, nheads, headdim = x.shape
    ngroups, d_state = B.shape[2:]
    if length > MAX_TOKENS:
        raise ValueError(f"x has {length} tokens, expected at most {MAX_TOKENS}")
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if not y.numel():
        return y
    block_p, block_n, n_warps = pass_blocks(headdim, d_state)
    _pass_kernel[triton.cdiv(headdim, block_p), nheads, batch](
        x,
        dt,
        A.contiguous(),
        B,
        C,
        None if D is None else D.contiguous(),
        ssm_state,
        y,
        length,
        nheads,
        nheads // ngroups,
        headdim,
        d_state,
        *x.stride(),
        *dt.stride(),
        *B.stride(),
        *C.stride(),
        *ssm_state.stride(),
        HAS_D=D is not None,
        BLOCK_T=MAX_TOKENS,
        BLOCK_P=block_p,
        BLOCK_N=block_n,
        num_warps=n_warps,
    )
    return y


def ssm_commit(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, ssm_state: Tensor, n: int) -> Tensor:
    """Give the state after the first n of l tokens; arguments as in `reference`, any strides.

    All rows of the batch (the layers of a model) in one launch. Raises ValueError where shapes or
    dtypes do not fit together.
    """
    check_recurrence(x, dt, A, B, ssm_state)
    batch, length, nheads, headdim = x.shape
    ngroups, d_state = B.shape[2:]
    if not 0 <= n <= length:
        raise ValueError(f"n is {n}, expected 0 to {length}")
    after = torch.empty(ssm_state.shape, dtype=torch.float32, device=x.device)
    if not after.numel():
        return after
    block_p, block_n = min(32, triton.next_power_of_2(headdim)), triton.next_power_of_2(d_state)
    _commit_kernel[batch * nheads, triton.cdiv(headdim, block_p)](
        x,
        dt,
        A,
        B,
        ssm_state,
        after,
        n,
        nheads,
        nheads // ngroups,
        headdim,
        d_state,
        *x.stride(),
        *dt.stride(),
        *((0, *A.stride()) if A.dim() == 1 else A.stride()),
        *B.stride(),
        *ssm_state.stride(),
        BLOCK_P=block_p,
        BLOCK_N=block_n,
    )
    return after


def pass_blocks(headdim: int, d_state: int) -> tuple[int, int, int]:
    """Give the sides of the tile of the state that a program of a pass reads, and its warps.

    A head of Codestral's, for 8 warps: 128 programs a layer, one on each processor of a large GPU,
    so that what the channels of a head share is worked out once.
    """
    block_p = max(16, min(64, triton.next_power_of_2(headdim)))
    return block_p, max(16, triton.next_power_of_2(d_state)), block_p // 8


def check_readout(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, ssm_state: Tensor
) -> None:
    """Raise ValueError where the arguments of a recurrence and its outputs do not fit together."""
    check_recurrence(x, dt, A, B, ssm_state)
    nheads = x.shape[2]
    if A.shape != (nheads,):
        raise ValueError(f"A is {tuple(A.shape)}, expected ({nheads},)")
    if C.shape != B.shape:
        raise ValueError(f"C is {tuple(C.shape)}, expected the shape of B, {tuple(B.shape)}")
    if D is not None and D.shape != (nheads,):
        raise ValueError(f"D is {tuple(D.shape)}, expected ({nheads},)")


def check_recurrence(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, ssm_state: Tensor) -> None:
    """Raise ValueError where the arguments of a recurrence do not fit together."""
    if x.dim() != 4 or not x.is_floating_point():
        raise ValueError(
            f"x is {x.dtype} {tuple(x.shape)}, expected floating point (batch, l, nheads, headdim)"
        )
    batch, length, nheads, headdim = x.shape
    if dt.shape != x.shape[:3]:
        raise ValueError(f"dt is {tuple(dt.shape)}, expected {tuple(x.shape[:3])}")
    if A.shape not in ((nheads,), (batch, nheads)):
        raise ValueError(f"A is {tuple(A.shape)}, expected ({nheads},) or ({batch}, {nheads})")
    is_B = B.dim() == 4 and B.shape[:2] == (batch, length)
    if not is_B or not B.shape[2] or nheads % B.shape[2]:
        raise ValueError(
            f"B is {tuple(B.shape)}, expected ({batch}, {length}, a divisor of {nheads}, d_state)"
        )
    expected = (batch, nheads, headdim, B.shape[3])
    if ssm_state.shape != expected or ssm_state.dtype != torch.float32:
        raise ValueError(
            f"ssm_state is {ssm_state.dtype} {tuple(ssm_state.shape)}, expected float32 {expected}"
        )
