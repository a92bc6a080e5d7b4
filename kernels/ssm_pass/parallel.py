"""Pass and commit for up to a few dozen tokens without a loop over them."""

import torch
from torch import Tensor


def ssm_pass(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, ssm_state: Tensor
) -> Tensor:
    """Give the outputs of l tokens that follow `ssm_state`; arguments as in `reference`.

    The work within the run grows with l squared: meant for short runs.
    """
    batch, length, nheads, headdim = x.shape
    ngroups = B.shape[2]
    ratio = nheads // ngroups
    work = torch.promote_types(ssm_state.dtype, torch.float32)
    work_C = C.to(work).transpose(1, 2)  # (b, g, l, n)
    grouped = ssm_state.reshape(batch, ngroups, ratio * headdim, -1)  # (b, g, r p, n)
    y = torch.matmul(work_C, grouped.transpose(2, 3))  # (b, g, l, r p)
    y = y.reshape(batch, ngroups, length, ratio, headdim).permute(0, 2, 1, 3, 4)
    y = y.reshape(batch, length, nheads, headdim)
    dt, work_x = dt.to(work), x.to(work)
    decay = torch.cumsum(dt * A.to(work), dim=1)  # (b, l, h)
    y = y * torch.exp(decay)[..., None]
    scores = torch.matmul(work_C, B.to(work).permute(0, 2, 3, 1))  # (b, g, l, l)
    if length == 1:
        weights = scores.reshape(batch, 1, ngroups).repeat_interleave(ratio, dim=2) * dt
        y = y + weights[..., None] * work_x
    else:
        within = decay.transpose(1, 2)  # (b, h, l)
        causal = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        gaps = (within[..., :, None] - within[..., None, :]).masked_fill(~causal, -torch.inf)
        weights = scores.repeat_interleave(ratio, dim=1) * torch.exp(gaps)  # (b, h, l, l)
        y = y + torch.matmul(weights, (work_x * dt[..., None]).transpose(1, 2)).transpose(1, 2)
    if D is not None:
        y = y + D.to(work)[:, None] * work_x
    return y.to(x.dtype)


def ssm_commit(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, ssm_state: Tensor, n: int) -> Tensor:
    """Give the state after the first n of l tokens; arguments as in `reference`."""
    if n == 0:
        return ssm_state.clone()
    batch, _, nheads, headdim = x.shape
    ngroups, d_state = B.shape[2:]
    work = torch.promote_types(ssm_state.dtype, torch.float32)
    dt = dt[:, :n].to(work)
    A = A.to(work)
    decay = torch.cumsum(dt * (A if A.dim() == 1 else A[:, None]), dim=1)  # (b, n, h)
    weights = torch.exp(decay[:, -1:] - decay) * dt  # (b, n, h)
    scaled = x[:, :n].to(work) * weights[..., None]  # (b, n, h, p)
    scaled = scaled.reshape(batch, n, ngroups, -1).permute(0, 2, 3, 1)  # (b, g, r p, n)
    added = torch.matmul(scaled, B[:, :n].to(work).transpose(1, 2))  # (b, g, r p, d_state)
    added = added.reshape(batch, nheads, headdim, d_state)
    return torch.addcmul(added, ssm_state, torch.exp(decay[:, -1])[..., None, None])
