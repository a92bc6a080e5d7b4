"""The depthwise convolution as one Triton kernel, for runs of any length."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from kernels.formulas import silu

if TYPE_CHECKING:
    from torch import Tensor

# One row of the tile costs a warp almost nothing, so short runs take few.
MAX_BLOCK_TOKENS, BLOCK_CHANNELS = 32, 64


@triton.jit
def convolved(
    x,
    weight,
    bias,
    conv_state,
    t,
    channel,
    length,
    n_channels,
    stride_x_l,
    stride_x_c,
    stride_w_c,
    stride_w_k,
    stride_s_l,
    stride_s_c,
    HAS_BIAS: tl.constexpr,
    D_CONV: tl.constexpr,
):
    """Give a float32 tile (tokens, channels) of the convolution, after SiLU.

    `t` and `channel` are int64 vectors; rows past the length and channels past the last hold no
    meaning. Inputs before the first token come from conv_state, whose dtype is that of x.
    """
    is_channel = (channel < n_channels)[None, :]
    sums = tl.zeros((t.shape[0], channel.shape[0]), dtype=tl.float32)
    for tap in tl.static_range(D_CONV):
        at = (t + (tap - (D_CONV - 1)))[:, None]
        taken = tl.where(
            at >= 0,
            x + at * stride_x_l + channel[None, :] * stride_x_c,
            conv_state + (at + (D_CONV - 1)) * stride_s_l + channel[None, :] * stride_s_c,
        )
        value = tl.load(taken, mask=(at < length) & is_channel, other=0.0)
        w = tl.load(
            weight + channel * stride_w_c + tap * stride_w_k, mask=channel < n_channels, other=0.0
        )
        sums += value.to(tl.float32) * w.to(tl.float32)[None, :]
    if HAS_BIAS:
        b = tl.load(bias + channel, mask=channel < n_channels, other=0.0)
        sums += b.to(tl.float32)[None, :]
    return silu(sums)


@triton.jit(do_not_specialize=["length"])
def _conv_kernel(
    x,
    weight,
    bias,
    conv_state,
    y,
    after,
    length,
    n_channels,
    stride_x_b,
    stride_x_l,
    stride_x_c,
    stride_w_c,
    stride_w_k,
    stride_s_b,
    stride_s_l,
    stride_s_c,
    HAS_BIAS: tl.constexpr,
    D_CONV: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    row = tl.program_id(2).to(tl.int64)
    t = tl.program_id(0).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    channel = tl.program_id(1).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)
    x += row * stride_x_b
    conv_state += row * stride_s_b
    tile = convolved(
        x,
        weight,
        bias,
        conv_state,
        t,
        channel,
        length,
        n_channels,
        stride_x_l,
        stride_x_c,
        stride_w_c,
        stride_w_k,
        stride_s_l,
        stride_s_c,
        HAS_BIAS,
        D_CONV,
    )
    y += (row * length + t[:, None]) * n_channels + channel[None, :]
    is_inside = (t < length)[:, None] & (channel < n_channels)[None, :]
    tl.store(y, tile.to(y.dtype.element_ty), mask=is_inside)
    if tl.program_id(0) == 0:
        is_channel = channel < n_channels
        for k in tl.static_range(D_CONV - 1):
            # The input so many tokens from the start; before it, what the state had there.
            at = tl.zeros_like(channel) + (length - (D_CONV - 1) + k)
            taken = tl.where(
                at >= 0,
                x + at * stride_x_l + channel * stride_x_c,
                conv_state + (at + (D_CONV - 1)) * stride_s_l + channel * stride_s_c,
            )
            kept = tl.load(taken, mask=is_channel, other=0.0).to(after.dtype.element_ty)
            tl.store(after + (row * (D_CONV - 1) + k) * n_channels + channel, kept, mask=is_channel)


def causal_conv1d(
    x: Tensor, weight: Tensor, bias: Tensor | None, conv_state: Tensor
) -> tuple[Tensor, Tensor]:
    """Convolve `x` over time; arguments and results as in `reference`, any strides.

    Raises ValueError where shapes do not fit together.
    """
    check_convolution(x, weight, bias, conv_state)
    batch, length, n_channels = x.shape
    d_conv = weight.shape[1]
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    after = torch.empty(conv_state.shape, dtype=conv_state.dtype, device=x.device)
    conv_state = conv_state.to(x.dtype)
    if not length:
        return y, after.copy_(conv_state)
    if not y.numel():
        return y, after
    block_t = min(MAX_BLOCK_TOKENS, triton.next_power_of_2(length))
    grid = (triton.cdiv(length, block_t), triton.cdiv(n_channels, BLOCK_CHANNELS), batch)
    _conv_kernel[grid](
        x,
        weight,
        weight if bias is None else bias,
        conv_state,
        y,
        after,
        length,
        n_channels,
        *x.stride(),
        *weight.stride(),
        *conv_state.stride(),
        HAS_BIAS=bias is not None,
        D_CONV=d_conv,
        BLOCK_T=block_t,
        BLOCK_C=BLOCK_CHANNELS,
    )
    return y, after


def check_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, conv_state: Tensor | None
) -> None:
    """Raise ValueError where the arguments of a convolution do not fit together."""
    if x.dim() != 3 or not x.is_floating_point():
        raise ValueError(
            f"x is {x.dtype} {tuple(x.shape)}, expected floating point (batch, l, channels)"
        )
    batch, _, n_channels = x.shape
    if weight.dim() != 2 or weight.shape[0] != n_channels or not weight.shape[1]:
        raise ValueError(f"weight is {tuple(weight.shape)}, expected ({n_channels}, d_conv)")
    if bias is not None and (bias.shape != (n_channels,) or not bias.is_contiguous()):
        raise ValueError(
            f"bias is {tuple(bias.shape)} of strides {bias.stride()},"
            f" expected ({n_channels},) without gaps"
        )
    expected = (batch, weight.shape[1] - 1, n_channels)
    if conv_state is not None and conv_state.shape != expected:
        raise ValueError(f"conv_state is {tuple(conv_state.shape)}, expected {expected}")
