"""Characters that a suggestion would have saved, counted on traces that are told by hand."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lsp_server.documents import Change, Position
from perf.completed_code import CompletedCode, completed_code
from perf.trace_format import Event, Trace
from perf.typed_run import CAREFUL
from perf.typing_model import type_changes

if TYPE_CHECKING:
    from collections.abc import Callable

    from lsp_server.documents import Document

ROOT = Path(__file__).parents[2]


def typed(text: str, at: int, next_: str, kind: str = "type", **changes: Any) -> Event:
    """Text typed in the first line at a column; what is left to type is `next_`."""
    start = Position(0, at)
    fields: dict[str, Any] = {
        "t_ms": at,
        "kind": kind,
        "changes": (Change(text=text, range=(start, start)),),
        "cursor": Position(0, at + len(text)),
        "next": next_,
    }
    return Event(**{**fields, **changes})


def trace_of(*events: Event, text: str = "") -> Trace:
    return Trace(path="a.py", language_id="python", text=text, events=events)


def counted(trace: Trace, suggest: Callable[[str], str]) -> CompletedCode:
    """What is counted when what is suggested depends on the text before the cursor."""

    async def ask(document: Document, position: Position) -> str:
        return suggest(document.slice(0, document.offset_at(position)))

    return asyncio.run(completed_code(trace, ask))


def letters(text: str) -> Trace:
    """A text of one line, typed letter by letter."""
    return trace_of(*(typed(text[n], n, text[n + 1 :]) for n in range(len(text))))


def test_what_an_accepted_suggestion_brings_is_completed() -> None:
    asked = []

    def suggest(before: str) -> str:
        asked.append(before)
        return "de" if before == "abc" else ""

    found = counted(letters("abcdefg"), suggest)
    assert found == CompletedCode(n_typed_chars=7, n_completed_chars=2, n_shown=1, n_accepted=1)
    assert found.ratio == pytest.approx(2 / 7)
    # None while it is accepted, but again behind it; none where nothing is typed any more.
    assert asked == ["a", "ab", "abc", "abcde", "abcdef"]


def test_a_suggestion_that_is_not_what_comes_is_not_accepted() -> None:
    found = counted(letters("abcd"), lambda before: "cx")
    assert found == CompletedCode(n_typed_chars=4, n_completed_chars=0, n_shown=3, n_accepted=0)


def test_a_key_may_bring_more_than_was_left() -> None:
    events = [typed("a", 0, "bcdef"), typed("bcde", 1, "f"), typed("f", 5, "")]
    found = counted(trace_of(*events), lambda before: "bc" if before == "a" else "")
    assert found.n_completed_chars == 2
    assert found.n_typed_chars == 6


def test_going_elsewhere_ends_it() -> None:
    away = Event(t_ms=9, kind="jump", cursor=Position(0, 0), next="")
    back = Event(t_ms=9, kind="jump", cursor=Position(0, 2), next="cd")
    events = [typed("a", 0, "bcd"), typed("b", 1, "cd"), away, back, typed("c", 2, "d")]
    found = counted(trace_of(*events), lambda before: "bcd" if before == "a" else "")
    assert found.n_completed_chars == 1


def test_only_typing_counts() -> None:
    events = [typed("ab", 0, "cd", kind="paste"), typed("c", 2, "d"), typed("d", 3, "", "accept")]
    found = counted(trace_of(*events), lambda before: "cd" if before == "ab" else "")
    assert (found.n_typed_chars, found.n_completed_chars) == (1, 1)


def test_what_the_editor_closes_was_not_typed() -> None:
    events = [typed("()", 0, "a", cursor=Position(0, 1)), typed("a", 1, "")]
    assert counted(trace_of(*events), lambda before: "a").n_typed_chars == 2


def test_where_no_request_is_sent_nothing_is_asked() -> None:
    found = counted(trace_of(typed("a", 0, "b", request=False), typed("b", 1, "")), lambda _: "b")
    assert found.n_shown == 0


def test_sums_and_nothing_typed() -> None:
    one = CompletedCode(n_typed_chars=4, n_completed_chars=1, n_shown=2, n_accepted=1)
    assert (one + CompletedCode() + one).figures == {
        "typed_chars": 8,
        "completed_chars": 2,
        "ratio_completed": 0.25,
        "shown": 4,
        "accepted": 2,
    }
    assert CompletedCode().ratio == 0


def test_who_knows_the_future_types_little() -> None:
    """On a trace of the typing model: suggestions that are always right save whole lines."""
    old = (ROOT / "lsp_server" / "scheduler.py").read_text(encoding="utf-8")[:1200]
    middle = old.index("\n    async def")
    new = old[:middle] + "\n    count = len(self.tasks)\n    other = count + 1\n" + old[middle:]
    trace = type_changes(
        old, new, random.Random(1), path="a.py", language_id="python", habits=CAREFUL
    )
    nexts = iter(trace.events)

    async def ask(document: Document, position: Position) -> str:
        event = next(event for event in nexts if event.cursor == position and event.next)
        return event.next.partition("\n")[0]

    found = asyncio.run(completed_code(trace, ask))
    # All but line ends and indentation, where nothing was suggested.
    assert found.n_completed_chars == len("count = len(self.tasks)other = count + 1")
    assert found.n_completed_chars < found.n_typed_chars
