"""The search for the tokens that spell the held-back text."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kernels.token_choice import choose, log_mass

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from torch import Tensor

    from engine.copying import Candidate, Copier
    from engine.decode import Work
    from engine.vocabulary_trie import VocabularyTrie
    from engine.walk import Walk

MAX_PASSES = 32


@dataclass(frozen=True, order=True)
class CoverStep:
    """A token on a covering path; `log_prob` among the tokens that agree with the bytes left.

    `second` is the next best token that reaches the end there, with its log-probability.
    """

    token_id: int
    log_prob: float
    second: tuple[int, float] | None = None


class Covering:
    """All token paths whose bytes start with some held-back ones, the most probable first.

    A path ends with the token that reaches the end of `held`. What is probable after a path is the
    model's distribution, and within the tokens that agree with the bytes left, copying's share.
    """

    def __init__(
        self, trie: VocabularyTrie, copier: Copier | None, row: Tensor, held: bytes
    ) -> None:
        """Begin where `row` (vocab_size,) predicts the first token."""
        self._trie, self._copier = trie, copier
        # (-log probability, path, bytes of `held` left); a whole path has none left.
        self._frontier: list[tuple[float, tuple[CoverStep, ...], bytes]] = []
        self.candidates = self._expand(0.0, (), held, row)

    @property
    def first(self) -> CoverStep:
        """Give the first token of the path that is best so far."""
        return self._frontier[0][1][0]

    def search(self, walk: Walk, work: Work) -> Generator[None, None, tuple[CoverStep, ...]]:
        """Give the best path; `walk` stands at its start and is not moved.

        Best-first: paths are expanded in the order of their probability, so the first whole one is
        the best; an expansion is one read-only pass. Yields after every pass.
        """
        frontier = self._frontier
        for _ in range(MAX_PASSES):
            cost, path, left = heapq.heappop(frontier)
            if not left:
                return path
            row, took_pass = walk.row_after(tuple(step.token_id for step in path))
            self._expand(cost, path, left, row)
            if took_pass:
                work.n_healing_passes += 1
                yield
        # The search was given up: any covering path will do.
        whole = [entry for entry in frontier if not entry[2]]
        if whole:
            return min(whole)[1]
        cost, path, left = min(frontier)
        # Taken for the bytes alone, so as if there were no choice.
        return (*path, *(CoverStep(token_id, 0.0) for token_id in self._spelled(left)))

    def _expand(
        self, cost: float, path: tuple[CoverStep, ...], left: bytes, row: Tensor
    ) -> list[Candidate]:
        """Add the ways on from a path to the frontier; give what may be copied there."""
        partial, complete = self._trie.covering(left)
        candidates = [] if self._copier is None else self._copier.candidates(left=left)
        choice = choose(
            row,
            complete,
            [token_id for token_id, _ in partial],
            [] if self._copier is None else self._copier.odds(candidates),
        )

        agreeing = choice.mass - log_mass(row)

        def push(step: CoverStep, left: bytes) -> None:
            value = cost - agreeing - step.log_prob
            heapq.heappush(self._frontier, (value, (*path, step), left))

        if choice.best:
            second = choice.best[1] if len(choice.best) > 1 else None
            push(CoverStep(*choice.best[0], second), b"")
        for (token_id, n_bytes), log_prob in zip(partial, choice.steps, strict=True):
            push(CoverStep(token_id, log_prob), left[n_bytes:])
        return candidates

    def _spelled(self, text: bytes) -> Iterator[int]:
        """Yield pieces for exactly these bytes, the longest each time; single bytes always fit."""
        while text:
            # One byte more, so that pieces of all of `text` count as partial.
            token_id, n_bytes = self._trie.covering(text + b"\0")[0][-1]
            yield token_id
            text = text[n_bytes:]
