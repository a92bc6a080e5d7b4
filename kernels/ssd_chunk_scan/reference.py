"""The recurrence one token at a time: the specification."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    *,
    state_positions: Sequence[int] = (),
    sequence_starts: Sequence[int] = (),
) -> tuple[Tensor, Tensor, Tensor]:
    """Run `h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T`, `y_t = h_t C_t + D x_t` over l tokens.

    x (batch, l, nheads, headdim); dt (batch, l, nheads), after softplus; A (nheads,), negative;
    B, C (batch, l, ngroups, d_state), head h reads group h // (nheads / ngroups); D (nheads,) or
    None; initial_state (batch, nheads, headdim, d_state), not changed. `chunk_size` has no meaning
    here. `state_positions` are numbers of tokens, 0 to l in any order, after which the state is
    asked for. `sequence_starts` are tokens, 0 to l - 1, that begin a sequence of their own: the
    state is zero before each, so that several sequences can be laid end to end. Computes in
    float32, or in float64 when the state is float64.
    Returns y with the shape and dtype of x, the state after the last token, and the states at the
    positions (n_positions, batch, nheads, headdim, d_state). Raises ValueError for a position or a
    start out of range.
    """
    check_places(x.shape[1], state_positions, sequence_starts)
    work = torch.promote_types(initial_state.dtype, torch.float32)
    ratio = x.shape[2] // B.shape[2]
    heads_B, heads_C = (t.to(work).repeat_interleave(ratio, dim=2) for t in (B, C))  # (b, l, h, n)
    state = initial_state.to(work, copy=True)
    outputs, states = [], {0: state}
    for t in range(x.shape[1]):
        dt_t, x_t = dt[:, t].to(work), x[:, t].to(work)
        decay = torch.exp(dt_t * A.to(work))  # (b, h)
        if t in sequence_starts:
            decay = torch.zeros_like(decay)
        update = (dt_t[..., None] * x_t)[..., None] * heads_B[:, t, :, None]  # (b, h, p, n)
        state = state * decay[..., None, None] + update
        y = (state * heads_C[:, t, :, None]).sum(-1)  # (b, h, p)
        outputs.append(y if D is None else y + D.to(work)[:, None] * x_t)
        if t + 1 in state_positions:
            states[t + 1] = state
    y = torch.stack(outputs, dim=1) if outputs else torch.empty_like(x, dtype=work)
    at = [states[position] for position in state_positions]
    states_at = torch.stack(at) if at else state.new_empty((0, *state.shape))
    return y.to(x.dtype), state.to(initial_state.dtype), states_at.to(initial_state.dtype)


def check_places(
    length: int, state_positions: Sequence[int], sequence_starts: Sequence[int]
) -> None:
    """Raise ValueError for a state position or a sequence start that is out of range."""
    for position in state_positions:
        if not 0 <= position <= length:
            raise ValueError(f"a state is asked for after {position} of {length} tokens")
    for start in sequence_starts:
        if not 0 <= start < length:
            raise ValueError(f"a sequence starts at token {start} of {length}")
