"""`keystate/cursorMoved`: the engine reads ahead; what cannot be meant is a log line."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from lsp_server.features.cursor_moved import CURSOR_MOVED
from tests.lsp_server.server_bench import URI, Bench, suggestion

if TYPE_CHECKING:
    from lsp_server.suggestions import Suggester

pytestmark = pytest.mark.asyncio

TIMEOUT_S = 60
LONG_TEXT = "".join(
    f"def scaled_{n}(value):\n    total = value * {n}\n    return total\n\n\n" for n in range(40)
)


def moved(line: Any, character: Any, uri: Any = URI) -> dict[str, Any]:
    return {"textDocument": {"uri": uri}, "position": {"line": line, "character": character}}


@pytest.mark.parametrize(
    ("line", "character", "seen"),
    [(0, 3, "x =| 1\n"), (0, 0, "|x = 1\n"), (0, 999, "x = 1|\n"), (2**31 - 1, 0, "x = 1\n|")],
    ids=["here", "start", "past the line", "past the text"],
)
async def test_the_engine_reads_ahead_to_the_cursor(
    ready_bench: Bench, line: int, character: int, seen: str
) -> None:
    ready_bench.tell(CURSOR_MOVED, moved(line, character))
    await ready_bench.settle()
    assert ready_bench.suggester.prepared == [seen]


async def test_not_in_a_document_that_is_not_open(ready_bench: Bench) -> None:
    ready_bench.tell(CURSOR_MOVED, moved(0, 0, "file:///elsewhere.py"))
    ready_bench.tell("textDocument/didClose", {"textDocument": {"uri": URI}})
    ready_bench.tell(CURSOR_MOVED, moved(0, 0))
    await ready_bench.settle()
    assert ready_bench.suggester.prepared == []
    assert b'"error"' not in ready_bench.sent


async def test_not_where_a_request_asks_already(ready_bench: Bench) -> None:
    ready_bench.tell(CURSOR_MOVED, moved(0, 2))
    ready_bench.complete(0, 2)
    await ready_bench.settle()
    assert ready_bench.suggester.prepared == []
    assert len(ready_bench.suggester.asked) == 1


async def test_not_where_the_text_has_changed_since(ready_bench: Bench) -> None:
    """The change says by itself where to read."""
    ready_bench.tell(CURSOR_MOVED, moved(0, 4))
    ready_bench.insert("y", 1)
    await ready_bench.settle()
    assert ready_bench.suggester.prepared == ["y|x = 1\n"]


async def test_before_the_model_is_loaded_it_is_dropped(bench: Bench) -> None:
    await bench.initialized()
    bench.tell(CURSOR_MOVED, moved(0, 2))
    await bench.settle()
    await bench.load()
    assert bench.suggester.prepared == []
    bench.tell(CURSOR_MOVED, moved(0, 1))
    await bench.settle()
    assert bench.suggester.prepared == ["x| = 1\n"]


MALFORMED: dict[str, Any] = {
    "nothing": None,
    "list": [URI, 0, 0],
    "empty": {},
    "no position": {"textDocument": {"uri": URI}},
    "no document": {"position": {"line": 0, "character": 0}},
    "document is text": {**moved(0, 0), "textDocument": URI},
    "uri is a number": moved(0, 0, 7),
    "uri is an object": moved(0, 0, {"secret": "words"}),
    "position is a list": {**moved(0, 0), "position": [0, 0]},
    "position is null": {**moved(0, 0), "position": None},
    "line is text": moved("0", 0),
    "line is a fraction": moved(0.5, 0),
    "character is null": moved(0, None),
    "line below zero": moved(-1, 0),
    "character below zero": moved(0, -1),
    "odd names": {"class": 1, "a b": 2, "": 3},
    "a name of the library's own": {"type_name": {"x": 1}},
}


@pytest.mark.parametrize("params", MALFORMED.values(), ids=MALFORMED.keys())
async def test_malformed_it_is_ignored_with_a_log_line(
    ready_bench: Bench, caplog: pytest.LogCaptureFixture, params: Any
) -> None:
    n_sent = len(ready_bench.sent)
    with caplog.at_level(logging.INFO):
        ready_bench.tell(CURSOR_MOVED, params)
        await ready_bench.settle()
    assert ready_bench.suggester.prepared == []
    assert len(ready_bench.sent) == n_sent, "the client is told nothing"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.exc_info is None
    assert "parameters of a wrong shape" in record.getMessage()
    assert "secret" not in caplog.text

    request = ready_bench.complete()
    await ready_bench.settle()
    ready_bench.suggester.answers[0].set_result(suggestion("still here"))
    await ready_bench.settle()
    assert ready_bench.result(request)["items"][0]["insertText"] == "still here"


@pytest.mark.parametrize("told", [True, False], ids=["told", "not told"])
async def test_what_was_read_ahead_is_not_read_again(stepped: Suggester, told: bool) -> None:
    """With an engine: a jump that the client has announced costs the answer nothing."""
    bench = Bench(stepped)
    try:
        await bench.initialized({"deadlineMs": 60_000})
        await bench.load()
        document = {"uri": URI, "languageId": "python", "version": 0, "text": LONG_TEXT}
        bench.tell("textDocument/didOpen", {"textDocument": document})
        await answered(bench, stepped, 150, 0)
        if told:
            bench.tell(CURSOR_MOVED, moved(21, 4))
            await bench.settle()
            while stepped.engine.step():
                pass
        counts = await answered(bench, stepped, 21, 4)
    finally:
        bench.close()
    assert counts["tokens"]["prompt"] > 100
    if told:
        assert (counts["prompt_kind"], counts["tokens"]["recomputed"]) == ("epoch", 0)
        assert counts["state_from"] != "none"
    else:
        assert counts["tokens"]["recomputed"] > 20


async def answered(bench: Bench, stepped: Suggester, line: int, character: int) -> dict[str, Any]:
    """Ask, and step the engine until it is answered; give what that took."""

    async def step() -> None:
        while not bench.answers(request):
            stepped.engine.step()
            await bench.settle()

    request = bench.complete(line, character)
    await asyncio.wait_for(step(), TIMEOUT_S)
    assert "items" in bench.result(request)
    (counts,) = bench.server.answers.take()
    return counts
