"""Requests that are superseded or cancelled, and documents that take turns."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.engine_world import (
    CURSOR,
    TEXT,
    Session,
    ask,
    check,
    check_budget,
    edited,
    prompt_ids,
)
from tests.oracle import check_exact

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.request import Completion, CompletionRequest
    from engine.ticket import Ticket

# In reading, healing and writing.
N_STEPS = [0, 1, 4, 6, 7, 9, 12, 16]


def ask_long() -> CompletionRequest:
    """Ask in the middle of a word, for more steps than N_STEPS has."""
    return ask(cursor=TEXT.index("mount\n\n"), max_tokens=30)


def check_cost(completion: Completion, n_steps: int) -> None:
    # The first token that is written needs no pass.
    n_passes = completion.n_passes + completion.n_healing_passes
    assert n_passes == n_steps - (completion.n_generated > 0)


@pytest.mark.parametrize("n_steps", N_STEPS)
def test_a_newer_request_supersedes_the_older_at_once(session: Session, n_steps: int) -> None:
    older = session.submit(ask_long())
    for _ in range(n_steps):
        session.engine.step()
    assert session.answer(older) is None
    newer = session.submit(ask(*edited(TEXT, CURSOR, "type", "s")))
    superseded = session.answer(older)
    assert superseded is not None
    assert (superseded.text, superseded.stop) == ("", "superseded")
    check_cost(superseded, n_steps)
    session.run()
    completion = session.answer(newer)
    assert completion is not None
    assert session.answer(older) is superseded
    check(session, newer.request, completion)
    assert session.engine.counters()["answers_superseded"] == 1


def test_an_answered_request_is_not_superseded(session: Session) -> None:
    older = session.submit(ask())
    session.run()
    session.submit(ask())
    session.run()
    completion = session.answer(older)
    assert completion is not None
    assert completion.stop == "limit"


@pytest.mark.parametrize("cached", [False, True], ids=["first pass", "last pass"])
def test_superseded_while_its_own_pass_runs(
    session: Session, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    """As when another thread submits while the engine computes."""
    if cached:
        session.complete(ask())
        session.engine.decoder.trails.clear()
    # Nothing is held back here, so with the prompt cached the only pass is for the second token.
    older = session.submit(ask(max_tokens=2))
    newer: list[Ticket] = []
    method = "forward" if cached else "read"
    working = getattr(session.engine.model, method)

    def submitting(*args: Any) -> Any:
        if not newer:
            newer.append(session.submit(ask(*edited(TEXT, CURSOR, "type", "s"))))
        return working(*args)

    monkeypatch.setattr(session.engine.model, method, submitting)
    session.run()
    first, second = session.answer(older), session.answer(newer[0])
    assert first is not None
    assert second is not None
    assert first.stop == "superseded"
    assert older.cost.n_passes == 1
    check(session, newer[0].request, second)


@pytest.mark.parametrize("n_steps", N_STEPS)
def test_cancel_is_answered_after_the_pass_that_runs(session: Session, n_steps: int) -> None:
    ticket = session.submit(ask_long())
    for _ in range(n_steps):
        session.engine.step()
    ticket.cancel()
    ticket.cancel()
    assert session.answer(ticket) is None
    session.engine.step()
    completion = session.answer(ticket)
    assert completion is not None
    assert (completion.text, completion.stop) == ("", "cancel")
    check_cost(completion, n_steps)
    assert not session.engine.step()
    again = session.complete(ask_long())
    assert again.n_recomputed == again.n_prompt - completion.n_recomputed
    check(session, ask_long(), again)


def test_cancel_of_an_answered_request_does_nothing(session: Session) -> None:
    ticket = session.submit(ask())
    session.run()
    ticket.cancel()
    session.run()
    completion = session.answer(ticket)
    assert completion is not None
    assert completion.stop == "limit"


def test_a_cancelled_request_that_is_superseded_was_cancelled(session: Session) -> None:
    ticket = session.submit(ask())
    ticket.cancel()
    session.submit(ask())
    completion = session.answer(ticket)
    assert completion is not None
    assert completion.stop == "cancel"


def test_documents_take_turns(session: Session) -> None:
    tickets = [session.submit(ask(document=name, header=f"# {name}\n")) for name in "abc"]
    n_turns = 0
    while all(session.answer(ticket) is None for ticket in tickets):
        session.engine.step()
        n_turns += 1
        n_passes = [ticket.cost.n_passes + ticket.cost.n_healing_passes for ticket in tickets]
        assert sum(n_passes) <= n_turns
        assert max(n_passes) - min(n_passes) <= 1
    session.run()
    for ticket in tickets:
        completion = session.answer(ticket)
        assert completion is not None
        check(session, ticket.request, completion)


def test_documents_share_states(session: Session) -> None:
    """The same text in another file with the same header is read already."""
    session.complete(ask(document="a"))
    completion = session.complete(ask(document="b"))
    assert completion.n_recomputed == 0
    check(session, ask(document="b"), completion)


# What was asked before, and the request that is cancelled: while it reads, heals or writes, on an
# epoch's prompt or a bridge's.
LONG_TEXT = TEXT * 2
CANCELLED: dict[str, tuple[CompletionRequest | None, CompletionRequest]] = {
    "a first request": (None, ask(cursor=TEXT.index("mount\n\n"), max_tokens=8)),
    "typing goes on": (ask(), ask(*edited(TEXT, CURSOR, "type", "        retur"), max_tokens=8)),
    "a proposal": (ask(), ask(proposal="        return self.items[amount]\n", max_tokens=8)),
    "bridge": (ask(LONG_TEXT, len(LONG_TEXT)), ask(LONG_TEXT, 90, max_tokens=8)),
    "explicit": (ask(LONG_TEXT, len(LONG_TEXT)), ask(LONG_TEXT, 90, max_tokens=8, explicit=True)),
    "raw": (None, ask(LONG_TEXT, 300, max_tokens=8, raw=True)),
}


@pytest.mark.parametrize(("before", "request_"), CANCELLED.values(), ids=CANCELLED.keys())
def test_a_cancel_at_any_pass_boundary_leaves_nothing_wrong(
    new_session: Callable[..., Session],
    before: CompletionRequest | None,
    request_: CompletionRequest,
) -> None:
    """Asked again, the answer is the one that a fresh engine gives."""
    model = new_session().engine.model

    def new() -> Session:
        session = new_session(model)
        # Small, so that there are many boundaries.
        session.engine.decoder.chunk_tokens = 32
        if before is not None:
            session.complete(before)
        return session

    expected = new_session(model).complete(replace(request_, explicit=True))
    undisturbed = new()
    ticket = undisturbed.submit(request_)
    n_steps = 0
    while (answer := undisturbed.answer(ticket)) is None:
        assert undisturbed.engine.step()
        n_steps += 1
    assert n_steps >= 8
    assert answer.kind == ("bridge" if request_ is CANCELLED["bridge"][1] else "epoch")

    for n_before in range(n_steps + 1):
        session = new()
        ticket = session.submit(request_)
        for _ in range(n_before):
            assert session.engine.step()
        ticket.cancel()
        session.run()
        cancelled = session.answer(ticket)
        assert cancelled is not None, "it was never answered"
        if n_before < n_steps:
            assert (cancelled.text, cancelled.stop, cancelled.token_ids) == ("", "cancel", ())
        else:
            assert (cancelled.stop, cancelled.token_ids) == (answer.stop, answer.token_ids)
        again = session.complete(request_)
        check_exact(model, again)
        assert list(again.prompt_ids) == prompt_ids(session.engine, request_, again.kind)
        exact = session.complete(replace(request_, explicit=True))
        check_exact(model, exact)
        assert exact.prompt_ids == expected.prompt_ids
        assert (exact.text, exact.token_ids) == (expected.text, expected.token_ids)
        check_budget(session.engine)
        # Nothing that came later has answered it again.
        assert session.answers[ticket] == [cancelled]
