"""The recurrence as matrix products within chunks and a short scan between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from kernels.ssd_chunk_scan.reference import check_places

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

# exp(-40) is 4e-18, far below what float32 can add to anything of note. Without the floor, decays
# and their gradients reach the denormal range, where the backward pass ran 30 times slower.
MIN_LOG_DECAY = -40.0


def decay_factor(log_decay: Tensor, apart: Tensor | None = None) -> Tensor:
    """Give exp(log_decay), exactly 0 where it would vanish, and where `apart` is true."""
    vanishes = log_decay < MIN_LOG_DECAY
    if apart is not None:
        vanishes = vanishes | apart
    return torch.exp(log_decay.masked_fill(vanishes, -torch.inf))


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

    Differentiable. Decays and the carried state are float32; under autocast the products run in
    the autocast type.
    """
    batch, length, nheads, headdim = x.shape
    ngroups, d_state = B.shape[2:]
    ratio = nheads // ngroups
    check_places(length, state_positions, sequence_starts)
    if length == 0:
        states = initial_state.expand(len(state_positions), *initial_state.shape)
        return x.clone(), initial_state.clone(), states.clone()
    # A short run is one short chunk: padding a keystroke to 64 tokens would cost more than it.
    chunk = min(chunk_size, length)
    pad = -length % chunk
    if pad:
        # dt 0 neither decays the state nor adds to it, so padding changes nothing.
        x, B, C = (F.pad(t, (0, 0, 0, 0, 0, pad)) for t in (x, B, C))
        dt = F.pad(dt, (0, 0, 0, pad))
    n_chunks = (length + pad) // chunk
    dtype = x.dtype
    x_chunks = x.reshape(batch, n_chunks, chunk, ngroups, ratio, headdim).float()
    B_chunks = B.reshape(batch, n_chunks, chunk, ngroups, d_state).float()
    C_chunks = C.reshape(batch, n_chunks, chunk, ngroups, d_state).float()
    dt_chunks = dt.reshape(batch, n_chunks, chunk, ngroups, ratio).float()
    decay = torch.cumsum(dt_chunks * A.float().reshape(ngroups, ratio), dim=2)  # (b, c, q, g, r)
    bounds = Bounds(sequence_starts, n_chunks, chunk, x.device) if sequence_starts else None

    within = decay.permute(0, 1, 3, 4, 2)  # (b, c, g, r, q)
    causal = torch.ones(chunk, chunk, dtype=torch.bool, device=x.device).tril()
    # Masked before exp: above the diagonal the difference is positive and could overflow.
    gaps = (within[..., :, None] - within[..., None, :]).masked_fill(~causal, -torch.inf)
    mask = decay_factor(gaps, None if bounds is None else bounds.between)
    scores = torch.einsum("bclgn,bcsgn->bcgls", C_chunks, B_chunks)  # (b, c, g, q, q)
    dt_x = x_chunks * dt_chunks[..., None]  # (b, c, q, g, r, p)
    weights = scores[:, :, :, None] * mask  # (b, c, g, r, q, q)
    y = torch.einsum("bcgrls,bcsgrp->bclgrp", weights, dt_x)

    to_end = decay_factor(
        decay[:, :, -1:] - decay, None if bounds is None else bounds.to_end
    )  # (b, c, q, g, r)
    added = torch.einsum("bcsgn,bcsgrp->bcgrpn", B_chunks, dt_x * to_end[..., None]).float()
    from_start = decay_factor(
        decay, None if bounds is None else bounds.from_start
    )  # (b, c, q, g, r)
    chunk_decay = from_start[:, :, -1, ..., None, None]  # (b, c, g, r, 1, 1)
    state = initial_state.float().reshape(batch, ngroups, ratio, headdim, d_state)
    starts = []
    for c in range(n_chunks):
        starts.append(state)
        state = state * chunk_decay[:, c] + added[:, c]
    at_start = torch.stack(starts, dim=1)  # (b, c, g, r, p, n)
    carried = torch.einsum("bclgn,bcgrpn->bclgrp", C_chunks, at_start)
    y = y.float() + carried.float() * from_start[..., None]
    if D is not None:
        y = y + D.float().reshape(ngroups, ratio, 1) * x_chunks
    y = y.reshape(batch, n_chunks * chunk, nheads, headdim)[:, :length]

    states = state.new_empty((0, *initial_state.shape))
    if state_positions:
        inside = _states_inside(state_positions, decay, B_chunks, dt_x, at_start, bounds)
        states = inside.transpose(0, 1).reshape(-1, *initial_state.shape)
    kept = initial_state.dtype
    return y.to(dtype), state.reshape_as(initial_state).to(kept), states.to(kept)


def _states_inside(
    positions: Sequence[int],
    decay: Tensor,
    B_chunks: Tensor,
    dt_x: Tensor,
    at_start: Tensor,
    bounds: Bounds | None,
) -> Tensor:
    """Give the states (b, k, g, r, p, n) after these numbers of tokens, from their chunks alone."""
    n_chunks, chunk = decay.shape[1:3]
    at = [min(position // chunk, n_chunks - 1) for position in positions]
    n_read = [position - c * chunk for position, c in zip(positions, at, strict=True)]  # 0 to q
    decay_at = F.pad(decay, (0, 0, 0, 0, 1, 0))[:, at, n_read]  # (b, k, g, r)
    tokens = torch.arange(chunk, device=decay.device)
    unread = tokens >= torch.tensor(n_read, device=decay.device)[:, None]  # (k, q)
    gaps = decay_at[:, :, None] - decay[:, at]  # (b, k, q, g, r)
    gaps = gaps.masked_fill(unread[..., None, None], -torch.inf)
    forgotten = None
    if bounds is not None:
        number = bounds.numbers[at, n_read, None]  # (k, 1)
        other = bounds.numbers[at] != number  # (k, 1 + q)
        gaps = gaps.masked_fill(other[:, 1:, None, None], -torch.inf)
        forgotten = other[:, :1, None]
    weights = decay_factor(gaps)[..., None]
    added = torch.einsum("bksgn,bksgrp->bkgrpn", B_chunks[:, at], dt_x[:, at] * weights)
    left = decay_factor(decay_at, forgotten)[..., None, None]
    return at_start[:, at] * left + added.float()


class Bounds:
    """Which tokens belong to different sequences."""

    def __init__(
        self, sequence_starts: Sequence[int], n_chunks: int, chunk: int, device: torch.device
    ) -> None:
        """Number the sequences from 0, which goes on from the initial state."""
        firsts = torch.zeros(n_chunks * chunk, dtype=torch.long, device=device)
        firsts[list(sequence_starts)] = 1
        numbers = firsts.cumsum(0).reshape(n_chunks, chunk)
        before = F.pad(numbers[:-1, -1], (1, 0))[:, None]
        # Where a chunk stands after 0 to q of its tokens.
        self.numbers = torch.cat((before, numbers), dim=1)  # (c, 1 + q)
        # From the chunk's start to a token, and from a token to its end (c, q, 1, 1).
        self.from_start = (numbers != before)[..., None, None]
        self.to_end = (numbers != numbers[:, -1:])[..., None, None]
        # Between two tokens (c, 1, 1, q, q).
        self.between = (numbers[:, :, None] != numbers[:, None])[:, None, None]
