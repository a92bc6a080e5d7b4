"""The tokens that a document's last answer went through, and what it takes to stand at any."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from engine.cache import Checkpoint
from engine.mamba2 import InputLog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from engine.state import RecurrentState

# Past that many tokens the trail's start moves up, to half as many behind its end.
MAX_TOKENS = 64


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
        self._logs: list[InputLog] = []
        self._hidden: list[Tensor] = []
        self._states: dict[int, RecurrentState] = {}

    @property
    def n_bytes(self) -> int:
        """Give the bytes of the states and logs."""
        # Of copies, made at once: who counts may be on another thread than who decodes.
        states = {id(state): state.n_bytes for state in list(self._states.values())}
        states[id(self.start.state)] = self.start.state.n_bytes
        logs = sum(log.n_bytes for log in list(self._logs))
        return sum(states.values()) + logs + sum(hidden.nbytes for hidden in list(self._hidden))

    def extend(self, tokens: Sequence[int], log: InputLog, hidden: Tensor) -> None:
        """Add tokens that were read at the trail's end; hidden (l, d_model)."""
        self.ids = np.append(self.ids, np.asarray(tokens, dtype=np.int32))
        self._logs.append(log)
        self._hidden.append(hidden)

    def remember(self, n: int, state: RecurrentState) -> None:
        """Keep the state after the first n ids, so that standing there costs nothing."""
        self._states = {n: state}

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
        """Give the checkpoint after the first n ids; n is within the trail."""
        n_since = n - len(self.start.ids)
        if n_since == 0:
            return self.start
        state = self._states.get(n)
        if state is None:
            state = InputLog.of_runs(self._logs).replay(self.start.state, self._A, n_since)
        return Checkpoint(self.ids[:n], state, torch.cat(self._hidden)[n_since - 1])

    def cut(self, n: int) -> None:
        """Forget what comes after the first n ids; n is within the trail."""
        if n < len(self.ids):
            self._narrow(0, n - len(self.start.ids))
            self.ids = self.ids[:n].copy()
            self._states = {at: state for at, state in self._states.items() if at <= n}

    def rest(self, n: int) -> tuple[list[int], InputLog, Tensor] | None:
        """Give what comes after the first n ids: tokens, log, hidden rows; None when nothing."""
        if n >= len(self.ids):
            return None
        n_since = n - len(self.start.ids)
        log = InputLog.of_runs(self._logs)
        rest = InputLog(*(part[:, n_since:] for part in log.tensors))
        return self.ids[n:].tolist(), rest, torch.cat(self._hidden)[n_since:]

    def move_up(self) -> None:
        """Let the trail start later once it is long."""
        n_since = len(self.ids) - len(self.start.ids)
        if n_since <= MAX_TOKENS:
            return
        n_new = len(self.ids) - MAX_TOKENS // 2
        start = self.at(n_new)
        start = Checkpoint(start.ids, start.state, start.hidden.clone())
        self._narrow(n_new - len(self.start.ids), n_since)
        self.start = start

    def _narrow(self, first: int, last: int) -> None:
        """Keep the logs of these tokens alone, counted from the start; all of it or nothing."""
        if first == last:
            self._logs, self._hidden = [], []
            return
        log, hidden = InputLog.of_runs(self._logs), torch.cat(self._hidden)
        # Cloned, or the dropped part would stay in memory.
        narrow = InputLog(*(part[:, first:last].clone() for part in log.tensors))
        self._hidden = [hidden[first:last].clone()]
        self._logs = [narrow]
