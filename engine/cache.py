"""Recurrent states by the tokens they have read: the longest cached prefix of a prompt."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from engine.state import RecurrentState

# The last tokens of a prefix find its candidates; the whole prefix is compared before it is used.
TAIL_TOKENS = 8


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The model's state after `ids`, and the hidden row (d_model,) that predicts what follows."""

    ids: NDArray[np.int32]
    state: RecurrentState
    hidden: Tensor

    @property
    def n_bytes(self) -> int:
        """Give the bytes of the state; the ids and the hidden row are small beside it."""
        return self.state.n_bytes + self.ids.nbytes + self.hidden.nbytes


class StateCache:
    """Checkpoints under a byte budget; the least recently used go first.

    Not safe to use from several threads: the engine's thread owns it.
    """

    def __init__(self, budget_bytes: int) -> None:
        """Make an empty cache; ValueError when the budget is negative."""
        if budget_bytes < 0:
            raise ValueError(f"budget_bytes is {budget_bytes}, expected 0 or more")
        self.budget_bytes = budget_bytes
        self.n_bytes = 0
        self.n_hits = self.n_misses = self.n_evictions = 0
        self._by_use: OrderedDict[int, Checkpoint] = OrderedDict()
        self._by_tail: dict[tuple[int, bytes], list[int]] = {}
        self._lengths: dict[int, int] = {}
        self._next_key = 0

    def __len__(self) -> int:
        """Give the number of checkpoints."""
        return len(self._by_use)

    def longest_prefix(self, ids: NDArray[np.int32]) -> Checkpoint | None:
        """Give the checkpoint with the longest ids that `ids` starts with."""
        for length in sorted((n for n in self._lengths if n <= len(ids)), reverse=True):
            key = self._find(ids[:length])
            if key is not None:
                self._by_use.move_to_end(key)
                self.n_hits += 1
                return self._by_use[key]
        self.n_misses += 1
        return None

    def add(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint, unless it is there already or larger than the budget."""
        known = self._find(checkpoint.ids)
        if known is not None:
            self._by_use.move_to_end(known)
            return
        if checkpoint.n_bytes > self.budget_bytes:
            return
        key, self._next_key = self._next_key, self._next_key + 1
        length = len(checkpoint.ids)
        self._by_use[key] = checkpoint
        self._by_tail.setdefault(_tail(checkpoint.ids), []).append(key)
        self._lengths[length] = self._lengths.get(length, 0) + 1
        self.n_bytes += checkpoint.n_bytes
        while self.n_bytes > self.budget_bytes:
            self._evict()

    def replace(self, ids: Sequence[int], state: RecurrentState) -> None:
        """Put another state in the place of the one kept for `ids`: for seeded faults in tests."""
        key = self._find(np.asarray(ids, dtype=np.int32))
        if key is None:
            raise KeyError(f"no checkpoint for these {len(ids)} ids")
        old = self._by_use[key]
        self._by_use[key] = new = Checkpoint(old.ids, state, old.hidden)
        self.n_bytes += new.n_bytes - old.n_bytes

    def _find(self, ids: NDArray[np.int32]) -> int | None:
        for key in self._by_tail.get(_tail(ids), ()):
            if np.array_equal(self._by_use[key].ids, ids):
                return key
        return None

    def _evict(self) -> None:
        key, checkpoint = self._by_use.popitem(last=False)
        tail, length = _tail(checkpoint.ids), len(checkpoint.ids)
        self._by_tail[tail].remove(key)
        if not self._by_tail[tail]:
            del self._by_tail[tail]
        self._lengths[length] -= 1
        if not self._lengths[length]:
            del self._lengths[length]
        self.n_bytes -= checkpoint.n_bytes
        self.n_evictions += 1


def _tail(ids: NDArray[np.int32]) -> tuple[int, bytes]:
    return len(ids), ids[-TAIL_TOKENS:].tobytes()
