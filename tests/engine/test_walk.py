from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.ahead import Ahead
from engine.cache import Checkpoint
from engine.decode import Work
from engine.mamba2 import InputLog
from engine.walk import Walk
from tests.oracle import TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engine.mamba2 import Mamba2

PROMPT = [int(i) for i in np.random.default_rng(0).integers(256, size=30)]
PATH = [int(i) for i in np.random.default_rng(1).integers(256, size=8)]


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Mamba2]) -> Mamba2:
    return tiny_model()


def prompt(model: Mamba2) -> Checkpoint:
    hidden, state = model.prefill(torch.tensor([PROMPT]))
    return Checkpoint(np.array(PROMPT, dtype=np.int32), state, hidden[0, -1])


def walk_of(model: Mamba2, **options: Any) -> tuple[Walk, Work]:
    work = Work()
    return Walk(model, prompt(model), work, keep_rows=True, **options), work


def known_run(model: Mamba2, tokens: Sequence[int]) -> Ahead:
    return Ahead.of_pass(tokens, model(torch.tensor(tokens), prompt(model).state))


def check(model: Mamba2, walk: Walk, tokens: Sequence[int]) -> None:
    """Hold tokens, rows, and what was read, to one prefill of prompt and tokens."""
    assert walk.tokens == list(tokens)
    hidden, state = model.prefill(torch.tensor([[*PROMPT, *tokens]]))
    logits = model.logits(hidden[0, len(PROMPT) - 1 :])
    assert walk.rows is not None
    rows = torch.stack([*walk.rows, walk.row])
    torch.testing.assert_close(rows, logits, atol=TOLERANCE, rtol=0)
    runs = walk.runs()
    assert [token_id for run in runs for token_id in run.tokens] == list(tokens)
    if not tokens:
        return
    hidden = torch.cat([run.hidden for run in runs])
    torch.testing.assert_close(model.logits(hidden), logits[1:], atol=TOLERANCE, rtol=0)
    kept = torch.cat([run.logits for run in runs if run.logits is not None])
    torch.testing.assert_close(kept, logits[1:], atol=TOLERANCE, rtol=0)
    log = InputLog.of_runs([run.log for run in runs])
    assert log.n_tokens == len(tokens)
    after = log.replay(prompt(model).state, model.A, len(tokens))
    torch.testing.assert_close(after.ssm_state, state.ssm_state, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(after.conv_state, state.conv_state, atol=1e-4, rtol=1e-4)


def follow(walk: Walk, tokens: Sequence[int]) -> int:
    """Go on one by one; give how many steps took a pass."""
    return sum(walk.follow((token_id,)) for token_id in tokens)


WRONG = 255 if 255 not in PATH else 254


@pytest.mark.parametrize("known", [False, True], ids=["read", "known"])
@pytest.mark.parametrize(
    ("proposal", "n_steps"),
    [
        pytest.param([], 8, id="nothing"),
        pytest.param(PATH, 0, id="right"),
        pytest.param([*PATH, 1, 2, 3], 0, id="too long"),
        pytest.param(PATH[:5], 3, id="too short"),
        pytest.param([WRONG, *PATH[1:]], 8, id="wrong at once"),
        pytest.param([*PATH[:3], WRONG, *PATH[4:]], 5, id="wrong in the middle"),
        pytest.param([*PATH[:-1], WRONG], 1, id="wrong at the end"),
        pytest.param(PATH[1:], 8, id="shifted"),
    ],
)
def test_a_proposal_saves_passes_and_changes_nothing(
    model: Mamba2, proposal: list[int], n_steps: int, known: bool
) -> None:
    walk, work = walk_of(model)
    if known and proposal:
        walk.lay_ahead(known_run(model, proposal))
    else:
        walk.propose(proposal)
    assert work.n_passes == bool(proposal and not known)
    work.n_passes = 0
    assert follow(walk, PATH) == work.n_passes == n_steps
    check(model, walk, PATH)
    # One more from there, too.
    follow(walk, [7])
    check(model, walk, [*PATH, 7])


@pytest.mark.parametrize("n_right", range(9))
def test_a_whole_path_takes_one_pass_at_most(model: Mamba2, n_right: int) -> None:
    walk, work = walk_of(model)
    proposal = [*PATH[:n_right], WRONG]
    walk.propose(proposal)
    assert walk.follow(PATH) is (n_right < len(PATH))
    assert work.n_passes == 1 + (n_right < len(PATH))
    check(model, walk, PATH)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["follow", "propose", "know"]),
        st.lists(st.integers(0, 2), max_size=6),
    ),
    max_size=8,
)


@given(steps=STEPS)
@settings(max_examples=60, deadline=None)
def test_whatever_is_proposed_nothing_changes(
    model: Mamba2, steps: list[tuple[str, list[int]]]
) -> None:
    with torch.inference_mode():
        walk, _ = walk_of(model)
        tokens: list[int] = []
        for kind, value in steps:
            if kind == "follow":
                walk.follow(value)
                tokens += value
            elif kind == "propose":
                walk.propose(value)
            elif value:
                _, state = model.prefill(torch.tensor([[*PROMPT, *tokens]]))
                walk.lay_ahead(Ahead.of_pass(value, model(torch.tensor(value), state)))
            row = walk.row.clone()
            if walk._n_followed == 0:
                walk.row_after((1, 2))
            assert torch.equal(walk.row, row)
            check(model, walk, tokens)


def test_nothing_to_follow_takes_nothing(model: Mamba2) -> None:
    walk, work = walk_of(model)
    assert not walk.follow(())
    assert work.n_passes == 0
    check(model, walk, [])


@pytest.mark.parametrize(
    ("path", "takes_pass"),
    [
        pytest.param((), False, id="here"),
        pytest.param(tuple(PATH[:1]), False, id="first"),
        pytest.param(tuple(PATH[:5]), False, id="all of it"),
        pytest.param(tuple(PATH[:6]), True, id="past its end"),
        pytest.param((WRONG,), True, id="elsewhere"),
        pytest.param((*PATH[:3], WRONG), True, id="elsewhere later"),
    ],
)
def test_the_row_after_a_path(model: Mamba2, path: tuple[int, ...], takes_pass: bool) -> None:
    walk, work = walk_of(model)
    walk.propose(PATH[:5])
    n_passes = work.n_passes
    row, took_pass = walk.row_after(path)
    assert took_pass is takes_pass
    assert work.n_passes == n_passes, "a search counts its own"
    hidden, _ = model.prefill(torch.tensor([[*PROMPT, *path]]))
    torch.testing.assert_close(row, model.logits(hidden[0, -1]), atol=TOLERANCE, rtol=0)
    check(model, walk, [])
    assert follow(walk, PATH[:5]) == 0, "what is ahead is still there"


def test_rows_are_kept_on_request_alone(model: Mamba2) -> None:
    walk = Walk(model, prompt(model), Work())
    walk.propose(PATH[:2])
    walk.follow(PATH)
    assert walk.rows is None
    hidden, _ = model.prefill(torch.tensor([[*PROMPT, *PATH]]))
    torch.testing.assert_close(walk.row, model.logits(hidden[0, -1]), atol=TOLERANCE, rtol=0)


def test_the_state_it_began_from_stays_as_it_was(model: Mamba2) -> None:
    at = prompt(model)
    walk = Walk(model, at, Work())
    walk.propose(PATH[:3])
    walk.follow(PATH)
    expected = prompt(model).state
    assert torch.equal(at.state.ssm_state, expected.ssm_state)
    assert torch.equal(at.state.conv_state, expected.conv_state)


@pytest.mark.parametrize("n_ahead", [0, 3])
def test_what_was_walked_holds_where_a_step_fails(
    model: Mamba2, monkeypatch: pytest.MonkeyPatch, n_ahead: int
) -> None:
    """What is kept of it after the error must be true."""
    walk, _ = walk_of(model)
    walk.propose(PATH[:3])
    walk.follow(PATH[:n_ahead])

    def failing(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(InputLog, "replay", failing)
        with pytest.raises(torch.OutOfMemoryError):
            walk.follow((WRONG,))
    check(model, walk, PATH[:n_ahead])


@pytest.mark.parametrize("n_ahead", [0, 1, 4, 8])
@pytest.mark.parametrize("n", [0, 1, 3, 5, 8])
def test_a_fork_stands_where_the_walk_stood_and_takes_no_pass(
    model: Mamba2, n_ahead: int, n: int
) -> None:
    """The walk is made of runs that were left half-way, and of single steps."""
    walk, work = walk_of(model)
    walk.propose([*PATH[:2], WRONG])
    walk.follow(PATH[:3])
    walk.propose([*PATH[3:n_ahead], WRONG])
    follow(walk, PATH[3:])
    n_passes, other = work.n_passes, Work()
    fork = walk.fork(n, other)
    assert (work.n_passes, other.n_passes) == (n_passes, 0)
    hidden, _ = model.prefill(torch.tensor([[*PROMPT, *PATH[:n]]]))
    torch.testing.assert_close(fork.row, model.logits(hidden[0, -1]), atol=TOLERANCE, rtol=0)
    fork.follow([WRONG, 7])
    hidden, _ = model.prefill(torch.tensor([[*PROMPT, *PATH[:n], WRONG, 7]]))
    torch.testing.assert_close(fork.row, model.logits(hidden[0, -1]), atol=TOLERANCE, rtol=0)
    assert (work.n_passes, other.n_passes) == (n_passes, 1)
    check(model, walk, PATH)


def test_only_the_next_token_of_what_is_ahead_is_known(model: Mamba2) -> None:
    walk, _ = walk_of(model)
    assert not walk.knows(PATH[0])
    walk.propose(PATH[:2])
    assert walk.knows(PATH[0])
    assert not walk.knows(WRONG)
    walk.follow(PATH[:2])
    assert not walk.knows(PATH[2])
