"""A whole short pass from the operations' references: the specification."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from kernels.cpu_pass.outputs import PassOutputs
from kernels.quantized_linear import QuantizedWeight
from kernels.ssm_pass import reference

if TYPE_CHECKING:
    from torch import Tensor

    from kernels.cpu_pass.packing import ModelWeights


def short_pass(
    weights: ModelWeights, tokens: Tensor, conv_state: Tensor, ssm_state: Tensor
) -> PassOutputs:
    """Read l tokens from states that are only read, in the dtype of ssm_state.

    tokens (l,); conv_state (layers, d_conv - 1, conv_dim), oldest input first; ssm_state
    (layers, nheads, headdim, d_state).
    """
    work = ssm_state.dtype
    residual = F.embedding(tokens, _plain(weights.embeddings, work))
    parts = []
    for layer, conv_before, ssm_before in zip(weights.layers, conv_state, ssm_state, strict=True):
        nheads, headdim, d_state = ssm_before.shape
        d_inner, gn = nheads * headdim, weights.ngroups * d_state
        zxbcdt = F.linear(
            _norm(residual, layer.norm, weights.norm_eps), _plain(layer.in_proj, work)
        )
        z, xBC, dt = zxbcdt.split((d_inner, d_inner + 2 * gn, nheads), dim=-1)
        history = torch.cat((conv_before.to(work), xBC))  # (d_conv - 1 + l, conv_dim)
        convolved = F.conv1d(
            history.t()[None],
            layer.conv.to(work)[:, None],
            None if layer.conv_bias is None else layer.conv_bias.to(work),
            groups=len(layer.conv),
        )[0].t()
        convolved = F.silu(convolved)
        dt = F.softplus(dt + layer.dt_bias.to(work)).clamp(*weights.dt_limit)
        x, B, C = convolved.split((d_inner, gn, gn), dim=-1)
        x = x.reshape(1, -1, nheads, headdim)
        B, C = (part.reshape(1, -1, weights.ngroups, d_state) for part in (B, C))
        y = reference.ssm_pass(x, dt[None], layer.A, B, C, layer.D, ssm_before[None])
        ssm_after = reference.ssm_commit(x, dt[None], layer.A, B, ssm_before[None], len(xBC))
        gated = y[0].flatten(1) * F.silu(z)
        groups = gated.unflatten(-1, (weights.ngroups, -1))
        normed = _norm(
            groups, layer.gate_norm.unflatten(0, (weights.ngroups, -1)), weights.norm_eps
        )
        residual = residual + F.linear(normed.flatten(1), _plain(layer.out_proj, work))
        conv_after = history[len(xBC) :]
        parts.append((xBC, x[0], B[0], dt, conv_after, ssm_after[0]))
    hidden = _norm(residual, weights.norm_f, weights.norm_eps)
    logits = F.linear(hidden, _plain(weights.head, work))
    return PassOutputs(logits, hidden, *(torch.stack(part) for part in zip(*parts, strict=True)))


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], None, eps) * weight.to(x.dtype)


def _plain(matrix: Tensor | QuantizedWeight, dtype: torch.dtype) -> Tensor:
    if isinstance(matrix, QuantizedWeight):
        return matrix.dequantize(dtype)
    return matrix.to(dtype)
