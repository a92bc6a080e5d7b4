"""Walking on from the end of a prompt, token by token, with as few passes as the tokens allow."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from engine.ahead import Ahead
from engine.cache import Checkpoint
from engine.run import Run, between, log_of
from kernels.sending import send

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from engine.decode import Work
    from engine.mamba2 import Mamba2, Pass
    from engine.state import RecurrentState


class Walk:
    """A position after a prompt, which is moved on token by token.

    What is ahead are tokens that were read from the same state already: a proposed continuation or
    copied text checked in one pass, or what an earlier answer wrote. As long as the walk follows
    them, steps cost nothing; where it leaves them, the state comes from their log. They never
    change where the walk goes.
    """

    def __init__(
        self,
        model: Mamba2,
        at: Checkpoint,
        work: Work,
        *,
        keep_rows: bool = False,
        known: dict[tuple[int, ...], Tensor] | None = None,
    ) -> None:
        """Stand at the end of `at`, whose state must stay valid; passes are counted in `work`.

        `known`: the logits (vocab_size,) after tokens from there that were tried before; what is
        tried now is added.
        """
        self.model, self.work = model, work
        self._at = at
        self.tokens: list[int] = []
        self._known = {} if known is None else known
        self._row: Tensor | None = self._first_row()
        # Row i predicted token i.
        self.rows: list[Tensor] | None = [] if keep_rows else None
        # Computed when a pass needs it: what is ahead may be all there is to walk.
        self._state: Callable[[], RecurrentState] = lambda: at.state
        self._runs: list[Run] = []
        self._ahead: Ahead | None = None
        self._n_followed = 0

    @property
    def row(self) -> Tensor:
        """Give the logits (vocab_size,) float32 that predict the next token."""
        if self._row is None:
            assert self._ahead is not None, "only behind what is ahead a row may be unknown"
            self._row = self._row_at(self._ahead, self._n_followed - 1)
        return self._row

    def propose(self, tokens: Sequence[int]) -> None:
        """Read a run ahead, from where the walk stands, in one pass."""
        self._settle()
        if tokens:
            self.lay_ahead(Ahead.of_pass(tuple(tokens), self._read(tuple(tokens))))

    def lay_ahead(self, ahead: Ahead) -> None:
        """Lay what was read from where the walk stands ahead of it."""
        self._settle()
        self._ahead, self._n_followed = ahead, 0

    def row_after(self, path: tuple[int, ...]) -> tuple[Tensor, bool]:
        """Give the row after a path from here, and whether it took a pass; nothing moves."""
        if not path:
            return self.row, False
        n_known = self._n_followed + len(path)
        if self._ahead is not None and self._ahead.tokens[self._n_followed : n_known] == path:
            return self._row_at(self._ahead, n_known - 1), False
        assert not self._n_followed, "paths are tried from the prompt's end"
        is_known = path in self._known
        if not is_known:
            logits = self.model(self._tensor(path), self._state()).logits
            # Of its own where it is one of several.
            self._known[path] = logits[-1] if len(logits) == 1 else logits[-1].clone()
        return self._known[path], not is_known

    def follow(self, path: Sequence[int]) -> bool:
        """Go on along a path; tell whether that took a pass."""
        left = tuple(path)
        while left and self.knows(left[0]):
            if self.rows is not None:
                self.rows.append(self.row)
            self._row = None
            self._n_followed += 1
            self.tokens.append(left[0])
            left = left[1:]
        if not left:
            return False
        row = self.row
        self._settle()
        result = self._read(left)
        # First, for it may fail: what was walked must stay what was noted.
        state = result.commit(len(left))
        self._state = lambda: state
        if self.rows is not None:
            self.rows += [row, *result.logits[:-1]]
        self.tokens.extend(left)
        self._runs.append(Run(left, result.log, result.hidden, result.logits))
        self._row = result.logits[-1]
        return True

    def knows(self, token_id: int) -> bool:
        """Tell whether going on with a token takes no pass."""
        ahead, n = self._ahead, self._n_followed
        return ahead is not None and n < len(ahead.tokens) and ahead.tokens[n] == token_id

    def fork(self, n: int, work: Work) -> Walk:
        """Stand on another walk after the first n tokens of this one; takes no pass."""
        keep_rows = self.rows is not None
        if not n:
            return Walk(self.model, self._at, work, keep_rows=keep_rows, known=self._known)
        at, runs = self._at, between(self.runs(), 0, n)
        ids = np.append(at.ids, np.asarray(self.tokens[:n], dtype=np.int32))
        last = runs[-1]
        forked = Checkpoint(
            ids,
            lambda: log_of(runs, n).replay(at.state, self.model.A, n),
            last.hidden[-1],
            last.row(len(last) - 1),
        )
        walk = Walk(self.model, forked, work, keep_rows=keep_rows)
        if self.rows is not None:
            walk.rows = self.rows[:n]
        return walk

    def runs(self) -> list[Run]:
        """Give what was walked."""
        if self._ahead is None:
            return list(self._runs)
        return self._runs + self._ahead.runs(self._n_followed)

    def _first_row(self) -> Tensor:
        row = self._known.get(()) if self._at.row is None else self._at.row
        if row is None:
            row = self._known[()] = self.model.logits(self._at.hidden)
        return row

    def _row_at(self, ahead: Ahead, i: int) -> Tensor:
        run, number = ahead.place(i)
        row = run.row(number)
        return self.model.logits(run.hidden[number]) if row is None else row

    def _settle(self) -> None:
        """Leave the run ahead: the state is that at the token up to which it was followed."""
        ahead, n = self._ahead, self._n_followed
        if ahead is None:
            return
        if n:
            row, runs = self.row, ahead.runs(n)
            self._row, self._state = row, cache(partial(ahead.state_after, n))
            self._runs += runs
        self._ahead, self._n_followed = None, 0

    def _read(self, tokens: tuple[int, ...]) -> Pass:
        self.work.n_passes += 1
        return self.model(self._tensor(tokens), self._state())

    def _tensor(self, tokens: tuple[int, ...]) -> Tensor:
        return send(tokens, self.model.device, torch.long)
