from __future__ import annotations

import math
from itertools import accumulate, count, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cache import MAX_OWNED, TAIL_TOKENS, Checkpoint, StateCache
from engine.config import Mamba2Config
from engine.slots import SlotPool, slot_bytes
from engine.state import RecurrentState

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import NDArray

    from engine.cache import Lease

CONFIG = Mamba2Config(
    d_model=8, n_layers=1, vocab_size=8, d_state=4, headdim=8, ngroups=1, tie_embeddings=True
)
SLOT_BYTES = slot_bytes(CONFIG, torch.float32)
TAIL = [7] * TAIL_TOKENS


def array(ids: Sequence[int]) -> NDArray[np.int32]:
    return np.array(ids, dtype=np.int32)


def state_of(ids: Sequence[int]) -> RecurrentState:
    """Give a state that tells which ids it is of."""
    empty = RecurrentState.zeros(CONFIG)
    generator = torch.Generator().manual_seed(hash(tuple(ids)) % 2**60)
    return RecurrentState(
        torch.randn(empty.conv_state.shape, generator=generator),
        torch.randn(empty.ssm_state.shape, generator=generator),
    )


def checkpoint(ids: Sequence[int]) -> Checkpoint:
    return Checkpoint(array(ids), state_of(ids), torch.tensor([float(len(ids))]))


def pools(*n_slots: int, **options: Any) -> list[SlotPool]:
    return [SlotPool(CONFIG, n * SLOT_BYTES, **options) for n in n_slots]


def cache_of(*kept: Sequence[int], n_slots: Sequence[int] = (1000,)) -> StateCache:
    """Give a cache that was given these prefixes in this order, each by an owner of its own."""
    cache = StateCache(pools(*n_slots))
    for ids in kept:
        cache.add(checkpoint(ids), owner=tuple(ids))
    return cache


def check_state(found: Checkpoint) -> None:
    expected = state_of(found.ids.tolist())
    assert torch.equal(found.state.conv_state, expected.conv_state)
    assert torch.equal(found.state.ssm_state, expected.ssm_state)
    assert found.hidden.tolist() == [len(found.ids)]


def check_cache(cache: StateCache) -> None:
    """Hold that all that is kept is right, and that no slot is lost."""
    entries = [found for found, _ in cache.checkpoints()]
    for found in entries:
        check_state(found)
    assert len(cache) == len(entries) == len({tuple(found.ids) for found in entries})
    assert cache.n_bytes == len(cache) * SLOT_BYTES


def lease_of(cache: StateCache, ids: Sequence[int], owner: Hashable = None) -> Lease:
    lease = cache.longest_prefix(array(ids), owner)
    assert lease is not None
    return lease


def found(cache: StateCache, ids: Sequence[int], owner: Hashable = None) -> list[int] | None:
    lease = cache.longest_prefix(array(ids), owner)
    if lease is None:
        return None
    with lease as hit:
        check_state(hit)
        return hit.ids.tolist()


def kept_lengths(cache: StateCache) -> list[int]:
    return sorted(len(entry.ids) for entry, _ in cache.checkpoints())


@pytest.mark.parametrize(
    ("kept", "ids", "longest"),
    [
        pytest.param([], [1, 2], None, id="nothing kept"),
        pytest.param([[1, 2]], [1, 2], [1, 2], id="all of it"),
        pytest.param([[1], [1, 2], [1, 2, 3]], [1, 2, 4], [1, 2], id="longest that matches"),
        pytest.param([[1, 2, 3]], [1, 2], None, id="longer than asked"),
        pytest.param([[2]], [1, 2], None, id="an end is no prefix"),
        pytest.param([[1, 5], [2, 5, 6]], [2, 5, 6, 7], [2, 5, 6], id="other document"),
        pytest.param([[1, *TAIL], [2, *TAIL]], [2, *TAIL, 3], [2, *TAIL], id="same tail"),
        pytest.param([[1, *TAIL]], [2, *TAIL, 3], None, id="same tail, no match"),
        pytest.param([[1], [1, *TAIL]], [1, *TAIL[:-1]], [1], id="shorter match behind a longer"),
        pytest.param([[]], [1], [], id="the empty prefix"),
    ],
)
def test_longest_prefix(kept: list[list[int]], ids: list[int], longest: list[int] | None) -> None:
    cache = cache_of(*kept)
    assert cache.known(array(ids)) == len(longest or [])
    assert not cache.counts
    assert found(cache, ids) == longest
    assert cache.counts == ({"misses": 1} if longest is None else {"hits_tier0": 1})


def test_a_kept_state_is_a_copy() -> None:
    cache = StateCache(pools(2))
    added = checkpoint([1, 2])
    assert cache.add(added)
    added.state.conv_state.zero_()
    added.state.ssm_state.zero_()
    added.ids[:] = 0
    assert found(cache, [1, 2, 9]) == [1, 2]


def test_of_equal_worth_the_least_recently_used_goes_first() -> None:
    cache = cache_of([1], [2], [3], n_slots=[3])
    assert not cache.counts
    found(cache, [1, 9])  # used
    assert cache.add(checkpoint([2]))  # added again, which is a use too
    assert cache.add(checkpoint([4]))
    assert [found(cache, [i]) for i in (1, 2, 3, 4)] == [[1], [2], None, [4]]
    assert (len(cache), cache.counts["evicted"]) == (3, 1)


@pytest.mark.parametrize(
    ("kept", "n_idle", "gone"),
    [
        # Tokens saved over 1 + age; [7] was used last, at age n_idle, the others before it.
        pytest.param([[1] * 5, [2] * 9, [7]], 0, [7], id="saves least"),
        pytest.param([[1] * 5, [2] * 9, [7] * 4], 0, [1] * 5, id="5 / 3 before 9 / 2 and 4 / 1"),
        pytest.param([[1] * 5, [2] * 9, [7] * 4], 20, [7] * 4, id="5 / 23, 9 / 22, 4 / 21"),
        pytest.param([[1] * 90, [1] * 99, [2] * 10], 9, [1] * 99, id="saves what its parent lacks"),
    ],
)
def test_what_saves_least_for_its_age_goes_first(
    kept: list[list[int]], n_idle: int, gone: list[int]
) -> None:
    cache = cache_of(*kept, n_slots=[4])
    cache.add(checkpoint([6] * 900))
    for _ in range(n_idle):
        found(cache, [6] * 900)
    cache.add(checkpoint([5]))
    remaining = [entry.ids.tolist() for entry, _ in cache.checkpoints()]
    assert [ids for ids in kept if ids not in remaining] == [gone]
    check_cache(cache)


def test_a_parent_that_goes_leaves_its_work_to_its_children() -> None:
    cache = cache_of([1] * 10, [1] * 12, n_slots=[2])
    # 10 / 3 against 2 / 2: the child goes, though it is the deeper one.
    cache.add(checkpoint([2]))
    assert found(cache, [1] * 12) == [1] * 10
    cache = cache_of([1] * 12, [1] * 112, n_slots=[2])
    cache.add(checkpoint([2] * 53))  # in the place of the parent
    cache.add(checkpoint([3]))
    # Not 100 but 112 tokens, of age 1, against 53 of age 0.
    assert [len(entry.ids) for entry, _ in cache.checkpoints()] == [1, 112]


def test_a_duplicate_costs_nothing_and_keeps_the_first() -> None:
    cache = cache_of([1, 2])
    other = Checkpoint(array([1, 2]), state_of([9]), torch.zeros(1))
    assert cache.add(other)
    assert (len(cache), cache.n_bytes) == (1, SLOT_BYTES)
    assert found(cache, [1, 2]) == [1, 2]


@pytest.mark.parametrize("n_slots", [[], [0], [0, 3]], ids=str)
def test_without_a_slot_nothing_is_kept(n_slots: list[int]) -> None:
    cache = StateCache(pools(*(n_slots or [0])))
    assert not cache.add(checkpoint([1]))
    assert (len(cache), cache.n_bytes, found(cache, [1])) == (0, 0, None)
    assert cache.counts == {"refused": 1, "misses": 1}


def test_replace() -> None:
    cache = cache_of([1], [1, 2])
    cache.replace([1], state_of([9]))
    with lease_of(cache, [1, 3]) as hit:
        assert torch.equal(hit.state.ssm_state, state_of([9]).ssm_state)
    assert found(cache, [1, 2]) == [1, 2]
    with pytest.raises(KeyError, match="3 ids"):
        cache.replace([1, 2, 3], state_of([9]))


def test_checkpoints_come_with_their_owners_the_last_used_first() -> None:
    cache = cache_of([1], [2], [3])
    found(cache, [1])
    found(cache, [2], owner="someone")
    assert [(entry.ids.tolist(), owner) for entry, owner in cache.checkpoints()] == [
        ([2], "someone"),
        ([1], (1,)),
        ([3], (3,)),
    ]


def test_listing_checkpoints_reads_no_state(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = cache_of([1], [2], [3])
    read, n_read = SlotPool.read, count(1)

    def counted(*arguments: Any) -> RecurrentState:
        next(n_read)
        return read(*arguments)

    monkeypatch.setattr(SlotPool, "read", counted)
    listed = list(cache.checkpoints())
    assert [owner for _, owner in listed] == [(3,), (2,), (1,)]
    check_state(listed[1][0])
    assert next(n_read) == 2


# Leases


def test_a_leased_checkpoint_is_not_evicted() -> None:
    cache = cache_of([1], [2] * 50, n_slots=[2])
    with lease_of(cache, [1]) as hit:
        for i in range(3, 9):
            assert cache.add(checkpoint([i] * 60))
        check_state(hit)
        assert found(cache, [1]) == [1]
    for i in range(3, 9):
        cache.add(checkpoint([i] * 70))
    assert found(cache, [1]) is None


def test_two_leases_of_one_checkpoint_are_two() -> None:
    cache = cache_of([1], n_slots=[1])
    first, second = lease_of(cache, [1]), lease_of(cache, [1])
    with second as hit:
        with first:
            pass
        assert not cache.add(checkpoint([2]))
        check_state(hit)
    assert cache.add(checkpoint([2]))
    assert found(cache, [1]) is None


def test_where_all_is_leased_nothing_is_added() -> None:
    cache = cache_of([1], [2], n_slots=[2])
    with lease_of(cache, [1]), lease_of(cache, [2]):
        assert not cache.add(checkpoint([3]))
        assert cache.counts["refused"] == 1
        check_cache(cache)
    assert cache.add(checkpoint([3]))


def test_a_leased_checkpoint_is_not_thinned() -> None:
    ids = list(range(300))
    cache = StateCache(pools(100))
    for n in range(1, 74):
        cache.add(checkpoint(ids[:n]), "one")
    with lease_of(cache, ids[:73], "one") as hit:
        for n in range(74, 280):
            cache.add(checkpoint(ids[:n]), "one")
            assert 73 in kept_lengths(cache)
        check_state(hit)
    for n in range(280, 301):
        cache.add(checkpoint(ids[:n]), "one")
    assert 73 not in kept_lengths(cache)


def test_leased_checkpoints_may_be_more_than_an_owner_keeps() -> None:
    cache = StateCache(pools(100))
    leases = []
    for i in range(MAX_OWNED + 5):
        cache.add(checkpoint([i]), "one")
        leases.append(lease_of(cache, [i], "one"))
    assert len(cache) == MAX_OWNED + 5
    for lease in leases:
        with lease as hit:
            check_state(hit)
    cache.add(checkpoint([99]), "one")
    assert len(cache) == MAX_OWNED


# Thinning


def check_thinned(cache: StateCache, read: list[int]) -> None:
    """Hold that for each prefix read d tokens back, one is kept that is d to 2d + 8 back."""
    n = read[-1]
    kept = [n - length for length in kept_lengths(cache)]
    for length in read[:-1]:
        d = n - length
        assert any(d <= distance <= 2 * d + 8 for distance in kept), f"going back {d}"


@given(steps=st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_thinning_keeps_what_going_back_needs(steps: list[int]) -> None:
    read = list(accumulate(steps))
    ids = list(range(read[-1]))
    cache = StateCache(pools(100))
    for i, n in enumerate(read):
        cache.add(checkpoint(ids[:n]), "one")
        check_thinned(cache, read[: i + 1])
    check_cache(cache)


def test_n_tokens_need_log_n_checkpoints() -> None:
    ids = list(range(1500))
    cache = StateCache(pools(100))
    for n in range(1, 1501):
        cache.add(checkpoint(ids[:n]), "one")
        # Of three that follow one another, the last is more than twice as far back as the first.
        assert len(cache) <= 2 * math.log2(n / 10 + 1) + 3
        if n % 100 == 0:
            check_thinned(cache, list(range(1, n + 1)))
    assert len(cache) > 8
    assert cache.counts == {"thinned": 1500 - len(cache)}


def test_only_the_owners_own_checkpoints_on_the_way_are_thinned() -> None:
    ids = list(range(20))
    cache = StateCache(pools(100))
    cache.add(checkpoint(ids[:18]), "other")
    cache.add(checkpoint([*ids[:17], 99]), "one")
    for n in (16, 17, 19, 20):
        cache.add(checkpoint(ids[:n]), "one")
    # 17 and 19 are thinned: 16 is near enough. The other text is not on the way.
    assert kept_lengths(cache) == [16, 18, 18, 20]
    assert found(cache, [*ids[:17], 99]) == [*ids[:17], 99]


def test_who_uses_a_checkpoint_owns_it() -> None:
    ids = list(range(20))
    cache = StateCache(pools(100))
    for n in (10, 19):
        cache.add(checkpoint(ids[:n]), "one")
    found(cache, ids[:10], "two")
    found(cache, ids[:19], "two")
    cache.add(checkpoint(ids), "two")
    assert kept_lengths(cache) == [10, 20]
    assert {owner for _, owner in cache.checkpoints()} == {"two"}


def test_an_owner_keeps_so_many_at_most() -> None:
    cache = StateCache(pools(200))
    for i in range(100):
        cache.add(checkpoint([i] * (1 + i % 3)), "one")
        assert found(cache, [i] * 3, "one") == [i] * (1 + i % 3), "the newest stays"
        assert len(cache) <= MAX_OWNED
    assert len(cache) == MAX_OWNED
    cache.add(checkpoint([100]), "two")
    assert len(cache) == MAX_OWNED + 1
    check_cache(cache)


# Tiers


def test_what_leaves_a_tier_moves_on_and_comes_back() -> None:
    cache = cache_of([1], [2], [3], n_slots=[2, 2])
    assert cache.counts == {"spilled": 1}
    assert [tier.n_free for tier in cache.tiers] == [0, 1]
    lease = lease_of(cache, [1])
    with lease as hit:
        check_state(hit)
    assert lease.tier == 1, "where it was found"
    # [2] made room for it.
    assert cache.counts == {"spilled": 2, "hits_tier1": 1}
    assert lease_of(cache, [1]).tier == 0
    assert [tier.n_free for tier in cache.tiers] == [0, 1]
    check_cache(cache)


def test_what_leaves_the_last_tier_is_gone() -> None:
    cache = cache_of([1], [2], [3], [4], n_slots=[1, 2])
    assert cache.counts == {"spilled": 3, "evicted": 1}
    assert [entry.ids.tolist() for entry, _ in cache.checkpoints()] == [[4], [3], [2]]
    assert cache.n_bytes == 3 * SLOT_BYTES
    check_cache(cache)
    assert found(cache, [1]) is None
    # To come up, one needs a place below for what makes room: [3] goes, which is worth least.
    assert [found(cache, [i]) for i in (2, 4, 2, 4)] == [[2], [4], [2], [4]]
    assert cache.counts["evicted"] == 2


def test_from_a_full_first_tier_that_is_leased_it_is_read_where_it_is() -> None:
    cache = cache_of([1], [2], n_slots=[1, 1])
    with lease_of(cache, [2]):
        lease = lease_of(cache, [1])
        with lease as hit:
            check_state(hit)
            # Leased there too.
            assert not cache.add(checkpoint([3]))
            check_state(hit)
    assert lease.tier == 1
    check_cache(cache)


def test_a_leased_one_does_not_move() -> None:
    cache = cache_of([1], [2], n_slots=[2, 4])
    with lease_of(cache, [1]) as hit:
        for i in range(3, 7):
            cache.add(checkpoint([i]))
        check_state(hit)
        assert lease_of(cache, [1]).tier == 0


def test_promoting_does_not_evict_what_is_promoted() -> None:
    cache = cache_of([1] * 5, [2], n_slots=[1, 1])
    for i in (1, 2, 1, 2):
        hit = found(cache, [i] * 5)
        assert hit is None or set(hit) == {i}
        check_cache(cache)
    assert len(cache) >= 1


# Memory that runs out


class PoorPool(SlotPool):
    """Slots that lose what is written at some calls, as where memory runs out half-way."""

    def fail(self, method: str, which: set[int], error: Exception) -> None:
        self.failing, self.which, self.error, self.calls = method, which, error, count()

    def write(self, slot: Any, state: RecurrentState) -> None:
        if self.failing == "write" and next(self.calls) in self.which:
            super().write(slot, state_of([404]))
            raise self.error
        super().write(slot, state)

    def read(self, slot: Any, device: Any) -> RecurrentState:
        if self.failing == "read" and next(self.calls) in self.which:
            raise self.error
        return super().read(slot, device)


NO_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    RuntimeError("CUDA error: out of memory"),
]


@pytest.mark.parametrize("error", NO_MEMORY, ids=["device", "python", "host", "pinned"])
@pytest.mark.parametrize("method", ["write", "read"])
@pytest.mark.parametrize("tier", [0, 1])
def test_where_memory_runs_out_it_is_a_miss(tier: int, method: str, error: Exception) -> None:
    n_calls = 1
    n_misses = set()
    for first in range(-1, 200):
        poor = [PoorPool(CONFIG, n * SLOT_BYTES) for n in (2, 2)]
        for i, pool in enumerate(poor):
            pool.fail(method if i == tier else "", {first, first + 1}, error)
        cache = StateCache(poor)
        for i in (1, 2, 3, 4, 1, 5, 2, 1, 3, 5):
            hit = found(cache, [i])
            assert hit in (None, [i])
            if hit is None:
                cache.add(checkpoint([i]))
        n_calls = next(poor[tier].calls)
        poor[tier].failing = ""
        check_cache(cache)
        n_misses.add(cache.counts["misses"])
        if first > n_calls:
            break
    assert n_calls >= 3
    assert len(n_misses) > 1, "it never mattered"


def test_other_errors_are_not_taken_for_that() -> None:
    [pool] = poor = [PoorPool(CONFIG, SLOT_BYTES)]
    pool.fail("write", {0}, RuntimeError("a kernel failed"))
    with pytest.raises(RuntimeError, match="a kernel failed"):
        StateCache(poor).add(checkpoint([1]))


# Against a plain one

IDS = st.lists(st.integers(0, 1), max_size=4).flatmap(
    lambda ids: st.sampled_from([ids, [*ids, *TAIL], [*ids, *TAIL, 0]])
)

Key = tuple[int, ...]


class Naive:
    """The same by comparing every prefix: of each its last use, and the prefix it was built on."""

    def __init__(self, n_slots: int) -> None:
        self.n_slots, self.tick = n_slots, 0
        self.used: dict[Key, int] = {}
        self.parents: dict[Key, Key | None] = {}

    def use(self, key: Key) -> None:
        self.tick += 1
        self.used[key] = self.tick

    def longest(self, key: Key) -> Key | None:
        return max((k for k in self.used if key[: len(k)] == k), key=len, default=None)

    def worth(self, key: Key) -> float:
        return (len(key) - len(self.parents[key] or ())) / (1 + self.tick - self.used[key])

    def add(self, key: Key) -> None:
        if key not in self.used:
            if not self.n_slots:
                return
            if len(self.used) == self.n_slots:
                gone = min(self.used, key=self.worth)
                del self.used[gone]
                above = self.parents.pop(gone)
                self.parents = {k: above if p == gone else p for k, p in self.parents.items()}
            self.parents[key] = self.longest(key)
        self.use(key)


@given(
    n_slots=st.integers(0, 5),
    actions=st.lists(st.tuples(st.sampled_from(["add", "find"]), IDS)),
)
@settings(deadline=None)
def test_is_what_comparing_every_prefix_gives(
    n_slots: int, actions: list[tuple[str, list[int]]]
) -> None:
    cache, naive = cache_of(n_slots=[n_slots]), Naive(n_slots)
    for action, ids in actions:
        if action == "add":
            cache.add(checkpoint(ids), owner=tuple(ids))
            naive.add(tuple(ids))
        else:
            longest = naive.longest(tuple(ids))
            assert cache.known(array(ids)) == len(longest or ())
            assert found(cache, ids) == (None if longest is None else list(longest))
            if longest is not None:
                naive.use(longest)
        assert {tuple(entry.ids.tolist()) for entry, _ in cache.checkpoints()} == set(naive.used)
        assert cache.n_bytes == len(cache) * SLOT_BYTES <= n_slots * SLOT_BYTES


@given(
    n_slots=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    actions=st.lists(
        st.tuples(
            st.sampled_from(["add", "find", "lease", "release"]), IDS, st.sampled_from("abc")
        ),
        max_size=40,
    ),
)
@settings(deadline=None)
def test_whatever_is_done_what_is_found_is_right(
    n_slots: list[int], actions: list[tuple[str, list[int], str]]
) -> None:
    cache = cache_of(n_slots=n_slots)
    leases: list[Lease] = []
    for action, ids, owner in actions:
        if action == "add":
            cache.add(checkpoint(ids), owner)
        elif action == "find":
            found(cache, ids, owner)
        elif action == "lease":
            lease = cache.longest_prefix(array(ids), owner)
            leases += [] if lease is None else [lease]
        elif leases:
            with leases.pop(0):
                pass
        check_cache(cache)
        for lease in leases:
            check_state(lease.checkpoint)
        used = [entry.ids.tolist() for entry, _ in cache.checkpoints()]
        assert all(a != b for a, b in pairwise(used))
