"""Walking on from the end of a prompt, token by token, with as few passes as the tokens allow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from engine.cache import Checkpoint
from engine.mamba2 import InputLog, Pass
from engine.sending import send

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from engine.decode import Work
    from engine.mamba2 import Mamba2


class Walk:
    """A position after a prompt. `row` (vocab_size,) float32 predicts the next token.

    `ahead` is a run of tokens that were read from the same state already: a proposed continuation
    or copied text checked in one pass, or what an earlier answer wrote. As long as the walk follows
    it, steps cost nothing; where it leaves it, the state comes from the run's log. It never changes
    where the walk goes.
    """

    def __init__(
        self, model: Mamba2, at: Checkpoint, work: Work, *, keep_rows: bool = False
    ) -> None:
        """Stand at the end of `at`, whose state must stay valid; passes are counted in `work`."""
        self.model, self.work = model, work
        self._at = at
        self.tokens: list[int] = []
        self.row = model.logits(at.hidden)
        # Row i predicted token i.
        self.rows: list[Tensor] | None = [] if keep_rows else None
        self._state = at.state
        self._runs: list[tuple[InputLog, Tensor]] = []
        self._ahead: Pass | None = None
        self._ahead_tokens: tuple[int, ...] = ()
        self._n_followed = 0

    def propose(self, tokens: Sequence[int], known: Pass | None = None) -> None:
        """Lay a run ahead, from where the walk stands; read in one pass unless it is known."""
        self._settle()
        if not tokens:
            return
        if known is None:
            known = self._read(tuple(tokens))
        self._ahead, self._ahead_tokens, self._n_followed = known, tuple(tokens), 0

    def row_after(self, path: tuple[int, ...]) -> tuple[Tensor, bool]:
        """Give the row after a path from here, and whether it took a pass; nothing moves."""
        if not path:
            return self.row, False
        n_known = self._n_followed + len(path)
        if self._ahead is not None and self._ahead_tokens[self._n_followed : n_known] == path:
            return self._ahead.logits[n_known - 1], False
        assert not self._n_followed, "paths are tried from the prompt's end"
        return self.model(self._tensor(path), self._state).logits[-1], True

    def follow(self, path: Sequence[int]) -> bool:
        """Go on along a path; tell whether that took a pass."""
        left = tuple(path)
        while left and self._next_ahead() == left[0]:
            assert self._ahead is not None
            self._note(self.row)
            self.row = self._ahead.logits[self._n_followed]
            self._n_followed += 1
            self.tokens.append(left[0])
            left = left[1:]
        if not left:
            return False
        self._settle()
        result = self._read(left)
        # First, for it may fail: what was walked must stay what was noted.
        self._state = result.commit(len(left))
        self._note(self.row, *result.logits[:-1])
        self.tokens.extend(left)
        self._runs.append((result.log, result.hidden))
        self.row = result.logits[-1]
        return True

    def knows(self, token_id: int) -> bool:
        """Tell whether going on with a token takes no pass."""
        return self._next_ahead() == token_id

    def fork(self, n: int, work: Work) -> Walk:
        """Stand on another walk after the first n tokens of this one; takes no pass."""
        hidden, state = self._at.hidden, self._at.state
        walked = self.run() if n else None
        if walked is not None:
            _, log, rows = walked
            hidden, state = rows[n - 1], log.replay(state, self.model.A, n)
        ids = np.append(self._at.ids, np.asarray(self.tokens[:n], dtype=np.int32))
        return Walk(self.model, Checkpoint(ids, state, hidden), work)

    def run(self) -> tuple[list[int], InputLog, Tensor] | None:
        """Give what was walked: tokens, log and hidden rows; None where nothing was read."""
        runs = list(self._runs)
        if self._ahead is not None and self._n_followed:
            runs.append(
                (self._ahead.log.first(self._n_followed), self._ahead.hidden[: self._n_followed])
            )
        if not runs:
            return None
        log = InputLog.of_runs([log for log, _ in runs])
        return list(self.tokens), log, torch.cat([hidden for _, hidden in runs])

    def _next_ahead(self) -> int | None:
        if self._n_followed < len(self._ahead_tokens):
            return self._ahead_tokens[self._n_followed]
        return None

    def _settle(self) -> None:
        """Leave the run ahead: take the state at the token up to which it was followed."""
        if self._ahead is None:
            return
        if self._n_followed:
            self._state = self._ahead.commit(self._n_followed)
            self._runs.append(
                (self._ahead.log.first(self._n_followed), self._ahead.hidden[: self._n_followed])
            )
        self._ahead, self._ahead_tokens, self._n_followed = None, (), 0

    def _read(self, tokens: tuple[int, ...]) -> Pass:
        self.work.n_passes += 1
        return self.model(self._tensor(tokens), self._state)

    def _tensor(self, tokens: tuple[int, ...]) -> Tensor:
        return send(tokens, self.model.device, torch.long)

    def _note(self, *rows: Tensor) -> None:
        if self.rows is not None:
            self.rows.extend(rows)
