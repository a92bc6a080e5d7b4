from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.cache import TAIL_TOKENS, Checkpoint, StateCache
from engine.state import RecurrentState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

N_FLOATS = 100
TAIL = [7] * TAIL_TOKENS


def array(ids: Sequence[int]) -> NDArray[np.int32]:
    return np.array(ids, dtype=np.int32)


def checkpoint(ids: Sequence[int], n_floats: int = N_FLOATS) -> Checkpoint:
    state = RecurrentState(torch.zeros(n_floats - 1), torch.zeros(1))
    return Checkpoint(array(ids), state, torch.zeros(2))


def n_bytes(ids: Sequence[int], n_floats: int = N_FLOATS) -> int:
    return 4 * (n_floats + 2 + len(ids))


def cache_of(*kept: Sequence[int], budget_bytes: int = 10**6) -> StateCache:
    cache = StateCache(budget_bytes)
    for ids in kept:
        cache.add(checkpoint(ids))
    return cache


def found(cache: StateCache, ids: Sequence[int]) -> list[int] | None:
    hit = cache.longest_prefix(array(ids))
    return None if hit is None else hit.ids.tolist()


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
    assert found(cache, ids) == longest
    assert (cache.n_hits, cache.n_misses) == ((0, 1) if longest is None else (1, 0))


def test_gives_the_state_that_was_added() -> None:
    cache = cache_of([1], [1, 2, 3])
    added = checkpoint([1, 2])
    cache.add(added)
    assert cache.longest_prefix(array([1, 2, 9])) is added


def test_the_least_recently_used_goes_first() -> None:
    cache = cache_of([1], [2], [3], budget_bytes=3 * n_bytes([1]))
    assert cache.n_evictions == 0
    found(cache, [1, 9])  # used
    cache.add(checkpoint([2]))  # added again, which is a use too
    cache.add(checkpoint([4]))
    assert [found(cache, [i]) for i in (1, 2, 3, 4)] == [[1], [2], None, [4]]
    assert (len(cache), cache.n_evictions) == (3, 1)


def test_a_duplicate_costs_nothing_and_keeps_the_first() -> None:
    cache = cache_of([1, 2])
    first = cache.longest_prefix(array([1, 2]))
    cache.add(checkpoint([1, 2]))
    assert (len(cache), cache.n_bytes) == (1, n_bytes([1, 2]))
    assert cache.longest_prefix(array([1, 2])) is first


def test_larger_than_the_budget_is_a_miss_and_evicts_nothing() -> None:
    cache = cache_of([1], budget_bytes=n_bytes([1]))
    cache.add(checkpoint([2], n_floats=N_FLOATS + 1))
    assert found(cache, [2]) is None
    assert found(cache, [1]) == [1]
    assert cache.n_evictions == 0


def test_one_large_checkpoint_may_cost_several_small() -> None:
    cache = cache_of([1], [2], [3], budget_bytes=3 * n_bytes([1]))
    cache.add(checkpoint([4], n_floats=2 * N_FLOATS))
    assert [found(cache, [i]) for i in (1, 2, 3, 4)] == [None, None, [3], [4]]
    assert cache.n_bytes == n_bytes([3]) + n_bytes([4], 2 * N_FLOATS)


def test_no_budget_keeps_nothing() -> None:
    cache = cache_of([1], budget_bytes=0)
    assert (len(cache), cache.n_bytes, found(cache, [1])) == (0, 0, None)


def test_a_negative_budget_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        StateCache(-1)


def test_replace() -> None:
    cache = cache_of([1], [1, 2])
    state = RecurrentState(torch.ones(5), torch.ones(1))
    cache.replace([1], state)
    hit = cache.longest_prefix(array([1, 3]))
    assert hit is not None
    assert hit.state is state
    assert cache.n_bytes == n_bytes([1], 6) + n_bytes([1, 2])
    with pytest.raises(KeyError, match="3 ids"):
        cache.replace([1, 2, 3], state)


IDS = st.lists(st.integers(0, 1), max_size=4).flatmap(
    lambda ids: st.sampled_from([ids, [*ids, *TAIL], [*ids, *TAIL, 0]])
)


@given(
    budget_bytes=st.integers(0, 5 * n_bytes([], 20)),
    actions=st.lists(st.tuples(st.sampled_from(["add", "find"]), IDS, st.integers(1, 30))),
)
def test_is_what_comparing_every_prefix_gives(
    budget_bytes: int, actions: list[tuple[str, list[int], int]]
) -> None:
    cache = StateCache(budget_bytes)
    naive: OrderedDict[tuple[int, ...], int] = OrderedDict()
    for action, ids, n_floats in actions:
        key = tuple(ids)
        if action == "add":
            cache.add(checkpoint(ids, n_floats))
            if key not in naive and n_bytes(ids, n_floats) <= budget_bytes:
                naive[key] = n_bytes(ids, n_floats)
            if key in naive:
                naive.move_to_end(key)
            while sum(naive.values()) > budget_bytes:
                naive.popitem(last=False)
        else:
            longest = max((k for k in naive if key[: len(k)] == k), key=len, default=None)
            assert found(cache, ids) == (None if longest is None else list(longest))
            if longest is not None:
                naive.move_to_end(longest)
        assert cache.n_bytes == sum(naive.values()) <= budget_bytes
        assert len(cache) == len(naive)
