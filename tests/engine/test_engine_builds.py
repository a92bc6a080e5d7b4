"""What is read before it is asked for, and whose turn it is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.engine.engine_world import (
    CURSOR,
    TEXT,
    Session,
    ask,
    check,
    edited,
    n_reads,
    prompt_ids,
    turns_until_answered,
)

if TYPE_CHECKING:
    from engine.request import Completion, CompletionRequest
    from engine.ticket import Ticket


def test_a_prepared_prompt_costs_nothing(session: Session) -> None:
    session.engine.prepare(ask())
    n_steps = session.run()
    completion = session.complete(ask())
    assert completion.n_recomputed == 0
    assert n_steps == n_reads(session, completion) + 1, "it read, and did nothing else"
    check(session, ask(), completion)
    counters = session.engine.counters()
    assert counters["background_tokens"] == completion.n_prompt
    assert counters["answers_limit"] == 1


def test_a_request_goes_before_preparations_and_takes_over_its_own(session: Session) -> None:
    session.engine.prepare(ask(document="a"))
    session.engine.prepare(ask(document="b", header="# b\n"))
    session.engine.step()
    session.engine.step()
    n_read = session.engine.counters()["background_tokens"]
    assert n_read > 0
    ticket = session.submit(ask(document="a"))
    while session.answer(ticket) is None:
        assert session.engine.step()
    assert session.engine.counters()["background_tokens"] == n_read
    completion = session.answer(ticket)
    assert completion is not None
    assert completion.n_recomputed < completion.n_prompt
    session.run()
    other = session.complete(ask(document="b", header="# b\n"))
    assert other.n_recomputed == 0
    n_of_a = completion.n_prompt - completion.n_recomputed
    assert session.engine.counters()["background_tokens"] == n_of_a + other.n_prompt


def test_the_newest_preparation_of_a_document_counts(session: Session) -> None:
    newer = ask(*edited(TEXT, CURSOR, "type", "        retur"))
    session.engine.prepare(ask())
    session.engine.step()
    session.engine.prepare(newer)
    session.run()
    completion = session.complete(newer)
    assert completion.n_recomputed == 0
    assert session.engine.counters()["background_tokens"] == completion.n_prompt


def test_preparing_has_no_deadline(session: Session) -> None:
    session.engine.prepare(ask(deadline_ms=1.0))
    session.run(ms_per_step=100)
    assert session.complete(ask()).n_recomputed == 0


def test_a_document_that_was_closed_is_prepared_no_more(session: Session) -> None:
    session.engine.prepare(ask())
    session.engine.prepare(ask(cursor=40), key="cart.py, the next window")
    session.engine.prepare(ask(document="other", header="# other\n"))
    for _ in range(3):
        session.engine.step()
    session.engine.forget("cart.py")
    n_read = session.engine.counters()["background_passes"]
    other = session.run()
    assert session.engine.counters()["background_passes"] == n_read + other - 1
    assert session.complete(ask(document="other", header="# other\n")).n_recomputed == 0
    assert session.complete(ask(cursor=40)).n_recomputed > 0


def ask_other(n: int = 60) -> CompletionRequest:
    """Ask in another document, whose prompt takes many passes."""
    return ask(TEXT * 4, n, document="other", header="# other\n")


@pytest.mark.parametrize("n_replaced", [0, 1, 5])
def test_a_preparation_that_waits_300_ms_gets_every_second_pass(
    session: Session, n_replaced: int
) -> None:
    """Replaced again and again by steady typing, it has waited since the first."""
    session.engine.decoder.chunk_tokens = 16
    session.engine.prepare(ask_other())
    ticket = session.submit(ask(max_tokens=90))
    turns = []
    for i in range(n_replaced):
        for _ in range(5):
            assert session.engine.step()
            session.clock.advance_ms(10)
            turns.append(session.engine.counters()["background_passes"] > 0)
        session.engine.prepare(ask_other(61 + i))
    turns += turns_until_answered(session, ticket, 10.0)
    # From the 31st step on, until it is done.
    assert not any(turns[:30])
    n_passes = len(list(session.engine.decoder.passes(0, 800)))
    assert turns[30:60] == [True, False] * 15
    assert sum(turns) > n_passes / 3
    completion = session.answer(ticket)
    assert completion is not None
    check(session, ticket.request, completion)


def test_once_done_a_preparation_has_waited_no_more(session: Session) -> None:
    session.engine.prepare(ask_other())
    session.clock.advance_ms(1000)
    session.run()
    session.engine.prepare(ask_other(300))
    ticket = session.submit(ask())
    assert not any(turns_until_answered(session, ticket, 1.0))


def test_a_build_that_waits_does_not_read_what_a_request_has_read(session: Session) -> None:
    """An explicit request while its epoch is being built: they take turns, not twice the time."""
    session.engine.decoder.chunk_tokens = 16
    session.engine.prepare(ask())
    session.engine.step()
    session.clock.advance_ms(400)
    ticket = session.submit(ask(explicit=True))
    turns = turns_until_answered(session, ticket, 1.0)
    completion = session.answer(ticket)
    assert completion is not None
    assert sum(turns) > 3
    check(session, ticket.request, completion)
    session.run()
    n_background = session.engine.counters()["background_tokens"]
    assert completion.n_recomputed + n_background == completion.n_prompt


def test_a_request_does_not_drop_what_is_prepared(session: Session) -> None:
    text = TEXT * 4
    session.complete(ask(text, len(text)))
    prepared = ask(text, 700)
    session.engine.prepare(prepared)
    session.engine.step()
    tickets = [session.submit(ask(text + char, len(text) + 1)) for char in "xy"]
    session.run()
    assert [ticket.request.prefix[-1] for ticket in tickets if session.answer(ticket)] == ["x", "y"]
    n_read = session.engine.counters()["background_tokens"]
    completion = session.complete(prepared)
    assert (completion.kind, completion.n_recomputed) == ("epoch", 0)
    assert n_read == completion.n_prompt


@pytest.mark.parametrize("older", [True, False], ids=["older", "newer"])
def test_the_build_of_a_request_replaces_what_was_prepared_before_it(
    session: Session, older: bool
) -> None:
    text = TEXT * 4
    prepared, jumped = ask(text, 700), ask(text, 60)
    if older:
        session.engine.prepare(prepared)
        session.engine.step()
    ticket = session.submit(jumped)
    if not older:
        session.engine.prepare(prepared)
    session.run()
    completion = session.answer(ticket)
    assert completion is not None
    assert completion.kind == "bridge"
    recomputed = [
        session.complete(replace(request, explicit=True)).n_recomputed
        for request in (prepared, jumped)
    ]
    assert [n > 0 for n in recomputed] == [older, not older]


@pytest.mark.parametrize("jump", [False, True], ids=["late", "bridge"])
def test_an_answer_without_its_epoch_leaves_a_build(session: Session, jump: bool) -> None:
    text = TEXT * 4
    request = ask(text, 60) if jump else ask(text, len(text), deadline_ms=0.0)
    session.complete(ask(text, len(text), document="other", header="# other\n"))
    ticket = session.submit(request)
    turns = turns_until_answered(session, ticket, 1.0)
    assert not any(turns)
    answer = session.answer(ticket)
    assert answer is not None
    assert (answer.kind, answer.stop) == (("bridge", "limit") if jump else ("epoch", "deadline"))
    n_steps = session.run()
    assert n_steps > 5
    again = session.complete(ask(text, 60 if jump else len(text)))
    check(session, request, again)
    assert (again.kind, again.n_recomputed) == ("epoch", 0)
    # Once is enough.
    assert session.engine.counters()["background_passes"] == n_steps - 1


def test_a_forgotten_document_starts_a_new_epoch(session: Session) -> None:
    paired = ask(*edited(TEXT, CURSOR, "pair", "()"))
    session.complete(ask())
    kept = session.complete(paired)
    session.engine.forget("cart.py")
    new = session.complete(paired)
    assert kept.n_recomputed <= 9 < new.n_recomputed
    check(session, paired, new)


# A chunk of a prompt takes as long as half a dozen written tokens.
BUILD_MS, REQUEST_MS = 25.0, 4.0


def test_a_build_takes_no_more_time_than_the_requests_and_is_never_starved(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests that never stop, one after the other, while another document is read."""
    engine, clock = session.engine, session.clock
    engine.decoder.chunk_tokens = 16
    advance = engine._advance
    turns: list[bool] = []

    def taking_time(ticket: Ticket) -> Completion | None:
        turns.append(ticket.is_build)
        clock.advance_ms(BUILD_MS if ticket.is_build else REQUEST_MS)
        return advance(ticket)

    monkeypatch.setattr(engine, "_advance", taking_time)
    n_to_read = len(prompt_ids(engine, ask_other(), "epoch"))
    engine.prepare(ask_other())
    asked = session.submit(ask(max_tokens=50))
    while engine.counters()["background_tokens"] < n_to_read:
        assert engine.step()
        assert len(turns) < 2_000, "the build is starved"
        if session.answer(asked) is not None:
            asked = session.submit(ask(max_tokens=50))

    first = turns.index(True)
    waited_ms = REQUEST_MS * first
    assert 300 <= waited_ms < 300 + 2 * REQUEST_MS
    since = turns[first:]
    assert sum(since) > 40, "that is no long run"
    build_ms = request_ms = 0.0
    n_between = 0
    for is_build in since:
        if is_build:
            # It is never more than the turn that it has now ahead.
            assert build_ms <= request_ms
            build_ms += BUILD_MS
            n_between = 0
        else:
            request_ms += REQUEST_MS
            n_between += 1
            assert REQUEST_MS * n_between < BUILD_MS + REQUEST_MS, "the build waits too long"
    assert build_ms == pytest.approx(request_ms, rel=0.15)
    assert session.complete(ask_other()).n_recomputed == 0
