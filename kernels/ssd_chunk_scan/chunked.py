"""The recurrence as matrix products within chunks and a short scan between them."""

import torch
from torch import Tensor
from torch.nn import functional as F

# exp(-40) is 4e-18, far below what float32 can add to anything of note. Without the floor, decays
# and their gradients reach the denormal range, where the backward pass ran 30 times slower.
MIN_LOG_DECAY = -40.0


def decay_factor(log_decay: Tensor) -> Tensor:
    """Give exp(log_decay), exactly 0 where it would vanish."""
    return torch.exp(log_decay.masked_fill(log_decay < MIN_LOG_DECAY, -torch.inf))


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
    """Run the recurrence over l tokens in chunks; arguments and results as in `reference`.

    Differentiable. Decays and the carried state are float32; under autocast the products run in
    the autocast type.
    """
    batch, length, nheads, headdim = x.shape
    ngroups, d_state = B.shape[2:]
    ratio = nheads // ngroups
    if length == 0:
        return x.clone(), initial_state.clone()
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

    within = decay.permute(0, 1, 3, 4, 2)  # (b, c, g, r, q)
    causal = torch.ones(chunk, chunk, dtype=torch.bool, device=x.device).tril()
    # Masked before exp: above the diagonal the difference is positive and could overflow.
    gaps = within[..., :, None] - within[..., None, :]
    mask = decay_factor(gaps.masked_fill(~causal, -torch.inf))
    scores = torch.einsum("bclgn,bcsgn->bcgls", C_chunks, B_chunks)  # (b, c, g, q, q)
    dt_x = x_chunks * dt_chunks[..., None]  # (b, c, q, g, r, p)
    weights = scores[:, :, :, None] * mask  # (b, c, g, r, q, q)
    y = torch.einsum("bcgrls,bcsgrp->bclgrp", weights, dt_x)

    to_end = decay_factor(decay[:, :, -1:] - decay)  # (b, c, q, g, r)
    added = torch.einsum("bcsgn,bcsgrp->bcgrpn", B_chunks, dt_x * to_end[..., None]).float()
    chunk_decay = decay_factor(decay[:, :, -1])[..., None, None]  # (b, c, g, r, 1, 1)
    state = initial_state.float().reshape(batch, ngroups, ratio, headdim, d_state)
    before = []
    for c in range(n_chunks):
        before.append(state)
        state = state * chunk_decay[:, c] + added[:, c]
    carried = torch.einsum("bclgn,bcgrpn->bclgrp", C_chunks, torch.stack(before, dim=1))
    y = y.float() + carried.float() * decay_factor(decay)[..., None]
    if D is not None:
        y = y + D.float().reshape(ngroups, ratio, 1) * x_chunks
    y = y.reshape(batch, n_chunks * chunk, nheads, headdim)[:, :length]
    final = state.reshape(batch, nheads, headdim, d_state)
    return y.to(dtype), final.to(initial_state.dtype)
