from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cache import Checkpoint
from engine.run import Run
from engine.trail import MAX_ROWS, MAX_TOKENS, Trail
from tests.oracle import TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from engine.mamba2 import Mamba2
    from engine.state import RecurrentState

N_VOCAB = 256


def array(ids: Sequence[int]) -> NDArray[np.int32]:
    return np.array(ids, dtype=np.int32)


def random_ids(n: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(N_VOCAB, size=n).tolist()


class Walker:
    """A trail that is extended by real passes, and what it must say at every token."""

    def __init__(self, model: Mamba2, n_start: int) -> None:
        self.model = model
        ids = random_ids(n_start)
        if n_start:
            hidden, state = model.prefill(torch.tensor([ids]))
            start = Checkpoint(array(ids), state, hidden[0, -1])
        else:
            start = Checkpoint(array([]), model.initial_state(), torch.zeros(0))
        self.trail = Trail(start, model.A)

    @property
    def ids(self) -> list[int]:
        return self.trail.ids.tolist()

    def extend(self, tokens: Sequence[int]) -> None:
        state = self.trail.at(len(self.ids)).state
        result = self.model(torch.tensor(tokens), state)
        self.trail.extend(Run(list(tokens), result.log, result.hidden, result.logits))

    def check(self, places: Sequence[int] | None = None) -> None:
        """Hold state and hidden row at these places, else all, against those from scratch."""
        ids = self.ids
        first = len(self.trail.start.ids)
        hidden, _ = self.model.prefill(torch.tensor([[*ids, 7]]))
        expected = self.model.logits(hidden[0])
        for n in range(first, len(ids) + 1) if places is None else places:
            found = self.trail.at(n)
            assert found.ids.tolist() == ids[:n]
            if n:
                torch.testing.assert_close(
                    self.model.logits(found.hidden), expected[n - 1], atol=TOLERANCE, rtol=0
                )
            following = self.model(torch.tensor([*ids, 7][n : n + 1]), found.state)
            torch.testing.assert_close(following.logits[0], expected[n], atol=TOLERANCE, rtol=0)


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Mamba2]) -> Mamba2:
    return tiny_model(vocab_size=N_VOCAB)


@pytest.mark.parametrize("n_start", [0, 1, 3, 40])
def test_every_place_is_what_reading_from_scratch_gives(model: Mamba2, n_start: int) -> None:
    walker = Walker(model, n_start)
    walker.check()
    for n_tokens in (1, 16, 2, 5):
        walker.extend(random_ids(n_tokens, seed=n_tokens))
    walker.check()


ACTIONS = st.one_of(
    st.tuples(st.just("extend"), st.lists(st.integers(0, 3), min_size=1, max_size=30)),
    st.tuples(st.sampled_from(["cut", "remember"]), st.floats(0, 1)),
    st.tuples(st.just("move_up"), st.none()),
)


@given(n_start=st.integers(0, 5), actions=st.lists(ACTIONS, max_size=14), data=st.data())
@settings(max_examples=40, deadline=None)
def test_whatever_happened_every_place_is_what_reading_from_scratch_gives(
    model: Mamba2, n_start: int, actions: list[tuple[str, Any]], data: st.DataObject
) -> None:
    with torch.inference_mode():
        walker = Walker(model, n_start)
        expected = walker.ids
        for action, value in actions:
            trail, first = walker.trail, len(walker.trail.start.ids)
            if action == "extend":
                walker.extend(value)
                expected += value
            elif action == "cut":
                n = first + round(value * (len(expected) - first))
                trail.cut(n)
                del expected[n:]
            elif action == "remember":
                n = first + round(value * (len(expected) - first))
                trail.remember(n, trail.at(n).state)
            else:
                trail.move_up()
                n_since = len(expected) - len(trail.start.ids)
                assert n_since <= MAX_TOKENS
                if len(trail.start.ids) > first:
                    assert n_since == MAX_TOKENS // 2
            assert walker.ids == expected
        first = len(walker.trail.start.ids)
        places = data.draw(st.sets(st.integers(first, len(expected)), max_size=4))
        walker.check([*places, first, len(expected)])
        check_rest(walker, first)


def check_rest(walker: Walker, n: int) -> None:
    """Hold that what comes after a place says the same again from the state there."""
    rest = walker.trail.rest(n)
    if n == len(walker.ids):
        assert rest is None
        return
    assert rest is not None
    tokens = list(rest.tokens)
    assert tokens == walker.ids[n:]
    hidden, after = walker.model.prefill(torch.tensor([walker.ids]))
    expected = walker.model.logits(hidden[0, n:])
    runs = rest.runs(len(tokens))
    assert [token_id for run in runs for token_id in run.tokens] == tokens
    rows = walker.model.logits(torch.cat([run.hidden for run in runs]))
    torch.testing.assert_close(rows, expected, atol=TOLERANCE, rtol=0)
    for i in range(len(tokens)):
        run, number = rest.place(i)
        row = run.row(number)
        if row is not None:
            torch.testing.assert_close(row, expected[i], atol=TOLERANCE, rtol=0)
    state = rest.state_after(len(tokens))
    torch.testing.assert_close(state.ssm_state, after.ssm_state, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(state.conv_state, after.conv_state, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("n", [3, 4, 9, 12])
def test_the_rest_after_a_place(model: Mamba2, n: int) -> None:
    walker = Walker(model, 3)
    for n_tokens in (1, 5, 3):
        walker.extend(random_ids(n_tokens, seed=n_tokens))
    check_rest(walker, n)


def test_the_logits_of_the_last_tokens_are_kept(model: Mamba2) -> None:
    walker = Walker(model, 3)
    for i in range(MAX_ROWS + 9):
        walker.extend([i])
    known = [walker.trail.at(n).row is not None for n in range(4, len(walker.ids) + 1)]
    assert known == [False] * 9 + [True] * MAX_ROWS
    walker.trail.cut(20)
    hidden, _ = model.prefill(torch.tensor([walker.ids]))
    row = walker.trail.at(20).row
    assert row is not None
    torch.testing.assert_close(row, model.logits(hidden[0, -1]), atol=TOLERANCE, rtol=0)


def test_what_was_tried_is_known_until_the_place_is_left(model: Mamba2) -> None:
    walker = Walker(model, 3)
    walker.extend([5, 6, 7])
    trail = walker.trail
    rows = trail.rows(5)
    rows[9,] = torch.ones(N_VOCAB)
    trail.cut(5)
    assert trail.rows(5) is rows
    assert trail.rows(4) == {}
    trail.rows(5)[9,] = torch.ones(N_VOCAB)
    trail.cut(4)
    walker.extend([8])
    assert trail.rows(5) == {}, "it followed other tokens"


@pytest.mark.parametrize(
    ("ids", "common", "passes"),
    [
        pytest.param([1, 2, 3, 4, 5], 5, True, id="all"),
        pytest.param([1, 2, 3, 4], 4, True, id="shorter"),
        pytest.param([1, 2, 3], 3, True, id="its start"),
        pytest.param([1, 2], 0, False, id="before its start"),
        pytest.param([], 0, False, id="nothing"),
        pytest.param([1, 2, 3, 4, 5, 6], 5, False, id="longer"),
        pytest.param([1, 2, 3, 9, 5], 3, False, id="leaves it"),
        pytest.param([1, 2, 9, 4, 5], 0, False, id="leaves before its start"),
        pytest.param([9, 2, 3, 4, 5], 0, False, id="another text"),
    ],
)
def test_how_far_ids_go_along(model: Mamba2, ids: list[int], common: int, passes: bool) -> None:
    _, state = model.prefill(torch.tensor([[1, 2, 3]]))
    trail = Trail(Checkpoint(array([1, 2, 3]), state, torch.zeros(64)), model.A)
    result = model(torch.tensor([4, 5]), state)
    trail.extend(Run([4, 5], result.log, result.hidden))
    assert trail.common(array(ids)) == common
    assert trail.passes(array(ids)) is passes


def test_a_trail_from_nothing_is_passed_by_nothing(model: Mamba2) -> None:
    trail = Walker(model, 0).trail
    assert trail.passes(array([]))
    assert not trail.passes(array([1]))


def test_what_is_remembered_is_what_is_given(model: Mamba2) -> None:
    walker = Walker(model, 3)
    walker.extend([1, 2, 3])
    state = walker.trail.at(5).state
    walker.trail.remember(5, state)
    assert walker.trail.at(5).state is state
    walker.extend([4])
    assert walker.trail.at(5).state is state
    walker.trail.cut(5)
    assert walker.trail.at(5).state is state
    walker.trail.cut(4)
    walker.extend([9, 9])
    assert walker.trail.at(5).state is not state, "it was of other tokens"
    walker.check()


def tensors_of(trail: Trail, states: Sequence[RecurrentState]) -> list[torch.Tensor]:
    runs = trail._runs
    parts = [part for run in runs for part in (*run.log.tensors, run.hidden)]
    parts += [run.logits for run in runs if run.logits is not None]
    parts += trail._rows[1].values()
    return parts + [part for state in states for part in (state.conv_state, state.ssm_state)]


def test_bytes_are_those_that_are_kept_alive(model: Mamba2) -> None:
    walker = Walker(model, 0)
    trail = walker.trail
    for i in range(30):
        walker.extend(random_ids(9, seed=i))
        trail.remember(len(walker.ids), trail.at(len(walker.ids)).state)
        if i % 3 == 2:
            trail.cut(len(walker.ids) - 4)
        trail.move_up()
        states = [trail.start.state, *trail._states.values()]
        tensors = tensors_of(trail, states)
        storages = {part.untyped_storage().data_ptr(): part.untyped_storage() for part in tensors}
        assert sum(storage.nbytes() for storage in storages.values()) == trail.n_bytes
    walker.check([len(walker.ids)])


def test_a_state_that_is_remembered_at_the_start_is_counted_once(model: Mamba2) -> None:
    trail = Walker(model, 3).trail
    n_bytes = trail.n_bytes
    trail.remember(3, trail.start.state)
    assert trail.n_bytes == n_bytes == trail.start.state.n_bytes


@pytest.mark.parametrize("n_calls", [0, 1, 3, 4])
def test_what_fails_half_way_leaves_it_as_it_was(
    model: Mamba2, monkeypatch: pytest.MonkeyPatch, n_calls: int
) -> None:
    """Memory may run out at any clone."""
    walker = Walker(model, 3)
    for i in range(8):
        walker.extend(random_ids(10, seed=i))
    cloning, calls = torch.Tensor.clone, iter(range(100))

    def failing(tensor: torch.Tensor, **named: Any) -> torch.Tensor:
        if next(calls) == n_calls:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return cloning(tensor, **named)

    ids = walker.ids
    for change in (walker.trail.move_up, lambda: walker.trail.cut(20)):
        calls = iter(range(100))
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "clone", failing)
            with pytest.raises(torch.OutOfMemoryError):
                change()
        assert walker.ids == ids
        walker.check([3, 10, 50, len(ids)])
