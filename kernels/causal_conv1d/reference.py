"""Depthwise causal convolution, SiLU, with the last taps carried from call to call."""

import torch
from torch import Tensor
from torch.nn import functional as F


def causal_conv1d(
    x: Tensor, weight: Tensor, bias: Tensor | None, conv_state: Tensor
) -> tuple[Tensor, Tensor]:
    """Convolve `x` over time, each channel by itself, and apply SiLU.

    x (batch, l, channels); weight (channels, d_conv); bias (channels,) or None;
    conv_state (batch, d_conv - 1, channels): the inputs just before `x`, oldest first; not
    changed. Accumulates in float32, or in float64 when x is float64.
    Returns y with the shape and dtype of x, and the state after `x` in conv_state's dtype.
    """
    length, d_conv = x.shape[1], weight.shape[1]
    padded = torch.cat((conv_state.to(x.dtype), x), dim=1)  # (b, d_conv - 1 + l, c)
    work = torch.promote_types(x.dtype, torch.float32)
    taps = weight.to(work).t()  # (d_conv, c)
    y = padded[:, :length].to(work) * taps[0]
    for tap in range(1, d_conv):
        y = y + padded[:, tap : tap + length].to(work) * taps[tap]
    if bias is not None:
        y = y + bias.to(work)
    return F.silu(y).to(x.dtype), padded[:, length:].to(conv_state.dtype)
