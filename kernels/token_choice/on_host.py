"""A choice on a CPU in few operations: to begin one of torch's costs more than what it computes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from kernels.token_choice.choice import Choice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from kernels.token_choice.choice import Copied


def choose(
    row: Tensor, ends: Tensor, steps: Sequence[int] = (), copied: Sequence[Copied] = ()
) -> Choice:
    """Choose from logits (vocab_size,) float32 on a CPU; arguments as in `reference`."""
    logits, end_ids = row.numpy(), ends.numpy()
    rest = logits
    if copied:
        # Copied tokens are weighed apart.
        rest = logits.copy()
        rest[[i for i, _, _ in copied]] = -np.inf
    own = rest.take(end_ids)
    of_rest, of_steps = _log_sum(own), [float(rest[i]) for i in steps]
    of_rest = _log_sum_of([of_rest, *of_steps])
    mass = _log_sum_of([of_rest, *(float(logits[i]) for i, _, _ in copied)])
    odds = {}
    for i, bias, slope in copied:
        log_prob = float(logits[i]) - mass
        odds[i] = log_prob if log_prob == -math.inf else bias + max(0.0, 1 + slope) * log_prob
    # What is subtracted from a logit.
    total = _log_sum_of([of_rest - mass, *odds.values()]) + mass if copied else mass
    given = {i: odd + mass - total for i, odd in odds.items()}
    best = [(i, log_prob) for i, log_prob in given.items() if i not in steps]
    for _ in range(min(2, len(own))):
        at = int(own.argmax())
        best.append((int(end_ids[at]), float(own[at]) - total))
        own[at] = -np.inf
    best.sort(key=lambda pair: -pair[1])
    return Choice(
        mass,
        best[: min(2, len(end_ids))],
        [given.get(i, logit - total) for i, logit in zip(steps, of_steps, strict=True)],
    )


def log_mass(row: Tensor) -> float:
    """Give the log-sum-exp of all logits (vocab_size,)."""
    return _log_sum(row.numpy())


def _log_sum(logits: NDArray[np.float32]) -> float:
    highest = float(logits.max(initial=-np.inf))
    if highest == -math.inf:
        return highest
    return highest + math.log(np.exp(logits - highest).sum(dtype=np.float64))


def _log_sum_of(logits: Sequence[float]) -> float:
    highest = max(logits)
    if highest == -math.inf:
        return highest
    return highest + math.log(math.fsum(math.exp(logit - highest) for logit in logits))
