"""The tokens that a document's last answer went through, and what it takes to stand at any."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from engine.ahead import Ahead
from engine.cache import Checkpoint
from engine.run import between, log_of, place

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from engine.run import Run
    from engine.state import RecurrentState

# Past that many tokens the trail's start moves up, to half as many behind its end.
MAX_TOKENS = 64
# Behind so many tokens logits are let go: whoever goes back farther computes a row again.
MAX_ROWS = 24
# Logits kept of what was tried besides: of the held-back text's other paths.
MAX_TRIED = 32


class Trail:
    """A state, the tokens read since, and the logs of their inputs.

    Deleting the last words, taking back a rejected draft or accepting a suggestion is a move along
    it, which costs no pass over the weights: the state at any token comes from the logs.
    """

    def __init__(self, start: Checkpoint, A: Tensor) -> None:
        """Begin at a checkpoint whose state nobody else will change; A (n_layers, nheads)."""
        self.start = start
        self.ids: NDArray[np.int32] = start.ids
        self._A = A
        self._runs: tuple[Run, ...] = ()
        self._run_bytes = 0
        self._states: dict[int, RecurrentState] = {}
        # At one place, by the tokens from there.
        self._rows: tuple[int, dict[tuple[int, ...], Tensor]] = (-1, {})

    @property
    def n_bytes(self) -> int:
        """Give the bytes of the states, logs and logits."""
        # Of copies, made at once: who counts may be on another thread than who decodes.
        states = {id(state): state.n_bytes for state in list(self._states.values())}
        states[id(self.start.state)] = self.start.state.n_bytes
        rows = sum(row.nbytes for row in list(self._rows[1].values()))
        return sum(states.values()) + self._run_bytes + rows

    def extend(self, run: Run) -> None:
        """Add tokens that were read at the trail's end."""
        kept, n_behind = [run.own()], len(run)
        for earlier in reversed(self._runs):
            kept.append(earlier if n_behind < MAX_ROWS else earlier.without_logits())
            n_behind += len(earlier)
        self._hold(kept[::-1])
        self.ids = np.append(self.ids, np.asarray(run.tokens, dtype=np.int32))

    def remember(self, n: int, state: RecurrentState) -> None:
        """Keep the state after the first n ids, so that standing there costs nothing."""
        self._states = {n: state}

    def rows(self, n: int) -> dict[tuple[int, ...], Tensor]:
        """Give the logits (vocab_size,) known after the first n ids and then some others.

        To be added to: by the tokens from there, which need not be on the trail. Those of the last
        place asked about are kept.
        """
        if self._rows[0] != n:
            self._rows = (n, {})
        if len(self._rows[1]) > MAX_TRIED:
            self._rows[1].clear()
        return self._rows[1]

    def common(self, ids: NDArray[np.int32]) -> int:
        """Give how many of `ids` can be walked along this trail; 0 when it starts elsewhere."""
        n = min(len(ids), len(self.ids))
        differs = np.flatnonzero(ids[:n] != self.ids[:n])
        n_common = int(differs[0]) if len(differs) else n
        return n_common if n_common >= len(self.start.ids) else 0

    def passes(self, ids: NDArray[np.int32]) -> bool:
        """Tell whether one can stand on this trail at the end of `ids`."""
        return len(ids) >= len(self.start.ids) and self.common(ids) == len(ids)

    def at(self, n: int) -> Checkpoint:
        """Give the checkpoint after the first n ids; n is within the trail.

        Its state is computed when it is first asked for: who goes on along the trail needs none.
        """
        n_since = n - len(self.start.ids)
        if n_since == 0:
            return self.start
        state = self._states.get(n) or partial(self._replayed(), n_since)
        run, i = place(self._runs, n_since - 1)
        return Checkpoint(self.ids[:n], state, run.hidden[i], run.row(i))

    def cut(self, n: int) -> None:
        """Forget what comes after the first n ids; n is within the trail."""
        if n < len(self.ids):
            self._hold(between(self._runs, 0, n - len(self.start.ids)))
            self.ids = self.ids[:n].copy()
            self._states = {at: state for at, state in self._states.items() if at <= n}
            if self._rows[0] > n:
                self._rows = (-1, {})

    def rest(self, n: int) -> Ahead | None:
        """Give what comes after the first n ids; None for nothing."""
        if n >= len(self.ids):
            return None
        n_since, replayed = n - len(self.start.ids), self._replayed()
        return Ahead(self._runs, lambda k: replayed(n_since + k), first=n_since)

    def move_up(self) -> None:
        """Let the trail start later once it is long."""
        n_since = len(self.ids) - len(self.start.ids)
        if n_since <= MAX_TOKENS:
            return
        n_new = len(self.ids) - MAX_TOKENS // 2
        start = self.at(n_new)
        start = Checkpoint(start.ids, start.state, start.hidden.clone())
        self._hold(between(self._runs, n_new - len(self.start.ids), n_since))
        self.start = start

    def _hold(self, runs: Sequence[Run]) -> None:
        """Hold these runs alone; all of them or nothing."""
        self._runs = tuple(run.own() for run in runs)
        self._run_bytes = sum(run.n_bytes for run in self._runs)

    def _replayed(self) -> Callable[[int], RecurrentState]:
        """Give what computes the state n tokens after the start, as the trail is now."""
        base, runs, A = self.start.state, self._runs, self._A
        return lambda n: log_of(runs, n).replay(base, A, n) if n else base
