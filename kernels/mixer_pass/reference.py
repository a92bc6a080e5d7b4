"""Convolution, step sizes and recurrence of a short run, one after the other: the specification."""

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.causal_conv1d.reference import causal_conv1d
from kernels.ssm_pass.parallel import ssm_pass


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
    """Give the outputs of l tokens that follow the states, and what the recurrence took in.

    xBC (batch, l, conv_dim) and dt (batch, l, nheads), as projected; weight (conv_dim, d_conv) and
    bias (conv_dim,) or None of the convolution; dt_bias, A_log, D (nheads,); conv_state (batch,
    d_conv - 1, conv_dim) and ssm_state (batch, nheads, headdim, d_state) float32, only read.
    conv_dim is nheads · headdim of x, then ngroups · d_state of B, then as many of C. Step sizes
    are softplus(dt + dt_bias), kept within dt_limit.
    Returns y and x (batch, l, nheads, headdim) and B (batch, l, ngroups, d_state) in the dtype of
    xBC, and the step sizes (batch, l, nheads) float32. Computes in float64 where all is float64.
    """
    work = torch.promote_types(ssm_state.dtype, torch.float32)
    d_inner = dt.shape[2] * headdim
    convolved, _ = causal_conv1d(xBC, weight, bias, conv_state)
    x, B, C = convolved.split((d_inner, *((xBC.shape[2] - d_inner) // 2,) * 2), dim=-1)
    x = x.unflatten(-1, (-1, headdim))
    B, C = B.unflatten(-1, (ngroups, -1)), C.unflatten(-1, (ngroups, -1))
    dt = F.softplus(dt.to(work) + dt_bias.to(work)).clamp(*dt_limit)
    return ssm_pass(x, dt, -torch.exp(A_log.to(work)), B, C, D, ssm_state), x, B, dt
