"""What a choice takes and gives."""

from __future__ import annotations

from typing import NamedTuple

# A token's id, and the bias and slope that its odds are made with.
Copied = tuple[int, float, float]


class Choice(NamedTuple):
    """Natural log-probabilities given that the token is one of those asked for.

    best: the two most probable of `ends` as (id, log-probability) pairs, the best first, fewer
    where there are fewer; steps: of each of `steps`; mass: the log-sum-exp of the logits asked for.
    """

    mass: float
    best: list[tuple[int, float]]
    steps: list[float]
