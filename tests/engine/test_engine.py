"""Closing, counting and timing, and the engine's own thread."""

from __future__ import annotations

import inspect
import itertools
import threading
import time
from collections import Counter
from queue import Queue
from typing import TYPE_CHECKING, Any

import pytest

from engine.decode import Decoder
from tests.engine.engine_world import CURSOR, TEXT, Session, ask, check, edited, n_reads, prompt_ids
from tests.oracle import check_exact

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.engine import Engine
    from engine.request import Completion, CompletionRequest
    from engine.ticket import Ticket


@pytest.mark.parametrize("n_steps", [0, 3])
def test_close_answers_what_waits(session: Session, n_steps: int) -> None:
    tickets = [session.submit(ask(document=name)) for name in "ab"]
    session.engine.prepare(ask(document="c"))
    for _ in range(n_steps):
        session.engine.step()
    session.engine.close()
    session.engine.close()
    for ticket in tickets:
        completion = session.answer(ticket)
        assert completion is not None
        assert (completion.text, completion.stop) == ("", "cancel")
    session.engine.prepare(ask())
    assert not session.engine.step()
    with pytest.raises(RuntimeError, match="closed"):
        session.submit(ask())


def test_counters(session: Session) -> None:
    nothing = {
        "cache_checkpoints": 0,
        "cache_bytes": 0,
        "int8_states": 0,
        "trail_hits": 0,
        "trail_bytes": 0,
        "background_tokens": 0,
        "background_passes": 0,
    }
    assert session.engine.counters() == nothing
    first = session.complete(ask())
    session.submit(ask()).cancel()
    on_trail = session.complete(ask())
    session.engine.decoder.trails.clear()
    cached = session.complete(ask())
    assert [c.source for c in (first, on_trail, cached)] == ["none", "trail", "tier0"]
    other = ask(document="other", suffix="x")
    session.engine.prepare(other)
    session.run()
    cache, decoder = session.engine.cache, session.engine.decoder
    n_other = len(prompt_ids(session.engine, other, "epoch"))
    assert session.engine.counters() == {
        **nothing,
        "answers_cancel": 1,
        "answers_limit": 3,
        "cache_checkpoints": len(cache),
        "cache_bytes": cache.n_bytes,
        "cache_hits_tier0": 1,
        "cache_misses": 2,
        "cache_thinned": cache.counts["thinned"],
        "trail_hits": 1,
        "trail_bytes": decoder.trail_bytes,
        "background_tokens": n_other,
        "background_passes": len(list(decoder.passes(0, n_other))),
    }
    assert n_reads(session, first) <= len(cache) + cache.counts["thinned"]
    assert cache.n_bytes == len(cache) * session.engine.model.initial_state().n_bytes


def test_an_idle_step_does_nothing(session: Session) -> None:
    assert not session.engine.step()


@pytest.mark.parametrize("raises", [False, True], ids=["kept", "not kept"])
def test_an_answer_goes_out_before_it_is_kept(
    session: Session, monkeypatch: pytest.MonkeyPatch, raises: bool
) -> None:
    """Who waits for it waits for nothing else, and whether it can be kept is no matter."""
    order: list[str] = []
    keep = Decoder.keep

    def noted(*args: Any) -> None:
        order.append("kept")
        if raises:
            raise RuntimeError("broken")
        keep(*args)

    monkeypatch.setattr(Decoder, "keep", noted)
    answers: list[Completion] = []

    def on_done(completion: Completion) -> None:
        order.append("answered")
        answers.append(completion)

    # The ticket is held: its work would be closed, and kept, when it is let go of.
    session.answers[session.engine.submit(ask(), on_done)] = answers
    session.run()
    assert order == ["answered", "kept"]
    check(session, ask(), answers[0])
    monkeypatch.undo()
    check(session, ask(), session.complete(ask()))


def test_what_was_superseded_is_closed_before_the_next_pass(session: Session) -> None:
    """Also where somebody holds its ticket: what it has leased is wanted."""
    older = session.submit(ask())
    session.engine.step()
    assert older._work is not None
    session.submit(ask())
    assert inspect.getgeneratorstate(older._work) == inspect.GEN_SUSPENDED, "not from any thread"
    session.engine.step()
    assert inspect.getgeneratorstate(older._work) == inspect.GEN_CLOSED


def take_5_ms(
    session: Session, monkeypatch: pytest.MonkeyPatch, owner: object, *methods: str
) -> None:
    """Have calls of methods take time on the session's clock."""

    def taking(method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any) -> Any:
            session.clock.advance_ms(5.0)
            return method(*args)

        return timed

    for name in methods:
        monkeypatch.setattr(owner, name, taking(getattr(owner, name)))


def test_times_are_those_of_the_own_passes(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passes of other documents count as waiting."""
    take_5_ms(session, monkeypatch, session.engine.model, "read", "forward")
    started = session.clock.now
    requests = [ask(document=name, header=name + "\n", cursor=CURSOR - 1) for name in "ab"]
    ended: dict[str, float] = {}
    answers: list[Completion] = []

    def receiver(name: str) -> Callable[[Completion], None]:
        def on_done(completion: Completion) -> None:
            ended[name] = 1e3 * (session.clock.now - started)
            answers.append(completion)

        return on_done

    for request in requests:
        session.engine.submit(request, receiver(request.document))
    session.run()
    for completion, request in zip(answers, requests, strict=True):
        times = completion.timings_ms
        n_decoded = completion.n_generated - 1
        assert times["decode"] == pytest.approx(5 * n_decoded)
        assert times["prefill"] == pytest.approx(5 * (completion.n_passes - n_decoded))
        assert times["heal"] == pytest.approx(5 * completion.n_healing_passes)
        assert sum(times.values()) == pytest.approx(ended[request.document])
        assert times["queue"] > 0


def test_a_short_answer_does_not_wait_for_a_long_one(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has had the least time goes first; among equals, documents take turns."""
    take_5_ms(session, monkeypatch, session.engine.model, "read", "forward")
    long = session.submit(ask(document="long", max_tokens=40, raw=True))
    while long.cost.n_passes < 30:
        session.engine.step()
    short = session.submit(ask(document="short", max_tokens=4, raw=True))
    while session.answer(short) is None:
        session.engine.step()
    assert session.answer(long) is None
    assert long.cost.n_passes == 30
    session.run()
    assert session.answer(long) is not None


@pytest.mark.parametrize(("deadline_ms", "stop"), [(500.0, "deadline"), (None, "limit")])
def test_a_long_answer_comes_however_many_short_ones_do(
    session: Session, monkeypatch: pytest.MonkeyPatch, deadline_ms: float | None, stop: str
) -> None:
    take_5_ms(session, monkeypatch, session.engine, "_advance")
    long = session.submit(
        ask(document="long", max_tokens=40, raw=True, deadline_ms=deadline_ms, explicit=True)
    )
    others: dict[str, Ticket] = {}
    completion = None
    for n in range(3000):
        for name in ("a.py", "b.py"):
            if name not in others or session.answer(others[name]) is not None:
                others[name] = session.submit(ask(document=name, prefix=f"x = {n}\ny = foo("))
        session.engine.step()
        completion = session.answer(long)
        if completion is not None:
            break
    assert completion is not None
    assert completion.stop == stop
    if deadline_ms is not None:
        assert 1e3 * (session.clock.now - long.submitted) < deadline_ms + 50


# A thread of its own


def test_requests_from_several_threads_are_answered_once_each(started: Engine) -> None:
    n_threads, n_rounds = 4, 5
    answers: Queue[tuple[tuple[int, int], Completion]] = Queue()
    requests: dict[tuple[int, int], CompletionRequest] = {}

    def receiver(key: tuple[int, int]) -> Callable[[Completion], None]:
        return lambda completion: answers.put((key, completion))

    def submit(thread: int) -> None:
        for i in range(n_rounds):
            key = (thread, i)
            text, cursor = edited(TEXT, CURSOR, "type", "self"[: 1 + i % 4])
            # Half of the threads share a document.
            requests[key] = ask(text, cursor, document=f"{max(thread, 1)}")
            started.prepare(requests[key])
            started.submit(requests[key], receiver(key))

    started.start()
    started.start()
    threads = [threading.Thread(target=submit, args=(i,)) for i in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    received = [answers.get(timeout=60) for _ in range(n_threads * n_rounds)]
    started.close()
    assert answers.empty()
    assert Counter(key for key, _ in received) == Counter(list(requests))
    done = [completion for _, completion in received if completion.stop != "superseded"]
    assert len(done) >= n_threads - 1
    for completion in done:
        assert completion.stop == "limit"
        check_exact(started.model, completion)


def test_close_while_the_thread_works(started: Engine) -> None:
    answers: Queue[Completion] = Queue()
    started.start()
    for i in range(6):
        request = ask(document=str(i), max_tokens=500, deadline_ms=None, raw=True)
        started.submit(request, answers.put)
    started.close()
    stops = [answers.get_nowait().stop for _ in range(6)]
    assert answers.empty()
    assert set(stops) <= {"cancel", "eos", "limit"}
    assert "cancel" in stops
    assert not any(thread.name == "engine" for thread in threading.enumerate())


def test_a_thread_that_waits_wakes_up(started: Engine) -> None:
    answers: Queue[Completion] = Queue()
    started.start()
    for _ in range(3):
        started.submit(ask(), answers.put)
        assert answers.get(timeout=60).stop == "limit"
    started.close()


def test_a_warm_up_that_fails_does_not_end_the_thread(
    started: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing() -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(started, "warm_up", failing)
    answers: Queue[Completion] = Queue()
    started.start()
    started.submit(ask(), answers.put)
    assert answers.get(timeout=60).stop == "limit"
    started.close()


@pytest.mark.parametrize(
    ("ms_per_pass", "chunk_tokens"),
    [(1e-3, 2048), (10.0, 640), (1e4, 32)],
    ids=["fast", "usual", "slow"],
)
def test_warm_up_sizes_passes_to_25_ms(
    session: Session, monkeypatch: pytest.MonkeyPatch, ms_per_pass: float, chunk_tokens: int
) -> None:
    # 256 tokens a pass
    monkeypatch.setattr(time, "perf_counter", itertools.count(0, ms_per_pass / 1e3).__next__)
    session.engine.warm_up()
    monkeypatch.undo()
    assert session.engine.decoder.chunk_tokens == pytest.approx(chunk_tokens, abs=32)
    assert session.engine.decoder.chunk_tokens % 32 == 0
    assert len(session.engine.cache) == 0
    check(session, ask(), session.complete(ask()))
