"""The server in this process with an engine under the test's control, then the real one outside."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from lsp_server.documents import Document, Position
from lsp_server.features.accepted import ACCEPTED
from perf.client import INVOKED, SERVER_COMMAND, Client, ResponseError
from tests.lsp_server.server_bench import DID_CHANGE, URI, Bench, insertion, suggestion

if TYPE_CHECKING:
    from pathlib import Path

    from lsp_server.suggestions import Suggester

ONE_SERVER = pytest.mark.asyncio(loop_scope="session")


class TestScheduling:
    pytestmark = pytest.mark.asyncio

    async def test_a_suggestion_becomes_an_item(self, ready_bench: Bench) -> None:
        request = ready_bench.complete(0, 5)
        await ready_bench.settle()
        ready_bench.suggester.answers[0].set_result(suggestion("23"))
        await ready_bench.settle()
        at = {"line": 0, "character": 5}
        (item,) = ready_bench.result(request)["items"]
        assert item.pop("command")["command"] == ACCEPTED
        assert item == {"insertText": "23", "range": {"start": at, "end": at}}

    async def test_automatic_and_invoked_have_their_deadlines(self, ready_bench: Bench) -> None:
        ready_bench.complete(trigger=2)
        await ready_bench.settle()
        ready_bench.complete(trigger=1)
        await ready_bench.settle()
        automatic, invoked = ready_bench.suggester.asked
        assert (automatic[2], invoked[2]) == (False, True)
        assert automatic[3] == pytest.approx(300, abs=250)
        assert invoked[3] == pytest.approx(3000, abs=250)

    async def test_nothing_to_suggest_is_an_empty_list(self, ready_bench: Bench) -> None:
        request = ready_bench.complete()
        await ready_bench.settle()
        ready_bench.suggester.answers[0].set_result(suggestion("", "eos"))
        await ready_bench.settle()
        assert ready_bench.result(request) == {"items": []}

    async def test_a_newer_request_answers_the_older_with_null(self, ready_bench: Bench) -> None:
        requests = [ready_bench.complete() for _ in range(3)]
        await ready_bench.settle()
        assert [ready_bench.result(request) for request in requests[:2]] == [None, None]
        assert ready_bench.answers(requests[2]) == []
        ready_bench.suggester.answers[-1].set_result(suggestion("new"))
        await ready_bench.settle()
        assert ready_bench.result(requests[2])["items"][0]["insertText"] == "new"

    async def test_a_change_answers_what_is_in_flight_with_null(self, ready_bench: Bench) -> None:
        request = ready_bench.complete()
        await ready_bench.settle()
        ready_bench.insert("y", 1)
        await ready_bench.settle()
        assert ready_bench.result(request) is None
        assert ready_bench.suggester.n_cancelled == 1

    async def test_a_change_right_behind_a_request(self, ready_bench: Bench) -> None:
        request = ready_bench.complete()
        ready_bench.insert("y", 1)
        await ready_bench.settle()
        assert ready_bench.result(request) is None

    @pytest.mark.parametrize("is_typed_along", [False, True], ids=["engine", "typed"])
    @pytest.mark.parametrize("n_turns", range(5))
    async def test_a_change_before_the_answer_is_written(
        self, ready_bench: Bench, n_turns: int, is_typed_along: bool
    ) -> None:
        """The change is read so many turns of the loop after the answer was there."""
        bench = ready_bench
        if is_typed_along:
            shown = bench.complete(0, 5)
            await bench.settle()
            bench.suggester.answers.pop().set_result(suggestion("23"))
            await bench.settle()
            assert bench.result(shown)["items"]
        n_through = bench.server.type_through.n_answers
        bench.server.answers.take()
        request = bench.complete(0, 5)
        if not is_typed_along:
            await bench.settle()
            bench.suggester.answers[0].set_result(suggestion("23"))
        for _ in range(n_turns):
            await asyncio.sleep(0)
        is_written = bool(bench.answers(request))
        bench.read(DID_CHANGE, insertion("2", 1, 5))
        await bench.settle()
        assert bool(bench.result(request)) == is_written
        assert len(bench.server.answers.take()) == is_written
        assert bench.server.type_through.n_answers - n_through == (is_typed_along and is_written)
        # Nobody types along what was not shown.
        n_asked = len(bench.suggester.asked)
        bench.complete(0, 6)
        await bench.settle()
        assert len(bench.suggester.asked) - n_asked == (not is_typed_along and not is_written)

    async def test_a_request_before_the_answer_is_written(self, ready_bench: Bench) -> None:
        older = ready_bench.complete(0, 5)
        await ready_bench.settle()
        ready_bench.suggester.answers[0].set_result(suggestion("23"))
        newer = ready_bench.complete(0, 3)
        await ready_bench.settle()
        assert ready_bench.result(older) is None
        assert ready_bench.answers(newer) == []

    async def test_a_request_sees_the_change_right_before_it(self, ready_bench: Bench) -> None:
        ready_bench.insert("y", 1)
        ready_bench.complete(0, 1)
        await ready_bench.settle()
        assert ready_bench.suggester.asked[0][0] == "yx = 1\n"

    @pytest.mark.parametrize("stop", ["superseded", "cancel"])
    async def test_what_the_engine_dropped_is_null(self, ready_bench: Bench, stop: str) -> None:
        request = ready_bench.complete()
        await ready_bench.settle()
        ready_bench.suggester.answers[0].set_result(suggestion("", stop))
        await ready_bench.settle()
        assert ready_bench.result(request) is None

    async def test_cancel_frees_the_engine_and_is_answered_once(self, ready_bench: Bench) -> None:
        request = ready_bench.complete()
        await ready_bench.settle()
        ready_bench.tell("$/cancelRequest", {"id": request})
        await ready_bench.settle()
        (answer,) = ready_bench.answers(request)
        assert answer["error"]["code"] == -32800
        assert ready_bench.suggester.n_cancelled == 1

    async def test_what_was_handled_is_let_go(self, ready_bench: Bench) -> None:
        bench = ready_bench
        for version in range(5):
            bench.insert("x", version + 1)
        request = bench.complete()
        assert len(bench.server.protocol._request_futures) == 6
        await bench.settle()
        bench.suggester.answers[-1].set_result(suggestion("y"))
        await bench.settle()
        assert bench.result(request)
        assert bench.server.protocol._request_futures == {}

    async def test_an_error_is_an_empty_list_and_no_popup(self, ready_bench: Bench) -> None:
        request = ready_bench.complete()
        await ready_bench.settle()
        ready_bench.suggester.answers[0].set_exception(RuntimeError("secret code"))
        await ready_bench.settle()
        assert ready_bench.result(request) == {"items": []}
        assert b"showMessage" not in ready_bench.sent
        assert b"secret code" not in ready_bench.sent

    async def test_closing_frees_the_engine(self, ready_bench: Bench) -> None:
        request = ready_bench.complete()
        await ready_bench.settle()
        ready_bench.tell("textDocument/didClose", {"textDocument": {"uri": URI}})
        await ready_bench.settle()
        assert ready_bench.result(request) is None
        assert ready_bench.suggester.forgotten == [URI]
        after = ready_bench.complete()
        await ready_bench.settle()
        assert ready_bench.result(after) == {"items": []}


class TestReadingAhead:
    pytestmark = pytest.mark.asyncio

    async def test_a_change_is_read_at_once(self, ready_bench: Bench) -> None:
        ready_bench.insert("y", 1)
        await ready_bench.settle()
        assert ready_bench.suggester.prepared == ["y|x = 1\n"]

    async def test_of_a_burst_only_the_last(self, ready_bench: Bench) -> None:
        for version, text in enumerate("abc", start=1):
            ready_bench.insert(text, version)
        await ready_bench.settle()
        assert ready_bench.suggester.prepared == ["c|bax = 1\n"]

    async def test_not_where_a_request_asks_already(self, ready_bench: Bench) -> None:
        ready_bench.insert("y", 1)
        ready_bench.complete(0, 1)
        await ready_bench.settle()
        assert ready_bench.suggester.prepared == []

    async def test_what_was_typed_while_the_model_loaded(self, bench: Bench) -> None:
        await bench.initialized()
        bench.insert("y", 1)
        await bench.settle()
        await bench.load()
        assert bench.suggester.prepared == ["y|x = 1\n"]


class TestLoading:
    pytestmark = pytest.mark.asyncio

    async def test_a_request_waits_for_the_model(self, bench: Bench) -> None:
        await bench.initialized({"deadlineMs": 60_000})
        request = bench.complete()
        await bench.settle()
        assert bench.answers(request) == []
        await bench.load()
        bench.suggester.answers[0].set_result(suggestion("late"))
        await bench.settle()
        assert bench.result(request)["items"][0]["insertText"] == "late"

    async def test_but_not_past_its_deadline(self, bench: Bench) -> None:
        await bench.initialized({"deadlineMs": 1})
        request = bench.complete()
        while not bench.answers(request):
            await asyncio.sleep(0.001)
        assert bench.result(request) == {"items": []}
        (answer,) = bench.server.answers.take()
        assert (answer["id"], answer["stop"]) == (request, "loading")

    async def test_a_model_that_fails_is_told_once(self, bench: Bench) -> None:
        await bench.initialized()
        waiting = bench.complete()
        await bench.settle()
        await bench.load(ValueError("no weights. Fetch them."))
        later = bench.complete()
        await bench.settle()
        assert [bench.result(request) for request in (waiting, later)] == [{"items": []}] * 2
        (shown,) = [m for m in bench.messages() if m.get("method") == "window/showMessage"]
        assert shown["params"]["type"] == 1
        assert shown["params"]["message"].endswith("no weights. Fetch them.")

    async def test_bad_settings_are_told_once(self, bench: Bench) -> None:
        await bench.initialized({"modle": "x", "maxTokens": "many"})
        (shown,) = [m for m in bench.messages() if m.get("method") == "window/showMessage"]
        assert shown["params"]["type"] == 2
        assert "modle" in shown["params"]["message"]
        assert "maxTokens" in shown["params"]["message"]


class TestProtocol:
    pytestmark = pytest.mark.asyncio

    async def test_before_initialize(self, bench: Bench) -> None:
        request = bench.complete()
        await bench.settle()
        (answer,) = bench.answers(request)
        assert answer["error"]["code"] == -32002

    async def test_initialize_twice(self, ready_bench: Bench) -> None:
        request = ready_bench.ask("initialize", {"capabilities": {}})
        await ready_bench.settle()
        assert ready_bench.answers(request)[0]["error"]["code"] == -32600

    async def test_after_shutdown(self, ready_bench: Bench) -> None:
        in_flight = ready_bench.complete()
        await ready_bench.settle()
        shutdown = ready_bench.ask("shutdown", None)
        await ready_bench.settle()
        late = ready_bench.complete()
        await ready_bench.settle()
        assert ready_bench.result(shutdown) is None
        assert ready_bench.suggester.n_cancelled == 1
        assert len(ready_bench.answers(in_flight)) == 1
        assert ready_bench.answers(late)[0]["error"]["code"] == -32600

    async def test_positions_are_utf16_whatever_the_client_prefers(self, bench: Bench) -> None:
        capabilities = {"general": {"positionEncodings": ["utf-8", "utf-16"]}}
        request = bench.ask("initialize", {"capabilities": capabilities})
        await bench.settle()
        assert bench.result(request)["capabilities"]["positionEncoding"] == "utf-16"

    async def test_no_traceback_reaches_the_client(self, ready_bench: Bench) -> None:
        def fail(_params: object) -> None:
            raise RuntimeError("inside")

        ready_bench.server.feature("test/fail")(fail)
        request = ready_bench.ask("test/fail", {})
        await ready_bench.settle()
        error = ready_bench.answers(request)[0]["error"]
        assert error["code"] == -32603
        assert "data" not in error
        assert b"showMessage" not in ready_bench.sent

    async def test_paths_in_prompts_start_at_the_workspace(self, bench: Bench) -> None:
        folders = [{"uri": "file:///workspace", "name": "w"}, {"uri": "file:///other", "name": "o"}]
        bench.ask("initialize", {"capabilities": {}, "workspaceFolders": folders})
        await bench.settle()
        for uri in (URI, "file:///elsewhere/b%20c.py", "untitled:Untitled-1"):
            document = {"uri": uri, "languageId": "python", "version": 0, "text": ""}
            bench.tell("textDocument/didOpen", {"textDocument": document})
        await bench.settle()
        paths = [document.path for document in bench.server.documents]
        assert paths == ["package/a.py", "b c.py", "Untitled-1"]


class TestProcess:
    """The real server on a tiny model; its answers are compared with the same code in process."""

    pytestmark = ONE_SERVER

    TEXT = "import os\n\n\ndef total(items):\n    result = 0\n    for item in items:\n        # \n"

    async def expected(self, suggester: Suggester, text: str, at: Position) -> str:
        """What a server without a past would answer."""
        document = Document(f"fresh:{hash(text)}", "python", 0, text, "package/a.py")
        answer = await suggester.suggest(document, at, explicit=True, deadline_ms=None)
        return answer.items[0].insert_text if answer.items else ""

    async def test_capabilities(self, server_command: tuple[str, ...]) -> None:
        async with await Client.start(server_command) as client:
            result = await client.initialize(options={"saveStates": False})
            assert "inlineCompletionProvider" in result["capabilities"]
            assert result["capabilities"]["textDocumentSync"]["change"] == 2
            assert result["capabilities"]["textDocumentSync"]["openClose"] is True
            assert await client.shutdown() == 0

    async def test_the_same_answer_as_in_process(
        self, client: Client, suggester: Suggester
    ) -> None:
        client.open(URI, "python", self.TEXT)
        expected = await self.expected(suggester, self.TEXT, Position(6, 10))
        answer = await client.ask(URI, 6, 10, INVOKED)
        at = {"line": 6, "character": 10}
        item = {"insertText": expected, "range": {"start": at, "end": at}}
        assert expected
        # Who asks gets alternatives too.
        assert answer.result["items"][0].pop("command")["command"] == ACCEPTED
        assert answer.result["items"][0] == item
        unasked, *_ = (await client.ask(URI, 6, 10)).result["items"]
        assert (unasked["insertText"], unasked["range"]) == (expected, item["range"])

    async def test_edits_in_utf16_and_crlf(self, client: Client, suggester: Suggester) -> None:
        text = "# 🎉🎉 é\r\nnames = ['🎉']\r\n\r\ndef f():\r\n    #\r\n"
        client.open(URI, "python", text)
        client.insert(URI, 0, 7, "!")  # behind both party poppers and the space
        client.change(
            URI,
            [
                {
                    "range": {
                        "start": {"line": 1, "character": 10},
                        "end": {"line": 1, "character": 12},
                    },
                    "text": "ab🎉",
                }
            ],
        )
        client.insert(URI, 4, 5, " = ")
        after = "# 🎉🎉 !é\r\nnames = ['ab🎉']\r\n\r\ndef f():\r\n    # = \r\n"
        answer = await client.ask(URI, 4, 8)
        expected = await self.expected(suggester, after, Position(4, 8))
        assert expected
        assert answer.result["items"][0]["insertText"] == expected

    async def test_timings_of_every_stage(self, client: Client) -> None:
        client.open(URI, "python", self.TEXT)
        await client.last_timings()
        answer = await client.ask(URI, 6, 10)
        client.insert(URI, 6, 10, "s")
        again = await client.ask(URI, 6, 11)
        first, second = await client.last_timings()
        assert (first["id"], first["version"]) == (answer.id, 0)
        assert (second["id"], second["version"]) == (again.id, 1)
        stages = first["timings_ms"]
        parts = ("receive", "parse", "context", "queue", "handover", "trim")
        assert {*parts, "total", "serialize"} < set(stages)
        assert all(milliseconds >= 0 for milliseconds in stages.values())
        assert stages["total"] <= answer.latency_ms
        own = sum(ms for stage, ms in stages.items() if stage not in ("total", "serialize"))
        assert own == pytest.approx(stages["total"], rel=0.2, abs=2)
        assert first["tokens"]["prompt"] > 0
        assert await client.last_timings() == []

    async def test_typing_never_reads_the_document_again(self, client: Client) -> None:
        lines = "".join(f"value_{n} = compute({n}, scale={n * 7})\n" for n in range(60))
        client.open(URI, "python", lines + "\n" + "# the end\n")
        await client.ask(URI, 60, 0)
        await client.last_timings()
        for column, character in enumerate("total = value_1 + "):
            client.insert(URI, 60, column, character)
            await client.ask(URI, 60, column + 1)
        timings = await client.last_timings()
        assert len(timings) == 18
        # What went along a suggestion was not read at all.
        timings = [timing for timing in timings if timing["prompt_kind"] != "typed"]
        assert len(timings) > 9
        assert max(timing["tokens"]["recomputed"] for timing in timings) <= 1 + 8
        assert min(timing["tokens"]["prompt"] for timing in timings) > 500


class TestLife:
    """How the process ends."""

    pytestmark = pytest.mark.asyncio

    async def test_exit_without_shutdown(self) -> None:
        async with await Client.start() as client:
            await client.initialize(options={"saveStates": False})
            client.notify("exit", None)
            assert await client.wait() == 1

    async def test_the_client_dies(self) -> None:
        async with await Client.start() as client:
            client.end_input()
            assert await client.wait() == 1

    async def test_a_missing_model_is_told_and_survived(self, tmp_path: Path) -> None:
        command = (*SERVER_COMMAND, "--model", str(tmp_path))
        async with await Client.start(command) as client:
            await client.initialize(options={"saveStates": False})
            shown = await client.notification("window/showMessage")
            assert str(tmp_path) in shown["message"]
            assert "Traceback" not in shown["message"]
            client.open(URI, "python", "x = ")
            assert (await client.ask(URI, 0, 4)).result == {"items": []}
            with pytest.raises(ResponseError, match="-32601"):
                await client.send("no/such", {})
            assert await client.shutdown() == 0
