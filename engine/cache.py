"""Recurrent states by the tokens they have read: the longest cached prefix of a prompt."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from engine.slots import Slot, SlotPool, if_memory_allows
from engine.state import RecurrentState

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence

    import torch
    from numpy.typing import NDArray
    from torch import Tensor

# The last tokens of a prefix find its candidates; the whole prefix is compared before it is used.
TAIL_TOKENS = 8
# Going back d tokens may cost 2d + 8 more: so much farther may the next checkpoint stand.
SPACING_TOKENS = 10
# Checkpoints kept for one epoch of one document, those of abandoned texts included.
MAX_OWNED = 48


class Checkpoint:
    """The model's state after `ids`, and the hidden row (d_model,) that predicts what follows.

    `row` (vocab_size,): the logits that follow from it, where they are at hand.
    """

    def __init__(
        self,
        ids: NDArray[np.int32],
        state: RecurrentState | Callable[[], RecurrentState],
        hidden: Tensor,
        row: Tensor | None = None,
    ) -> None:
        """Hold them; a state that is given as a function is made when it is first asked for."""
        self.ids, self.hidden, self.row = ids, hidden, row
        self._state = state

    @property
    def state(self) -> RecurrentState:
        """Give the state, which is never changed."""
        if not isinstance(self._state, RecurrentState):
            self._state = self._state()
        return self._state


@dataclass(eq=False)
class Entry:
    """A checkpoint's place in the cache."""

    ids: NDArray[np.int32]
    hidden: Tensor
    owner: Hashable
    # The deepest shorter prefix that was cached when this was added, or took its place since.
    parent: Entry | None
    tier: int
    slot: Slot
    used: int
    n_leases: int = 0

    @property
    def n_saved(self) -> int:
        """Give the tokens that would be read again if this alone were missing."""
        return len(self.ids) - (0 if self.parent is None else len(self.parent.ids))


class Lease:
    """A cached checkpoint that stays valid until it is released."""

    def __init__(self, entry: Entry, checkpoint: Checkpoint, tier: int) -> None:
        """Hold the entry, which was found in that tier."""
        self.checkpoint, self.tier = checkpoint, tier
        self._entry = entry
        entry.n_leases += 1

    def __enter__(self) -> Checkpoint:
        """Give the checkpoint; its state is a view into the cache."""
        return self.checkpoint

    def __exit__(self, *_: object) -> None:
        """Let the entry go."""
        self._entry.n_leases -= 1


class StateCache:
    """Checkpoints in one or more tiers of slots, the first on the model's device.

    What has to leave a tier moves on to the next one, and out of the last; whatever saves the
    least work per byte, counted by how long ago it was of use, goes first. Running out of memory
    is a miss. Not safe to use from several threads: the engine's thread owns it.
    """

    def __init__(self, tiers: Sequence[SlotPool], device: torch.device | str = "cpu") -> None:
        """Make an empty cache over pools of slots; states are given out on `device`."""
        self.tiers, self.device = tuple(tiers), device
        self.counts: Counter[str] = Counter()
        self._by_tail: dict[tuple[int, bytes], list[Entry]] = {}
        self._lengths: Counter[int] = Counter()
        self._owned: dict[Hashable, list[Entry]] = {}
        self._tick = 0

    def __len__(self) -> int:
        """Give the number of checkpoints."""
        return sum(self._lengths.values())

    @property
    def n_bytes(self) -> int:
        """Give the bytes of all slots in use."""
        return sum(tier.n_bytes for tier in self.tiers)

    def known(self, ids: NDArray[np.int32]) -> int:
        """Give the length of the longest cached prefix of `ids`, without using it."""
        entry = self._longest(ids)
        return 0 if entry is None else len(entry.ids)

    def longest_prefix(self, ids: NDArray[np.int32], owner: Hashable = None) -> Lease | None:
        """Lease the checkpoint with the longest ids that `ids` starts with."""
        entry = self._longest(ids)
        if entry is None:
            self.counts["misses"] += 1
            return None
        self._use(entry, owner)
        tier = entry.tier
        if tier:
            self._promote(entry)
        with if_memory_allows("bring a cached state back"):
            state = self.tiers[entry.tier].read(entry.slot, self.device)
            self.counts[f"hits_tier{tier}"] += 1
            return Lease(entry, Checkpoint(entry.ids, state, entry.hidden), tier)
        self.counts["misses"] += 1
        return None

    def add(self, checkpoint: Checkpoint, owner: Hashable = None) -> bool:
        """Copy a checkpoint into the cache; False where there is no room, now or ever."""
        known = self._find(checkpoint.ids)
        if known is not None:
            self._use(known, owner)
            return True
        slot = self._filled(0, checkpoint.state)
        if slot is None:
            self.counts["refused"] += 1
            return False
        # Copied, or each checkpoint would keep the ids of the whole prompt alive.
        ids = checkpoint.ids.copy()
        entry = Entry(ids, checkpoint.hidden, owner, self._longest(ids), 0, slot, self._tick)
        self._by_tail.setdefault(_tail(ids), []).append(entry)
        self._lengths[len(ids)] += 1
        self._owned.setdefault(owner, []).append(entry)
        self._use(entry, owner)
        self._thin(entry)
        return True

    def checkpoints(self) -> Iterator[tuple[Checkpoint, Hashable]]:
        """Yield every checkpoint with its owner, the most recently used first.

        States are read when they are asked for, which is to be before anything else is kept.
        """
        entries = [entry for owned in self._owned.values() for entry in owned]
        for entry in sorted(entries, key=lambda entry: -entry.used):
            # Most are only looked at, and one that is not on the device is copied there.
            state = partial(self.tiers[entry.tier].read, entry.slot, self.device)
            yield Checkpoint(entry.ids, state, entry.hidden), entry.owner

    def unclaimed(self) -> Iterator[NDArray[np.int32]]:
        """Yield the ids of checkpoints that were added for nobody and have served nobody since."""
        for entry in self._owned.get(None, ()):
            yield entry.ids

    def replace(self, ids: Sequence[int], state: RecurrentState) -> None:
        """Put another state in the place of the one kept for `ids`: for seeded faults in tests."""
        entry = self._find(np.asarray(ids, dtype=np.int32))
        if entry is None:
            raise KeyError(f"no checkpoint for these {len(ids)} ids")
        self.tiers[entry.tier].write(entry.slot, state)

    def _longest(self, ids: NDArray[np.int32]) -> Entry | None:
        for length in sorted((n for n in self._lengths if n <= len(ids)), reverse=True):
            entry = self._find(ids[:length])
            if entry is not None:
                return entry
        return None

    def _find(self, ids: NDArray[np.int32]) -> Entry | None:
        for entry in self._by_tail.get(_tail(ids), ()):
            if np.array_equal(entry.ids, ids):
                return entry
        return None

    def _use(self, entry: Entry, owner: Hashable) -> None:
        self._tick += 1
        entry.used = self._tick
        if owner is not None and owner != entry.owner:
            self._disown(entry)
            entry.owner = owner
            self._owned.setdefault(owner, []).append(entry)

    def _disown(self, entry: Entry) -> None:
        owned = self._owned[entry.owner]
        owned.remove(entry)
        if not owned:
            del self._owned[entry.owner]

    def _thin(self, newest: Entry) -> None:
        """Keep the owner's checkpoints close together at the newest's end, ever sparser before it.

        For every d there stays one between d and 2d + 8 tokens back, and of n tokens O(log n).
        """
        owned = self._owned[newest.owner]
        n = len(newest.ids)
        chain = [
            entry
            for entry in owned
            if len(entry.ids) < n and np.array_equal(entry.ids, newest.ids[: len(entry.ids)])
        ]
        chain.sort(key=lambda entry: -len(entry.ids))
        kept = 0  # distance of the last one kept
        for entry, farther in pairwise(chain):
            if n - len(farther.ids) <= 2 * kept + SPACING_TOKENS and not entry.n_leases:
                self._drop(entry, "thinned")
            else:
                kept = n - len(entry.ids)
        while len(owned) > MAX_OWNED:
            free = [entry for entry in owned if not entry.n_leases and entry is not newest]
            if not free:
                return
            self._drop(min(free, key=self._worth), "thinned")

    def _worth(self, entry: Entry) -> float:
        """Give the work saved per byte (slots of a tier are of one size), fading with disuse."""
        return entry.n_saved / (1 + self._tick - entry.used)

    def _room(self, tier: int) -> Slot | None:
        """Give a free slot of a tier, moving what is worth least out of it."""
        pool = self.tiers[tier]
        slot = pool.acquire()
        if slot is not None or not pool.n_slots:
            return slot
        free = [
            entry
            for owned in self._owned.values()
            for entry in owned
            if entry.tier == tier and not entry.n_leases
        ]
        if not free:
            return None
        self._demote(min(free, key=self._worth))
        return pool.acquire()

    def _demote(self, entry: Entry) -> None:
        below = entry.tier + 1
        if below < len(self.tiers) and self._move(entry, below):
            self.counts["spilled"] += 1
        else:
            self._drop(entry, "evicted")

    def _promote(self, entry: Entry) -> None:
        """Move an entry to the first tier, if there is room to be had."""
        entry.n_leases += 1  # or making room could take it
        try:
            self._move(entry, 0)
        finally:
            entry.n_leases -= 1

    def _move(self, entry: Entry, tier: int) -> bool:
        """Move an entry's state to another tier; it stays where it is if that has no room."""
        pool = self.tiers[entry.tier]
        slot = None
        with if_memory_allows("move a cached state"):
            slot = self._filled(tier, pool.read(entry.slot, self.device))
        if slot is None:
            return False
        pool.release(entry.slot)
        entry.tier, entry.slot = tier, slot
        return True

    def _filled(self, tier: int, state: RecurrentState) -> Slot | None:
        """Give a slot of a tier with this state in it; None where there is no room."""
        slot = self._room(tier)
        if slot is None:
            return None
        with if_memory_allows("keep a state"):
            self.tiers[tier].write(slot, state)
            return slot
        self.tiers[tier].release(slot)
        return None

    def _drop(self, entry: Entry, why: str) -> None:
        tail = _tail(entry.ids)
        self._by_tail[tail].remove(entry)
        if not self._by_tail[tail]:
            del self._by_tail[tail]
        self._lengths[len(entry.ids)] -= 1
        if not self._lengths[len(entry.ids)]:
            del self._lengths[len(entry.ids)]
        self._disown(entry)
        for owned in self._owned.values():
            for child in owned:
                if child.parent is entry:
                    child.parent = entry.parent
        self.tiers[entry.tier].release(entry.slot)
        self.counts[why] += 1


def _tail(ids: NDArray[np.int32]) -> tuple[int, bytes]:
    return len(ids), ids[-TAIL_TOKENS:].tobytes()
