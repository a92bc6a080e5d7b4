"""Errors, crashes and memory that runs out: an empty answer, and the next one is right."""

from __future__ import annotations

import itertools
import threading
from queue import Queue
from typing import TYPE_CHECKING, Any

import pytest
import torch

from engine.decode import Decoder
from engine.engine import Engine
from engine.run import Run
from engine.slots import SlotPool
from engine.trail import Trail
from engine.walk import Walk
from tests.engine.engine_world import CURSOR, TEXT, Edit, Session, ask, check, play
from tests.oracle import check_exact

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.mamba2 import Mamba2
    from engine.request import Completion
    from engine.state import RecurrentState
    from engine.ticket import Ticket
    from engine.tokenizer import Tokenizer


@pytest.mark.parametrize("method", ["read", "forward", "logits"])
@pytest.mark.parametrize("n_good", [0, 2])
def test_a_completion_that_fails_is_answered_and_the_next_one_is_right(
    session: Session, monkeypatch: pytest.MonkeyPatch, method: str, n_good: int
) -> None:
    calls = itertools.count()
    working = getattr(session.engine.model, method)

    def failing(*args: Any) -> Any:
        if next(calls) >= n_good:
            raise MemoryError("no room")
        return working(*args)

    with monkeypatch.context() as patch:
        patch.setattr(session.engine.model, method, failing)
        ticket = session.submit(ask())
        other = session.submit(ask(document="other", header=""))
        session.run()
        for failed in (ticket, other):
            completion = session.answer(failed)
            assert completion is not None
            assert (completion.text, completion.stop) == ("", "error")
    completion = session.complete(ask())
    check(session, ask(), completion)
    assert session.engine.counters()["answers_error"] == 2


def test_a_preparation_that_fails_is_dropped(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> Any:
        raise RuntimeError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(session.engine.model, "read", failing)
        patch.setattr(session.engine.model, "forward", failing)
        session.engine.prepare(ask())
        assert session.run() == 1
    check(session, ask(), session.complete(ask()))


SHORT_SCRIPT: list[Edit] = [
    *[("type", text) for text in ("        s", "e", "l")],
    ("type", "f.items = [amount for amount in self.items if amount > 1]"),
    *[("delete", 1)] * 2,
    ("jump", TEXT.index("items: list")),
    ("jump", CURSOR + 20),
    ("type", "s"),
    ("jump", TEXT.index("items: list") + 2),
]
POINTS = [
    (SlotPool, "write", 2),
    (SlotPool, "read", 1),
    (SlotPool, "read", 2),
    (Trail, "at", 2),
    (Trail, "extend", 2),
    (Trail, "cut", 2),
    (Trail, "move_up", 2),
    (Trail, "remember", 2),
    (Decoder, "_begin_trail", 2),
    (Run, "own", 2),
    (Walk, "runs", 2),
]


@pytest.mark.parametrize(
    ("cls", "method", "every"), POINTS, ids=lambda value: getattr(value, "__name__", value)
)
def test_where_there_is_no_memory_to_keep_states_answers_are_right(
    new_session: Callable[..., Session],
    monkeypatch: pytest.MonkeyPatch,
    cls: type,
    method: str,
    every: int,
) -> None:
    """It fails when half is done: what was written in part must not be used."""
    session = new_session(budget_bytes=10 * 2**14, host_budget_bytes=10 * 2**14)
    working = getattr(cls, method)
    calls = itertools.count(1)

    def failing(*args: Any, **named: Any) -> Any:
        result = working(*args, **named)
        if next(calls) % every == 0:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return result

    monkeypatch.setattr(cls, method, failing)
    play(session, SHORT_SCRIPT)
    assert next(calls) > every, "it was never called"


def test_where_there_is_no_memory_for_a_trail_s_states_the_cache_has_others(
    new_session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are made in the middle of an answer, when a pass needs them."""
    session = new_session()
    session.complete(ask())
    replayed, n_failed = Trail._replayed, 0

    def failing(trail: Trail) -> Callable[[int], RecurrentState]:
        working = replayed(trail)

        def state_after(n: int) -> RecurrentState:
            nonlocal n_failed
            if n:
                n_failed += 1
                raise torch.OutOfMemoryError("CUDA out of memory")
            return working(n)

        return state_after

    monkeypatch.setattr(Trail, "_replayed", failing)
    # Behind what the answer before wrote, a state is needed; then all is written anew.
    longer = ask(max_tokens=9)
    completion = session.complete(longer)
    assert n_failed
    assert len(completion.token_ids) == completion.n_generated == 9
    check(session, longer, completion)
    n_failed = 0
    play(session, SHORT_SCRIPT)
    assert n_failed


def test_what_cannot_be_kept_leaves_no_lease(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(Decoder, "keep", failing)
    session.complete(ask())
    session.engine.decoder.trails.clear()
    assert session.complete(ask()).source == "tier0"
    entries = session.engine.cache._owned.values()
    assert not any(entry.n_leases for owned in entries for entry in owned)


def test_where_there_is_no_memory_for_slots_nothing_is_kept(
    new_session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = new_session().engine.model

    def failing(*_: Any, **__: Any) -> Any:
        raise RuntimeError(
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte"
        )

    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", failing)
        session = new_session(model, host_budget_bytes=2**20)
    play(session, SHORT_SCRIPT)
    assert session.engine.cache.n_bytes == 0
    assert session.engine.counters()["cache_refused"] > 0


def test_a_crash_of_the_engine_is_answered_and_the_next_request_is_right(
    started: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error outside of a completion: nothing that is kept can be trusted any more."""
    answers: Queue[Completion] = Queue()
    started.start()
    started.submit(ask(), answers.put)
    assert answers.get(timeout=60).stop == "limit"
    chunk_tokens, turn = started.decoder.chunk_tokens, started._schedule.turn
    crashed = threading.Event()

    def crashing(now: float) -> Ticket | None:
        ticket = turn(now)
        if ticket is not None and not ticket.is_build and not crashed.is_set():
            crashed.set()
            raise RuntimeError("broken")
        return ticket

    monkeypatch.setattr(started._schedule, "turn", crashing)
    with started._wake:
        for name in "abc":
            started.submit(ask(document=name), answers.put)
        started.prepare(ask(document="d"))
    stops = [answers.get(timeout=60).stop for _ in range(3)]
    assert stops == ["error"] * 3
    started.submit(ask(), answers.put)
    completion = answers.get(timeout=60)
    assert completion.n_recomputed == completion.n_prompt, "nothing was kept"
    check_exact(started.model, completion)
    assert started.decoder.chunk_tokens == chunk_tokens
    started.submit(ask(), answers.put)
    assert answers.get(timeout=60).source == "trail"
    started.close()
    assert answers.empty()
    assert started.counters()["answers_error"] == 3
    assert (
        started.counters()["cache_bytes"] == len(started.cache) * started.cache.tiers[0].slot_bytes
    )


def test_an_engine_that_cannot_start_again_answers_all_and_takes_no_more(
    started: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: Queue[Completion] = Queue()

    def failing(*_: object) -> Any:
        raise RuntimeError("an error of the device, which no call survives")

    monkeypatch.setattr(started._schedule, "turn", failing)
    monkeypatch.setattr(started, "_begin", failing)
    with started._wake:
        for name in "ab":
            started.submit(ask(document=name), answers.put)
    started.start()
    assert [answers.get(timeout=60).stop for _ in range(2)] == ["error"] * 2
    assert started._thread is not None
    started._thread.join(60)
    assert not started._thread.is_alive()
    with pytest.raises(RuntimeError, match="closed"):
        started.submit(ask(), answers.put)
    started.close()
    assert answers.empty()


def test_a_document_that_cannot_be_forgotten_crashes_the_engine_once(
    started: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def failing(document: str) -> None:
        calls.append(document)
        raise RuntimeError("broken")

    monkeypatch.setattr(started.epochs, "forget", failing)
    answers: Queue[Completion] = Queue()
    started.start()
    started.forget("cart.py")
    while not calls:
        started.submit(ask(), answers.put)
        answers.get(timeout=60)
    started.submit(ask(), answers.put)
    assert answers.get(timeout=60).stop in ("limit", "error")
    started.submit(ask(), answers.put)
    completion = answers.get(timeout=60)
    check_exact(started.model, completion)
    assert completion.stop == "limit"
    assert calls == ["cart.py"]
    started.close()


@pytest.mark.parametrize("name", ["budget_bytes", "host_budget_bytes"])
def test_a_negative_budget_is_refused(new_session: Callable[..., Session], name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} .*-1"):
        new_session(**{name: -1})


def test_a_receiver_that_fails_harms_nobody_else(session: Session) -> None:
    called = []

    def failing(completion: Completion) -> None:
        called.append(completion.stop)
        raise RuntimeError("broken")

    session.engine.submit(ask(), failing)
    ticket = session.submit(ask(document="other"))
    session.run()
    assert called == ["limit"]
    completion = session.answer(ticket)
    assert completion is not None
    check(session, ticket.request, completion)
    session.engine.submit(ask(), failing)
    session.submit(ask())
    assert called == ["limit", "superseded"]


def test_a_tokenizer_of_another_model_is_refused(
    tiny_model: Callable[..., Mamba2], tokenizer: Tokenizer
) -> None:
    with pytest.raises(ValueError, match=f"{tokenizer.n_vocab} pieces .* {tokenizer.n_vocab - 1}"):
        Engine(tiny_model(vocab_size=tokenizer.n_vocab - 1), tokenizer)
