"""What a client tells of the items: counted on this machine, and no code with it."""

from __future__ import annotations

import json
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest

from lsp_server.features.accepted import ACCEPTED
from lsp_server.features.did_partially_accept_completion import DID_PARTIALLY_ACCEPT
from lsp_server.features.did_show_completion import DID_SHOW
from lsp_server.offers import MAX_OFFERS, SAVE_S
from lsp_server.private_files import statistics_path
from lsp_server.settings import Settings
from lsp_server.statistics import load_statistics
from tests.lsp_server.server_bench import URI, Bench, suggestion

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.asyncio


class Timers:
    """Stands in for the loop's `call_later`: what is due is run when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[float, Callable[..., object], tuple[Any, ...], Handle]] = []

    def call_later(self, seconds: float, work: Callable[..., object], *args: Any) -> Any:
        handle = Handle()
        self.waiting.append((seconds, work, args, handle))
        return handle

    def run(self, seconds: float) -> None:
        due = [one for one in self.waiting if one[0] == seconds]
        self.waiting = [one for one in self.waiting if one[0] != seconds]
        for _, work, args, handle in due:
            if not handle.is_cancelled:
                work(*args)

    @property
    def n_alive(self) -> int:
        return sum(not handle.is_cancelled for *_, handle in self.waiting)


class Handle:
    is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


@pytest.fixture
def timers(ready_bench: Bench) -> Timers:
    timers = Timers()
    offers = ready_bench.server.offers
    offers._call_later = timers.call_later
    offers._retention._call_later = timers.call_later
    return timers


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


async def offered(bench: Bench, text: str = "23 + len(y)") -> dict[str, Any]:
    """An item of this text, at the end of the document's first line."""
    request = bench.complete(0, 5, trigger=1)
    await bench.settle()
    bench.suggester.answers[-1].set_result(suggestion(text))
    await bench.settle()
    item: dict[str, Any] = bench.result(request)["items"][0]
    return item


async def edit(bench: Bench, start: tuple[int, int], end: tuple[int, int], text: str) -> None:
    ends = {
        name: {"line": at[0], "character": at[1]} for name, at in (("start", start), ("end", end))
    }
    document = {"uri": URI, "version": 1}
    changes = [{"range": ends, "text": text}]
    bench.tell("textDocument/didChange", {"textDocument": document, "contentChanges": changes})
    await bench.settle()


async def accept(bench: Bench, item: dict[str, Any], *, edited: bool = True) -> None:
    if edited:
        await edit(bench, (0, 5), (0, 5), item["insertText"])
    command = item["command"]
    request = bench.ask(
        "workspace/executeCommand",
        {"command": command["command"], "arguments": command["arguments"]},
    )
    await bench.settle()
    assert bench.result(request) is None


async def counted(bench: Bench) -> dict[str, int]:
    """Today's numbers, none of which was written yet."""
    await bench.settle()
    days = bench.server.offers.statistics._unsaved
    assert days.keys() <= {date.today().isoformat()}
    languages = days.get(date.today().isoformat(), {})
    assert languages.keys() <= {"python"}
    return languages.get("python", {})


async def test_the_command_is_the_servers_to_run(bench: Bench) -> None:
    request = bench.ask("initialize", {"capabilities": {}})
    await bench.settle()
    capabilities = bench.result(request)["capabilities"]
    assert capabilities["executeCommandProvider"]["commands"] == [ACCEPTED]
    assert ACCEPTED == "keystate.server.accepted"


async def test_shown_accepted_and_retained(ready_bench: Bench, timers: Timers) -> None:
    item = await offered(ready_bench)
    for _ in range(2):
        ready_bench.tell(DID_SHOW, {"item": item})
    await accept(ready_bench, item)
    assert await counted(ready_bench) == {"shown": 1, "accepted": 1, "accepted_chars": 11}
    timers.run(30.0)
    found = await counted(ready_bench)
    # Of the words alone: 23, +, len, (, y, ).
    assert (found["checked_30s_chars"], found["retained_30s_chars"]) == (9, 9)
    # x = 123 + len(y) becomes x = 123 + sum(y), with a line above.
    await edit(ready_bench, (0, 10), (0, 13), "sum")
    await edit(ready_bench, (0, 0), (0, 0), "import len\n")
    timers.run(300.0)
    found = await counted(ready_bench)
    assert (found["checked_5min_chars"], found["retained_5min_chars"]) == (9, 6)
    assert ready_bench.server.offers._retention._watched == []


async def test_what_was_deleted_is_not_retained(ready_bench: Bench, timers: Timers) -> None:
    await accept(ready_bench, await offered(ready_bench))
    await edit(ready_bench, (0, 0), (0, 16), "")
    timers.run(30.0)
    found = await counted(ready_bench)
    assert found["checked_30s_chars"] == 9
    assert "retained_30s_chars" not in found


async def test_a_formatter_takes_nothing_away(ready_bench: Bench, timers: Timers) -> None:
    await accept(ready_bench, await offered(ready_bench))
    await edit(ready_bench, (0, 0), (1, 0), "x = (\n    123 + len( y )\n)\n")
    timers.run(30.0)
    assert (await counted(ready_bench))["retained_30s_chars"] >= 7


async def test_an_acceptance_that_is_told_before_its_edit(
    ready_bench: Bench, timers: Timers
) -> None:
    item = await offered(ready_bench)
    await accept(ready_bench, item, edited=False)
    await edit(ready_bench, (0, 5), (0, 5), item["insertText"])
    timers.run(1.0)
    timers.run(30.0)
    assert (await counted(ready_bench))["retained_30s_chars"] == 9


async def test_parts_add_up(ready_bench: Bench, timers: Timers) -> None:
    item = await offered(ready_bench, "é🙂 + len(y)")
    # In UTF-16 units, from the text's start: the second counts what is new alone.
    for n_units, text in ((3, "é🙂"), (3, ""), (5, " +")):
        at = 5 + n_units - len(text.encode("utf-16-le")) // 2
        await edit(ready_bench, (0, at), (0, at), text)
        ready_bench.tell(DID_PARTIALLY_ACCEPT, {"item": item, "acceptedLength": n_units})
    assert await counted(ready_bench) == {
        **{"shown": 1, "partially_accepted": 1, "accepted_chars": 4}
    }
    await edit(ready_bench, (0, 10), (0, 10), " len(y)")
    await accept(ready_bench, item, edited=False)
    found = await counted(ready_bench)
    assert (found["accepted"], found["accepted_chars"]) == (1, 11)
    timers.run(30.0)
    assert (await counted(ready_bench))["retained_30s_chars"] == 9


async def test_the_rest_is_the_same_suggestion(ready_bench: Bench, timers: Timers) -> None:
    item = await offered(ready_bench)
    ready_bench.tell(DID_SHOW, {"item": item})
    await edit(ready_bench, (0, 5), (0, 5), "23")
    request = ready_bench.complete(0, 7)
    await ready_bench.settle()
    (rest,) = ready_bench.result(request)["items"]
    ready_bench.tell(DID_SHOW, {"item": rest})
    await edit(ready_bench, (0, 7), (0, 7), rest["insertText"])
    await accept(ready_bench, rest, edited=False)
    # What was typed is not saved.
    assert await counted(ready_bench) == {"shown": 1, "accepted": 1, "accepted_chars": 9}


async def test_what_a_menu_replaces_is_not_saved(ready_bench: Bench, timers: Timers) -> None:
    params = {
        "textDocument": {"uri": URI},
        "position": {"line": 0, "character": 5},
        "context": {
            "triggerKind": 1,
            "selectedCompletionInfo": {
                "range": {
                    "start": {"line": 0, "character": 4},
                    "end": {"line": 0, "character": 5},
                },
                "text": "100",
            },
        },
    }
    request = ready_bench.ask("textDocument/inlineCompletion", params)
    await ready_bench.settle()
    ready_bench.suggester.answers[-1].set_result(suggestion(" + y"))
    await ready_bench.settle()
    (item,) = ready_bench.result(request)["items"]
    assert item["insertText"] == "100 + y"
    await edit(ready_bench, (0, 4), (0, 5), "100 + y")
    await accept(ready_bench, item, edited=False)
    assert (await counted(ready_bench))["accepted_chars"] == len("00 + y")
    timers.run(30.0)
    assert (await counted(ready_bench))["retained_30s_chars"] == len("00+y")


async def test_switched_off_nothing_is_counted(ready_bench: Bench, timers: Timers) -> None:
    ready_bench.server.settings = Settings(statistics=False)
    item = await offered(ready_bench)
    ready_bench.tell(DID_SHOW, {"item": item})
    ready_bench.tell(DID_PARTIALLY_ACCEPT, {"item": item, "acceptedLength": 2})
    await accept(ready_bench, item)
    assert await counted(ready_bench) == {}
    assert timers.n_alive == 0
    ready_bench.server.offers.close()
    assert not statistics_path().exists()


async def test_a_closed_file_is_watched_no_more(ready_bench: Bench, timers: Timers) -> None:
    item = await offered(ready_bench)
    await accept(ready_bench, item)
    assert timers.n_alive == 3
    ready_bench.tell("textDocument/didClose", {"textDocument": {"uri": URI}})
    await ready_bench.settle()
    # What is counted is still to be written.
    assert timers.n_alive == 1
    await accept(ready_bench, item, edited=False)
    assert (await counted(ready_bench))["accepted"] == 1


async def test_old_offers_are_forgotten(ready_bench: Bench) -> None:
    first = await offered(ready_bench, "0")
    for _ in range(MAX_OFFERS):
        last = await offered(ready_bench, "1")
    ready_bench.tell(DID_SHOW, {"item": first})
    assert await counted(ready_bench) == {}
    ready_bench.tell(DID_SHOW, {"item": last})
    assert await counted(ready_bench) == {"shown": 1}


async def test_written_after_a_while_and_at_the_end(ready_bench: Bench, timers: Timers) -> None:
    item = await offered(ready_bench, "SECRET_CODE")
    ready_bench.tell(DID_SHOW, {"item": item})
    await ready_bench.settle()
    assert not statistics_path().exists()
    assert [seconds for seconds, *_ in timers.waiting] == [SAVE_S]
    await accept(ready_bench, item)
    ready_bench.server.offers.close()
    assert timers.n_alive == 0
    (languages,) = load_statistics(statistics_path()).values()
    assert languages == {"python": {"shown": 1, "accepted": 1, "accepted_chars": 11}}
    assert "SECRET_CODE" not in statistics_path().read_text()
    assert json.loads(statistics_path().read_text())["version"] == 1


async def test_without_a_home_folder_nothing_is_written(
    ready_bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("Could not determine home directory.")

    item = await offered(ready_bench)
    await accept(ready_bench, item)
    with monkeypatch.context() as patch:
        patch.delenv("XDG_STATE_HOME")
        patch.setattr("pathlib.Path.home", fail)
        ready_bench.server.offers.close()
    assert "statistics were not saved: the user has no home folder" in caplog.text
    assert not statistics_path().exists()


MALFORMED: list[Any] = [
    *(None, [], {}, "x", {"item": None}, {"item": {"command": None}}),
    {"item": {"command": {"arguments": []}}, "acceptedLength": 1},
    {"item": {"command": {"arguments": [7]}}, "acceptedLength": 1},
    {"item": {"command": {"arguments": ["unknown"]}}, "acceptedLength": 1},
    {"item": {"command": {"arguments": {"0": "x"}}}, "acceptedLength": "1"},
    {"item": {"command": {"arguments": ["x"]}}, "acceptedLength": -1},
]


@pytest.mark.parametrize("params", MALFORMED, ids=range(len(MALFORMED)))
async def test_what_cannot_be_meant_is_a_log_line(ready_bench: Bench, params: Any) -> None:
    ready_bench.tell(DID_SHOW, params)
    ready_bench.tell(DID_PARTIALLY_ACCEPT, params)
    await ready_bench.settle()
    assert await counted(ready_bench) == {}
    assert b'"error"' not in ready_bench.sent
    assert b"showMessage" not in ready_bench.sent


@pytest.mark.parametrize("arguments", [None, [], [7], [None, {}], ["unknown"], ["a", "b", "c"]])
async def test_any_arguments_are_answered(ready_bench: Bench, arguments: Any) -> None:
    params = {"command": ACCEPTED, "arguments": arguments}
    request = ready_bench.ask("workspace/executeCommand", params)
    await ready_bench.settle()
    assert ready_bench.result(request) is None
    assert await counted(ready_bench) == {}
