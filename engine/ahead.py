"""Tokens that were read already, for a walk to follow without a pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.run import Run, between, place

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engine.mamba2 import Pass
    from engine.state import RecurrentState


class Ahead:
    """Runs from one place on: a proposal read in one pass, or what an earlier answer wrote."""

    def __init__(
        self, runs: Sequence[Run], state_after: Callable[[int], RecurrentState], first: int = 0
    ) -> None:
        """Begin at token `first` of the runs; `state_after` gives the state n tokens from there."""
        self.state_after = state_after
        self._runs, self._first = tuple(runs), first
        self.tokens = tuple(token for run in self._runs for token in run.tokens)[first:]

    @classmethod
    def of_pass(cls, tokens: Sequence[int], result: Pass) -> Ahead:
        """Give what a pass over these tokens read."""
        return cls([Run(tokens, result.log, result.hidden, result.logits)], result.commit)

    def place(self, i: int) -> tuple[Run, int]:
        """Give the run that token i is of, and its number there."""
        return place(self._runs, self._first + i)

    def runs(self, n: int) -> list[Run]:
        """Give the runs of the first n tokens."""
        return between(self._runs, self._first, self._first + n)
