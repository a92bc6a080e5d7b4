"""The recurrence in chunks as Triton kernels, its products on tensor cores.

Four launches: the decays along each chunk; what each chunk adds to the state; the states from
chunk to chunk; and the outputs, a tile of tokens at a time. States inside chunks are a fifth, of
the second's kernel. A state is float32 throughout: where it meets bfloat16, it is multiplied in two
parts that make up for the digits.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from kernels.formulas import load_tile
from kernels.ssd_chunk_scan.reference import check_places
from kernels.ssm_pass.triton import check_readout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

# Tokens of a tile; float32 takes twice the room.
BLOCK_TOKENS = {torch.bfloat16: 64, torch.float32: 32}
BLOCK_CHANNELS = 64
BLOCK_HEADS = 8
# State values that a program carries from chunk to chunk.
BLOCK_STATE = 512


@triton.jit
def product(a, b):
    """Give a @ b to float32's accuracy, of two float32 or of one and a lower precision."""
    if a.dtype == b.dtype:
        result = tl.dot(a, b, input_precision="ieee")
    elif a.dtype == tl.float32:
        high = a.to(b.dtype)
        low = (a - high.to(tl.float32)).to(b.dtype)
        result = tl.dot(low, b) + tl.dot(high, b)
    else:
        high = b.to(a.dtype)
        low = (b - high.to(tl.float32)).to(a.dtype)
        result = tl.dot(a, low) + tl.dot(a, high)
    return result


@triton.jit(do_not_specialize=["length", "padded", "chunk"])
def _decay_kernel(
    dt,
    A,
    decay,
    length,
    padded,
    chunk,
    nheads,
    stride_dt_b,
    stride_dt_l,
    stride_dt_h,
    stride_A,
    BLOCK_Q: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """Sum dt * A up along each chunk: decay (batch, nheads, padded)."""
    row, first = tl.program_id(2).to(tl.int64), tl.program_id(0).to(tl.int64) * chunk
    head = tl.program_id(1).to(tl.int64) * BLOCK_H + tl.arange(0, BLOCK_H)
    q = tl.arange(0, BLOCK_Q)
    is_head = head < nheads
    steps = tl.load(
        dt + row * stride_dt_b + (first + q)[:, None] * stride_dt_l + head[None, :] * stride_dt_h,
        mask=((q < chunk) & (first + q < length))[:, None] & is_head[None, :],
        other=0.0,
    ).to(tl.float32)
    rate = tl.load(A + head * stride_A, mask=is_head, other=0.0).to(tl.float32)
    tl.store(
        decay + (row * nheads + head[None, :]) * padded + (first + q)[:, None],
        tl.cumsum(steps * rate[None, :], axis=0),
        mask=(q < chunk)[:, None] & is_head[None, :],
    )


@triton.jit(do_not_specialize=["length", "padded", "chunk", "n_chunks"])
def _state_kernel(
    x,
    dt,
    B,
    decay,
    numbers,
    positions,
    starts,
    states,
    left,
    length,
    padded,
    chunk,
    n_chunks,
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
    HAS_STARTS: tl.constexpr,
    AT_POSITIONS: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Give what a chunk adds to the state, and the factor of the state before it.

    With AT_POSITIONS, give the states there instead, from those at the chunks' starts.
    """
    k, head = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    n_p_blocks = tl.cdiv(headdim, BLOCK_P)
    row_block = tl.program_id(2).to(tl.int64)
    row = row_block // n_p_blocks
    p = (row_block % n_p_blocks) * BLOCK_P + tl.arange(0, BLOCK_P)
    n = tl.arange(0, BLOCK_N)
    is_channel, is_state = p < headdim, n < d_state
    if AT_POSITIONS:
        position = tl.load(positions + k)
        c = tl.minimum(position // chunk, n_chunks - 1).to(tl.int64)
        n_read = (position - c * chunk).to(tl.int32)
    else:
        c = k
        n_read = chunk
    first = c * chunk
    decay += (row * nheads + head) * padded + first
    x += row * stride_x_b + first * stride_x_l + head * stride_x_h
    dt += row * stride_dt_b + first * stride_dt_l + head * stride_dt_h
    B += row * stride_B_b + first * stride_B_l + (head // ratio) * stride_B_g
    n_left = length - first
    total = tl.load(decay + n_read - 1, mask=n_read > 0, other=0.0)
    factor = tl.exp(total)
    if HAS_STARTS:
        before = tl.load(numbers + first - 1, mask=first > 0, other=0)
        end = tl.minimum(first + n_read, length)
        own = tl.load(numbers + end - 1, mask=end > 0, other=0)
        factor = tl.where(own == before, factor, 0.0)
    state = tl.zeros((BLOCK_P, BLOCK_N), dtype=tl.float32)
    for begin in range(0, n_read, BLOCK_S):
        s = begin + tl.arange(0, BLOCK_S)
        is_read = (s < n_read) & (s < n_left)
        steps = tl.load(dt + s * stride_dt_l, mask=is_read, other=0.0).to(tl.float32)
        now = tl.load(decay + s, mask=is_read, other=0.0)
        weights = tl.where(is_read, steps * tl.exp(total - now), 0.0)
        if HAS_STARTS:
            number = tl.load(numbers + first + s, mask=is_read, other=-1)
            weights = tl.where(number == own, weights, 0.0)
        x_s = load_tile(x, s, stride_x_l, p, stride_x_p, is_read, is_channel).to(tl.float32)
        B_s = load_tile(B, s, stride_B_l, n, stride_B_n, is_read, is_state)
        state += product(tl.trans(x_s * weights[:, None]), B_s)
    batch = tl.num_programs(2) // n_p_blocks
    tile = p[:, None] * d_state + n[None, :]
    is_inside = is_channel[:, None] & is_state[None, :]
    if AT_POSITIONS:
        starts += ((c * batch + row) * nheads + head) * headdim * d_state
        state += factor * tl.load(starts + tile, mask=is_inside, other=0.0)
    elif row_block % n_p_blocks == 0:
        tl.store(left + (c * batch + row) * nheads + head, factor)
    states += ((k * batch + row) * nheads + head) * headdim * d_state
    tl.store(states + tile, state, mask=is_inside)


@triton.jit(do_not_specialize=["n_chunks"])
def _passing_kernel(
    states,
    left,
    initial_state,
    after,
    n_chunks,
    nheads,
    headdim,
    d_state,
    stride_s_b,
    stride_s_h,
    stride_s_p,
    stride_s_n,
    BLOCK: tl.constexpr,
):
    """Put the state before each chunk in the place of what the chunk adds to it."""
    row, head = tl.program_id(2).to(tl.int64), tl.program_id(1).to(tl.int64)
    size, batch = headdim * d_state, tl.num_programs(2)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_inside = i < size
    state = tl.load(
        initial_state
        + row * stride_s_b
        + head * stride_s_h
        + (i // d_state) * stride_s_p
        + (i % d_state) * stride_s_n,
        mask=is_inside,
        other=0.0,
    )
    at = row * nheads + head
    for _ in range(n_chunks):
        added = tl.load(states + at * size + i, mask=is_inside, other=0.0)
        tl.store(states + at * size + i, state, mask=is_inside)
        state = state * tl.load(left + at) + added
        at += batch * nheads
    tl.store(after + (row * nheads + head) * size + i, state, mask=is_inside)


@triton.jit(do_not_specialize=["length", "padded", "chunk"])
def _scan_kernel(
    x,
    dt,
    B,
    C,
    D,
    decay,
    numbers,
    starts,
    y,
    length,
    padded,
    chunk,
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
    stride_D,
    HAS_D: tl.constexpr,
    HAS_STARTS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Give the outputs of a tile of tokens: from the chunk's start, and from its earlier tokens."""
    n_p_blocks, n_t_blocks = tl.cdiv(headdim, BLOCK_P), tl.cdiv(chunk, BLOCK_T)
    head, row_block = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    row = row_block // n_p_blocks
    batch = tl.num_programs(2) // n_p_blocks
    p = (row_block % n_p_blocks) * BLOCK_P + tl.arange(0, BLOCK_P)
    n = tl.arange(0, BLOCK_N)
    is_channel, is_state = p < headdim, n < d_state
    c = tl.program_id(0).to(tl.int64) // n_t_blocks
    begin = (tl.program_id(0) % n_t_blocks) * BLOCK_T
    first = c * chunk
    n_here = tl.minimum(chunk, length - first)
    decay += (row * nheads + head) * padded + first
    x += row * stride_x_b + first * stride_x_l + head * stride_x_h
    dt += row * stride_dt_b + first * stride_dt_l + head * stride_dt_h
    B += row * stride_B_b + first * stride_B_l + (head // ratio) * stride_B_g
    C += row * stride_C_b + first * stride_C_l + (head // ratio) * stride_C_g
    t = begin + tl.arange(0, BLOCK_T)
    is_here = t < n_here
    C_t = load_tile(C, t, stride_C_l, n, stride_C_n, is_here, is_state)
    now = tl.load(decay + t, mask=is_here, other=0.0)
    factor = tl.exp(now)
    if HAS_STARTS:
        before = tl.load(numbers + first - 1, mask=first > 0, other=0)
        own = tl.load(numbers + first + t, mask=is_here, other=-1)
        factor = tl.where(own == before, factor, 0.0)
    starts += ((c * batch + row) * nheads + head) * headdim * d_state
    # Read as (d_state, channels).
    state = load_tile(starts, n, 1, p, d_state, is_state, is_channel)
    sums = product(C_t, state) * factor[:, None]
    for other in range(0, begin + BLOCK_T, BLOCK_T):
        s = other + tl.arange(0, BLOCK_T)
        is_read = s < n_here
        B_s = load_tile(B, n, stride_B_n, s, stride_B_l, is_state, is_read)
        x_s = load_tile(x, s, stride_x_l, p, stride_x_p, is_read, is_channel)
        steps = tl.load(dt + s * stride_dt_l, mask=is_read, other=0.0).to(tl.float32)
        then = tl.load(decay + s, mask=is_read, other=0.0)
        is_pair = (t[:, None] >= s[None, :]) & is_here[:, None] & is_read[None, :]
        if HAS_STARTS:
            number = tl.load(numbers + first + s, mask=is_read, other=-2)
            is_pair = is_pair & (own[:, None] == number[None, :])
        # Masked before exp: above the diagonal the difference is positive and could overflow.
        gaps = tl.where(is_pair, now[:, None] - then[None, :], float("-inf"))
        scores = tl.dot(C_t, B_s, input_precision="ieee")
        weights = scores * tl.exp(gaps) * steps[None, :]
        sums += tl.dot(weights.to(x_s.dtype), x_s, input_precision="ieee")
    if HAS_D:
        x_t = load_tile(x, t, stride_x_l, p, stride_x_p, is_here, is_channel).to(tl.float32)
        sums += tl.load(D + head * stride_D).to(tl.float32) * x_t
    y += ((row * length + first + t[:, None]) * nheads + head) * headdim + p[None, :]
    tl.store(y, sums.to(y.dtype.element_ty), mask=is_here[:, None] & is_channel[None, :])


def ssd_chunk_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor,
    chunk_size: int = 64,
    *,
    state_positions: Sequence[int] = (),
    sequence_starts: Sequence[int] = (),
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the recurrence over l tokens in chunks; arguments and results as in `reference`.

    x, B and C of one dtype, float32 or bfloat16; any strides. Not differentiable. Raises ValueError
    where shapes or dtypes do not fit together, or a position or a start is out of range.
    """
    check_readout(x, dt, A, B, C, D, initial_state)
    batch, length, nheads, headdim = x.shape
    ngroups, d_state = B.shape[2:]
    if x.dtype not in BLOCK_TOKENS or {B.dtype, C.dtype} != {x.dtype}:
        raise ValueError(
            f"x, B and C are {x.dtype}, {B.dtype} and {C.dtype}, expected all of them to be"
            " float32 or all bfloat16"
        )
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}, expected 1 or more")
    check_places(length, state_positions, sequence_starts)
    n_positions = len(state_positions)
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    after = torch.empty(initial_state.shape, dtype=torch.float32, device=x.device)
    states = torch.empty((n_positions, *after.shape), dtype=torch.float32, device=x.device)
    if not y.numel() or not d_state:
        return torch.zeros_like(y), after.copy_(initial_state), states.copy_(initial_state)
    chunk = min(chunk_size, length)
    n_chunks = triton.cdiv(length, chunk)
    padded = n_chunks * chunk
    decay = torch.empty((batch, nheads, padded), dtype=torch.float32, device=x.device)
    left = torch.empty((n_chunks, batch, nheads), dtype=torch.float32, device=x.device)
    # What each chunk adds, then the states before each chunk.
    starts = torch.empty((n_chunks, *after.shape), dtype=torch.float32, device=x.device)
    numbers = _numbers(tuple(sequence_starts), length, x.device) if sequence_starts else None
    block_t = max(16, min(BLOCK_TOKENS[x.dtype], triton.next_power_of_2(chunk)))
    block_p = max(16, min(BLOCK_CHANNELS, triton.next_power_of_2(headdim)))
    block_n = max(16, triton.next_power_of_2(d_state))
    n_p_blocks = triton.cdiv(headdim, block_p)
    _decay_kernel[n_chunks, triton.cdiv(nheads, BLOCK_HEADS), batch](
        dt,
        A,
        decay,
        length,
        padded,
        chunk,
        nheads,
        *dt.stride(),
        A.stride(0),
        BLOCK_Q=triton.next_power_of_2(chunk),
        BLOCK_H=BLOCK_HEADS,
    )

    def give_states(n: int, positions: Tensor | None, out: Tensor) -> None:
        _state_kernel[n, nheads, batch * n_p_blocks](
            x,
            dt,
            B,
            decay,
            numbers,
            positions,
            starts,
            out,
            left,
            length,
            padded,
            chunk,
            n_chunks,
            nheads,
            nheads // ngroups,
            headdim,
            d_state,
            *x.stride(),
            *dt.stride(),
            *B.stride(),
            HAS_STARTS=numbers is not None,
            AT_POSITIONS=positions is not None,
            BLOCK_S=block_t,
            BLOCK_P=block_p,
            BLOCK_N=block_n,
        )

    give_states(n_chunks, None, starts)
    _passing_kernel[triton.cdiv(headdim * d_state, BLOCK_STATE), nheads, batch](
        starts,
        left,
        initial_state,
        after,
        n_chunks,
        nheads,
        headdim,
        d_state,
        *initial_state.stride(),
        BLOCK=BLOCK_STATE,
    )
    _scan_kernel[n_chunks * triton.cdiv(chunk, block_t), nheads, batch * n_p_blocks](
        x,
        dt,
        B,
        C,
        D,
        decay,
        numbers,
        starts,
        y,
        length,
        padded,
        chunk,
        nheads,
        nheads // ngroups,
        headdim,
        d_state,
        *x.stride(),
        *dt.stride(),
        *B.stride(),
        *C.stride(),
        0 if D is None else D.stride(0),
        HAS_D=D is not None,
        HAS_STARTS=numbers is not None,
        BLOCK_T=block_t,
        BLOCK_P=block_p,
        BLOCK_N=block_n,
    )
    if n_positions:
        give_states(n_positions, _on_device(tuple(state_positions), x.device), states)
    return y, after, states


# The layers of a model ask for the same ones, one after the other.
@lru_cache(maxsize=8)
def _on_device(positions: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(positions, dtype=torch.int32, device=device)


@lru_cache(maxsize=8)
def _numbers(sequence_starts: tuple[int, ...], length: int, device: torch.device) -> Tensor:
    """Give the number of each token's sequence, from 0, which goes on from the initial state."""
    firsts = torch.zeros(length, dtype=torch.int32)
    firsts[list(sequence_starts)] = 1
    return firsts.cumsum(0, dtype=torch.int32).to(device)
