"""How answers end: by what they say, or by their deadline."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.engine_world import CURSOR, TEXT, Session, ask, check, edited
from tests.oracle import check_exact

if TYPE_CHECKING:
    from collections.abc import Callable

# The prefixes end where nothing is held back, with a token that the spoken text does not repeat.
LINE = "x\n"
BLOCK = "def f():\n\t"


@pytest.mark.parametrize(
    ("prefix", "spoken", "changes", "text", "stop"),
    [
        pytest.param(LINE, "ab =cf\n", {}, "ab =cf", "line", id="line"),
        pytest.param(LINE, "ab =cf\r", {}, "ab =cf", "line", id="line, CR"),
        pytest.param(LINE, "\r", {}, "", "line", id="line ends at once"),
        pytest.param(LINE, "ab =cf", {}, "ab =cf", "eos", id="end of sequence"),
        pytest.param(LINE, "", {}, "", "eos", id="end of sequence at once"),
        pytest.param(LINE, "🍰", {}, "🍰", "eos", id="character in four tokens"),
        pytest.param(LINE, "🍰", {"max_tokens": 4}, "🍰", "limit", id="limit behind a character"),
        pytest.param(LINE, "🍰", {"max_tokens": 3}, "", "limit", id="limit in a character"),
        pytest.param(BLOCK, "ab =cf\nd", {"multiline": True}, "ab =cf", "block", id="block"),
        pytest.param(BLOCK, "ab =cf\nd", {}, "ab =cf", "line", id="one line of a block"),
        pytest.param(BLOCK, "ab{\nd", {"with_block": True}, "ab{", "block", id="block opened"),
        pytest.param(LINE, "ab{\r\td", {"with_block": True}, "ab{\r\td", "eos", id="its lines"),
        pytest.param(LINE, "ab{\r\td", {}, "ab{", "line", id="one line that opens a block"),
        pytest.param(BLOCK, "ab\ncf", {"raw": True}, "ab\ncf", "eos", id="raw: no stop rule"),
    ],
)
def test_stops(
    speaking: Callable[..., Session],
    prefix: str,
    spoken: str,
    changes: dict[str, Any],
    text: str,
    stop: str,
) -> None:
    request = ask(header="", prefix=prefix, suffix="", **{"max_tokens": 32, **changes})
    session = speaking(prefix, spoken)
    completion = session.complete(request)
    assert (completion.text, completion.stop) == (text, stop)
    check_exact(session.engine.model, completion)
    assert session.engine.counters()[f"answers_{stop}"] == 1


@pytest.mark.parametrize(
    "changes", [{"max_tokens": 0}, {"deadline_ms": -1.0}], ids=["max_tokens", "deadline_ms"]
)
def test_a_request_that_cannot_be_meant_is_refused(changes: dict[str, Any]) -> None:
    name, value = next(iter(changes.items()))
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        ask(**changes)


# Deadlines


def test_a_deadline_while_writing_gives_complete_words(speaking: Callable[..., Session]) -> None:
    spoken = "abc.def =ghi(jkl)\n"
    line = spoken[:-1]
    shown = set()
    for deadline_ms in range(0, 400, 10):
        session = speaking(LINE, spoken)
        request = ask(
            header="", prefix=LINE, suffix="", max_tokens=64, deadline_ms=float(deadline_ms)
        )
        completion = session.complete(request, ms_per_step=10)
        text = completion.text
        if completion.stop == "line":
            break
        assert completion.stop == "deadline"
        assert line.startswith(text)
        assert not (text[-1:].isalnum() and line[len(text)].isalnum()), text
        assert 10 * (completion.n_passes + 1) >= deadline_ms, "it ended too early"
        shown.add(text)
    assert completion.text == line
    assert "" in shown
    assert len(shown) >= 3


def test_a_deadline_while_writing_gives_complete_lines(speaking: Callable[..., Session]) -> None:
    spoken = "ab =cf\n\t"  # and so on: what follows a tab is known
    request = ask(
        header="", prefix=BLOCK, suffix="", max_tokens=64, multiline=True, deadline_ms=150.0
    )
    completion = speaking(BLOCK, spoken).complete(request, ms_per_step=10)
    assert completion.stop == "deadline"
    assert set(completion.text.split("\n\t")) == {"ab =cf"}


def test_a_line_that_is_complete_at_the_deadline_is_complete(
    speaking: Callable[..., Session],
) -> None:
    request = ask(header="", prefix=LINE, suffix="", max_tokens=64)
    session = speaking(LINE, "ab =cf\n")
    session.submit(request)
    n_steps = session.run()
    # The last pass ends just at the deadline.
    request = replace(request, deadline_ms=10.0 * (n_steps - 1))
    completion = speaking(LINE, "ab =cf\n").complete(request, ms_per_step=10)
    assert (completion.stop, completion.text) == ("line", "ab =cf")


def test_raw_at_a_deadline_keeps_what_was_written(speaking: Callable[..., Session]) -> None:
    session = speaking(LINE, "abc.def")
    request = ask(header="", prefix=LINE, suffix="", raw=True, deadline_ms=30.0)
    completion = session.complete(request, ms_per_step=10)
    assert completion.stop == "deadline"
    tokenizer = session.engine.tokenizer
    assert completion.text == tokenizer.decode(completion.token_ids) != ""


@pytest.mark.parametrize("drained", [False, True], ids=["at once", "after the build"])
def test_a_deadline_while_reading_is_answered_empty_and_the_next_request_goes_on(
    session: Session, drained: bool
) -> None:
    session.engine.decoder.chunk_tokens = 16
    request = ask(deadline_ms=25.0)
    ticket = session.submit(request)
    while (late := session.answer(ticket)) is None:
        session.engine.step()
        session.clock.advance_ms(10)
    assert (late.text, late.stop, late.token_ids) == ("", "deadline", ())
    assert late.n_passes == 4, "the pass that ran into the deadline is the last"
    assert 0 < late.n_recomputed < late.n_prompt
    n_left = late.n_prompt - late.n_recomputed
    if not drained:
        completion = session.complete(ask())
        assert completion.n_recomputed == n_left
        assert session.engine.counters()["background_tokens"] == 0
    else:
        session.run()
        completion = session.complete(ask())
        assert completion.n_recomputed == 0
        assert session.engine.counters()["background_tokens"] == n_left
    check(session, request, completion)


def test_the_deadline_counts_from_submission(session: Session) -> None:
    ticket = session.submit(ask(deadline_ms=1000.0))
    session.clock.advance_ms(1001.0)
    session.engine.step()
    completion = session.answer(ticket)
    assert completion is not None
    assert (completion.stop, completion.n_passes) == ("deadline", 1)
    assert completion.timings_ms["queue"] == pytest.approx(1001.0)


def test_a_deadline_while_healing_keeps_what_was_read(session: Session) -> None:
    text, cursor = edited(TEXT, CURSOR, "type", "        return amo")
    session.engine.prepare(ask(text, cursor))
    session.run()
    late = session.complete(ask(text, cursor, deadline_ms=0.0))
    assert (late.text, late.stop, late.n_recomputed) == ("", "deadline", 0)
    assert late.n_healing_passes == 1
    completion = session.complete(ask(text, cursor))
    assert completion.n_recomputed == 0
    check(session, ask(text, cursor), completion)


def test_without_a_deadline_it_takes_its_time(session: Session) -> None:
    assert session.complete(ask(), ms_per_step=1e6).stop == "limit"
