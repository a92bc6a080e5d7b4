"""Whatever is edited, answers are those from scratch; where a state is wrong, it is seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.engine import Engine
from engine.fim import FimFormat, PrefixSplit, PromptOrder
from tests.engine.engine_world import (
    BUDGET_BYTES,
    CURSOR,
    TEXT,
    Edit,
    Session,
    ask,
    check,
    check_budget,
    edited,
    play,
)
from tests.oracle import check_exact

if TYPE_CHECKING:
    from engine.request import Completion
    from engine.state import RecurrentState

SCRIPT: list[Edit] = [
    *[("type", char) for char in "        if amount > lim"],
    ("pair", "()"),
    ("type", "x"),
    ("overtype", ")"),
    ("type", ":"),
    ("type", "\n            "),
    *[("type", char) for char in "Über🍰 = "],
    *[("delete", 1)] * 6,
    ("type", "s"),
    ("delete", 30),
    ("type", "for item in self"),
    ("jump", TEXT.index("items: list")),
    ("type", "it"),
    ("delete", 2),
    ("jump", CURSOR + 20),
    ("type", "."),
    ("delete_after", 5),
    ("type", "a"),
    ("jump", 0),
    ("type", "im"),
    ("jump", len(TEXT)),
    ("type", "\n\tpass"),
]


def test_every_answer_of_an_editing_session_is_exact(session: Session) -> None:
    session.complete(ask())
    completions = play(session, SCRIPT)
    assert sum(completion.n_generated for _, completion in completions) > 2 * len(SCRIPT)
    assert any(completion.n_healing_passes for _, completion in completions)
    sources = Counter(completion.source for _, completion in completions)
    assert sources["trail"] > len(SCRIPT) / 2
    encode = session.engine.tokenizer.encode
    for (kind, value), completion in completions[: SCRIPT.index(("delete", 1))]:
        n_inserted = len(encode(value)) if kind == "type" else 1
        assert completion.n_recomputed <= n_inserted + 8, (kind, value)


def test_every_kind_of_answer_is_exact(session: Session) -> None:
    text = "".join(TEXT.replace("Cart", f"Cart{i}") for i in range(4))
    jumps: list[Edit] = [("jump", cursor) for cursor in range(100, len(text), 300)]
    edits = [
        edit for jump in jumps for edit in (jump, ("type", "s"), ("type", "elf."), ("delete", 1))
    ]
    edits += [("jump", -1), ("jump", 310), ("jump", -30)]
    completions = play(session, edits, text, len(text))
    kinds = Counter(completion.kind for _, completion in completions)
    assert kinds["epoch"] > kinds["bridge"] > len(jumps) / 2
    assert kinds["trunk"] == 1
    for edit, completion in completions[1:]:
        if edit in jumps:
            # A trunk's states serve all places; the suffix laid on top is short.
            assert completion.n_recomputed < completion.n_prompt
            assert completion.kind == "bridge"
        elif edit[0] == "type":
            assert completion.kind == "epoch", "it was built meanwhile"
            assert completion.n_recomputed <= 8


@pytest.mark.parametrize("changes", [{"explicit": True}, {"raw": True}], ids=str)
def test_some_requests_are_always_answered_from_the_exact_epoch(
    session: Session, changes: dict[str, bool]
) -> None:
    text = TEXT * 4
    session.complete(ask(text, len(text)))
    assert session.complete(ask(text, 100)).kind == "bridge"
    session.engine.forget("cart.py")
    ticket = session.submit(ask(text, 110, **changes))
    session.run()
    completion = session.answer(ticket)
    assert completion is not None
    assert completion.kind == "epoch"
    if "raw" not in changes:
        check(session, ticket.request, completion)
    assert session.engine.counters()["background_tokens"] > 0


EDITS = st.one_of(
    st.tuples(st.just("type"), st.sampled_from(["s", " ", "\n", "self.", "é", "🍰", "x = 1\n\t"])),
    st.tuples(st.just("pair"), st.sampled_from(["()", "[]", '""'])),
    st.tuples(st.sampled_from(["delete", "delete_after"]), st.integers(1, 40)),
    st.tuples(st.just("jump"), st.integers(0, 1000)),
)


@given(
    edits=st.lists(EDITS, max_size=8),
    n_states=st.sampled_from([0, 1, 3, 12, 1000]),
    n_host=st.sampled_from([0, 3]),
)
@settings(max_examples=8, deadline=None)
def test_whatever_is_edited_and_evicted_answers_are_exact(
    new_session: Callable[..., Session], edits: list[Edit], n_states: int, n_host: int
) -> None:
    state_bytes = new_session(budget_bytes=0).engine.model.initial_state().n_bytes
    budget_bytes = int((n_states + 0.5) * state_bytes)
    session = new_session(budget_bytes=budget_bytes, host_budget_bytes=n_host * state_bytes)
    BUDGET_BYTES[session.engine] = budget_bytes + n_host * state_bytes
    play(session, edits)


def test_with_many_documents_the_budget_is_used_and_kept(
    new_session: Callable[..., Session],
) -> None:
    state_bytes = new_session(budget_bytes=0).engine.model.initial_state().n_bytes
    session = new_session(budget_bytes=32 * state_bytes)
    BUDGET_BYTES[session.engine] = 32 * state_bytes
    used = set()
    for i in range(8):
        request = ask(document=f"{i}", header=f"# {i}\n")
        check(session, request, session.complete(request))
        check_budget(session.engine)
        used.add(session.engine.counters()["cache_bytes"] // state_bytes)
    # A quarter is for trails.
    assert 22 < max(used) <= 24
    assert 2 * state_bytes < session.engine.counters()["trail_bytes"] <= 8 * state_bytes
    assert session.engine.counters()["cache_evicted"] > 0


def test_raw_is_the_models_own_greedy_continuation(session: Session) -> None:
    request = ask(raw=True, max_tokens=24)
    completion = session.complete(request)
    check_exact(session.engine.model, completion)
    assert completion.logits is not None
    n_covered = len(completion.token_ids) - completion.n_generated
    best = completion.logits.argmax(-1).tolist()
    assert list(completion.token_ids[n_covered:]) == best[n_covered:]
    assert (completion.stop, completion.n_generated) == ("limit", 24)


def as_it_was(engine: Engine, ids: list[int]) -> RecurrentState:
    return engine.model.prefill(torch.tensor([ids]))[1]


def zeroed(engine: Engine, ids: list[int]) -> RecurrentState:
    return engine.model.initial_state()


def shifted(engine: Engine, ids: list[int]) -> RecurrentState:
    return as_it_was(engine, ids[:-1])


def other_suffix(engine: Engine, ids: list[int]) -> RecurrentState:
    prefix_ids = ids[ids.index(engine.tokenizer.prefix_id) + 1 :]
    head = engine.fim.head(PromptOrder.SUFFIX_FIRST, "    return amount + 1\n")
    return as_it_was(engine, [*head, *prefix_ids])


Fault = Callable[[Engine, list[int]], "RecurrentState"]
PLACES = pytest.mark.parametrize("place", ["cache", "trail"])


def complete_on(session: Session, place: str, fault: Fault) -> Completion:
    """Complete after one more character, on a kept state that was exchanged."""
    engine = session.engine
    first = session.complete(ask())
    with torch.inference_mode():
        state = fault(engine, list(first.prompt_ids))
    [trail] = engine.decoder.trails.values()
    if place == "cache":
        engine.decoder.trails.clear()
        engine.cache.replace(first.prompt_ids, state)
    else:
        trail.remember(first.n_prompt, state)
    text, cursor = edited(TEXT, CURSOR, "type", "r")
    completion = session.complete(ask(text, cursor))
    assert completion.n_recomputed <= 9, "it went on from the exchanged state"
    assert completion.source == ("tier0" if place == "cache" else "trail")
    return completion


@PLACES
def test_the_same_state_computed_otherwise_changes_nothing(session: Session, place: str) -> None:
    check_exact(session.engine.model, complete_on(session, place, as_it_was))


@PLACES
@pytest.mark.parametrize("fault", [zeroed, shifted, other_suffix])
def test_a_wrong_state_is_seen(session: Session, place: str, fault: Fault) -> None:
    completion = complete_on(session, place, fault)
    with pytest.raises(AssertionError, match="away from those from scratch"):
        check_exact(session.engine.model, completion)


def test_a_piece_that_is_committed_too_early_is_seen(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ask(*edited(TEXT, CURSOR, "type", "        sel"))
    check(session, request, session.complete(request))

    def hasty(fim: FimFormat, text: str) -> PrefixSplit:
        return PrefixSplit(ids=np.array(fim.prefix_ids(text), np.int32), held=b"")

    monkeypatch.setattr(FimFormat, "split", hasty)
    completion = session.complete(request)
    with pytest.raises(AssertionError, match="committed too early"):
        check(session, request, completion)


def test_a_state_of_a_slot_that_was_given_up_is_refused(session: Session) -> None:
    session.complete(ask())
    session.engine.decoder.trails.clear()
    for tier in session.engine.cache.tiers:
        tier.clear()
    ticket = session.submit(ask())
    session.run()
    completion = session.answer(ticket)
    assert completion is not None
    assert completion.stop == "error"


def test_logits_are_kept_on_request_alone(session: Session) -> None:
    completion = session.complete(ask(keep_logits=False))
    assert completion.token_ids
    assert completion.logits is None
    with pytest.raises(AssertionError, match="keep_logits"):
        check_exact(session.engine.model, completion)
