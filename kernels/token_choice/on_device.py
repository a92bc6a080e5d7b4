"""A choice in torch's operations: nothing leaves the device before all of it is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kernels.sending import send
from kernels.token_choice.choice import Choice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kernels.token_choice.choice import Copied


def choose(
    row: Tensor, ends: Tensor, steps: Sequence[int] = (), copied: Sequence[Copied] = ()
) -> Choice:
    """Choose from logits (vocab_size,) on any device; arguments as in `reference`."""
    step_ids = send(steps, row.device, torch.long)
    log_probs, mass = distribution(row, torch.cat((ends, step_ids)), copied)
    best = log_probs[ends].topk(min(2, len(ends)))
    # In one piece: to read from a device is to wait for it.
    parts = (mass[None], best.values, ends[best.indices].double(), log_probs[step_ids])
    n = len(best.values)
    first, *rest = torch.cat(parts).tolist()
    pairs = zip(map(int, rest[n : 2 * n]), rest[:n], strict=True)
    return Choice(first, list(pairs), rest[2 * n :])


def log_mass(row: Tensor) -> float:
    """Give the log-sum-exp of all logits (vocab_size,)."""
    return float(row.double().logsumexp(0))


def distribution(row: Tensor, ids: Tensor, copied: Sequence[Copied] = ()) -> tuple[Tensor, Tensor]:
    """Give log-probabilities (vocab_size,) given that the next token is one of `ids`.

    And the log-sum-exp of their logits; both float64. `copied` as in `reference`.
    """
    own = row[ids].double()
    mass = own.logsumexp(0)
    log_probs = torch.full_like(row, -torch.inf, dtype=torch.float64)
    log_probs[ids] = own - mass
    if not copied:
        return log_probs, mass
    numbers = [number for one in copied for number in one]
    found, bias, slope = send(numbers, row.device, torch.float64).view(-1, 3).t()
    own = log_probs[found.long()]
    odds = bias + (1 + slope).clamp(min=0) * own
    log_probs[found.long()] = odds.masked_fill(own == -torch.inf, -torch.inf)
    return log_probs - log_probs.logsumexp(0), mass
