"""A choice by the probabilities of all tokens, in float64: the specification."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kernels.token_choice.choice import Choice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kernels.token_choice.choice import Copied


def choose(
    row: Tensor, ends: Tensor, steps: Sequence[int] = (), copied: Sequence[Copied] = ()
) -> Choice:
    """Choose among `ends` and `steps`, ids without a common one, by logits (vocab_size,).

    ends (n,) on the row's device. Each of `copied` is among ends or steps: of probability p by the
    logits alone, it gets the odds exp(bias) p^(1 + slope) against the others, which keep their p;
    an exponent below 0 is 0, and probability 0 stays 0.
    """
    logits = row.double().tolist()
    asked = [*ends.tolist(), *steps]
    highest = max(logits[i] for i in asked)
    mass = math.log(math.fsum(math.exp(logits[i] - highest) for i in asked)) + highest
    odds = {i: math.exp(logits[i] - mass) for i in asked}
    for i, bias, slope in copied:
        if odds[i]:
            odds[i] = math.exp(bias) * odds[i] ** max(0.0, 1 + slope)
    total = math.fsum(odds.values())
    log_probs = {i: math.log(odd / total) if odd else -math.inf for i, odd in odds.items()}
    best = sorted(ends.tolist(), key=lambda i: -log_probs[i])[:2]
    pairs = [(i, log_probs[i]) for i in best]
    return Choice(mass, pairs, [log_probs[i] for i in steps])


def log_mass(row: Tensor) -> float:
    """Give the log-sum-exp of all logits (vocab_size,)."""
    logits = row.double().tolist()
    highest = max(logits)
    return math.log(math.fsum(math.exp(logit - highest) for logit in logits)) + highest
