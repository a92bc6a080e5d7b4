"""The recurrence one token at a time: the specification."""

import torch
from torch import Tensor


def ssd_chunk_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor,
    chunk_size: int = 64,
) -> tuple[Tensor, Tensor]:
    """Run `h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T`, `y_t = h_t C_t + D x_t` over l tokens.

    x (batch, l, nheads, headdim); dt (batch, l, nheads), after softplus; A (nheads,), negative;
    B, C (batch, l, ngroups, d_state), head h reads group h // (nheads / ngroups); D (nheads,) or
    None; initial_state (batch, nheads, headdim, d_state), not changed. `chunk_size` has no meaning
    here. Computes in float32, or in float64 when the state is float64.
    Returns y with the shape and dtype of x, and the state after the last token.
    """
    work = torch.promote_types(initial_state.dtype, torch.float32)
    ratio = x.shape[2] // B.shape[2]
    heads_B, heads_C = (t.to(work).repeat_interleave(ratio, dim=2) for t in (B, C))  # (b, l, h, n)
    state = initial_state.to(work, copy=True)
    outputs = []
    for t in range(x.shape[1]):
        dt_t, x_t = dt[:, t].to(work), x[:, t].to(work)
        decay = torch.exp(dt_t * A.to(work))  # (b, h)
        update = (dt_t[..., None] * x_t)[..., None] * heads_B[:, t, :, None]  # (b, h, p, n)
        state = state * decay[..., None, None] + update
        y = (state * heads_C[:, t, :, None]).sum(-1)  # (b, h, p)
        outputs.append(y if D is None else y + D.to(work)[:, None] * x_t)
    y = torch.stack(outputs, dim=1) if outputs else torch.empty_like(x, dtype=work)
    return y.to(x.dtype), state.to(initial_state.dtype)
