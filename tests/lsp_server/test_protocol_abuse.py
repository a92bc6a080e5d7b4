"""Thousands of messages that no client should send: each request is answered once, all in all."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from perf.client import Client
from perf.fuzz_protocol import Fuzzer, faults, fuzz
from tests.lsp_server.server_bench import Bench, suggestion

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT_S = 120


async def let_answer(bench: Bench) -> None:
    """Answer all that waits for the engine."""
    await bench.settle()
    for future in bench.suggester.answers:
        if not future.done():
            future.set_result(suggestion("x"))
    bench.suggester.answers.clear()
    await bench.settle()


async def still_serves(bench: Bench) -> None:
    uri = "file:///workspace/valid.py"
    opened = {"uri": uri, "languageId": "python", "version": 0, "text": "x = 1\n"}
    bench.tell("textDocument/didOpen", {"textDocument": opened})
    place = {"textDocument": {"uri": uri}, "position": {"line": 0, "character": 0}}
    context = {"context": {"triggerKind": 1}}
    request = bench.ask("textDocument/inlineCompletion", place | context)
    await let_answer(bench)
    assert bench.result(request)["items"][0]["insertText"] == "x"


class TestInProcess:
    pytestmark = pytest.mark.asyncio

    @pytest.mark.parametrize("seed", range(3))
    async def test_fuzzed(self, ready_bench: Bench, seed: int) -> None:
        bench, fuzzer = ready_bench, Fuzzer(seed)
        for n in range(2_000):
            bench.server.protocol.receive(fuzzer.body(), time.monotonic())
            if n % 100 == 0:
                await let_answer(bench)
        await let_answer(bench)
        answers = [message for message in bench.messages() if "method" not in message]
        assert len(fuzzer.requests) > 500
        assert faults(fuzzer.requests, answers) == []
        assert b"Traceback" not in bench.sent
        await still_serves(bench)

    async def test_fuzzed_before_initialize(self, bench: Bench) -> None:
        fuzzer = Fuzzer(7)
        for _ in range(1_000):
            body = fuzzer.body()
            if b'"initialize"' not in body:
                bench.server.protocol.receive(body, time.monotonic())
        await bench.settle()
        errors = [message["error"]["code"] for message in bench.messages()]
        assert set(errors) <= {-32002, -32700, -32600}
        await bench.initialized()
        await bench.load()
        await still_serves(bench)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"method": "initialize", "params": {"capabilities": {}}},
            {"id": 77, "method": "initialize", "params": {"capabilities": 5}},
            {"id": 78, "method": "initialize"},
        ],
    )
    async def test_after_a_wrong_initialize_the_right_one(self, bench: Bench, wrong: Any) -> None:
        bench.send(wrong)
        await bench.initialized()
        await bench.load()
        await still_serves(bench)

    async def test_a_request_by_a_notifications_name_is_answered(self, ready_bench: Bench) -> None:
        methods = ("initialized", "textDocument/didOpen", "$/cancelRequest", "exit")
        requests = [ready_bench.ask(method, {"id": 1}) for method in methods]
        await ready_bench.settle()
        for request in requests:
            (answer,) = ready_bench.answers(request)
            assert answer["error"]["code"] in (-32600, -32602)
        await still_serves(ready_bench)

    @pytest.mark.parametrize("method", [None, 5, True, ["unhashable"], {}])
    async def test_a_method_that_is_no_name(self, ready_bench: Bench, method: Any) -> None:
        request = ready_bench.ask(method, {})
        before = len(ready_bench.sent)
        ready_bench.tell(method, {})
        await ready_bench.settle()
        assert ready_bench.answers(request)[0]["error"]["code"] == -32600
        assert len(ready_bench.sent) == before
        await still_serves(ready_bench)

    async def test_an_answer_to_the_clients_own_request_is_none(self, ready_bench: Bench) -> None:
        request = ready_bench.complete()
        await ready_bench.settle()
        outcomes: list[dict[str, Any]] = [
            {"result": {}},
            {"error": {"code": 1, "message": "x"}},
            {},
        ]
        for outcome in outcomes:
            ready_bench.send({"id": request, **outcome})
        await let_answer(ready_bench)
        assert ready_bench.result(request)["items"][0]["insertText"] == "x"

    async def test_a_thousand_cancels(self, ready_bench: Bench) -> None:
        request = ready_bench.complete()
        await ready_bench.settle()
        for n in range(1_000):
            ready_bench.tell("$/cancelRequest", {"id": n % 7 or request})
        await ready_bench.settle()
        assert len(ready_bench.answers(request)) == 1
        await still_serves(ready_bench)

    async def test_nothing_is_served_after_shutdown(self, ready_bench: Bench) -> None:
        shutdown = ready_bench.ask("shutdown", None)
        await ready_bench.settle()
        fuzzer = Fuzzer(8)
        for _ in range(500):
            ready_bench.server.protocol.receive(fuzzer.body(), time.monotonic())
        await ready_bench.settle()
        assert ready_bench.result(shutdown) is None
        answers = [message for message in ready_bench.messages() if "method" not in message]
        assert faults(fuzzer.requests, answers) == []
        by_id = {answer["id"]: answer for answer in answers}
        assert all("error" in by_id[asked] for asked in fuzzer.requests)
        assert ready_bench.suggester.asked == []


@pytest.mark.asyncio
async def test_a_server_process(server_command: tuple[str, ...], tmp_path: Path) -> None:
    async def run() -> dict[str, Any]:
        with (tmp_path / "log").open("w") as log:
            async with await Client.start(server_command, stderr=log) as client:
                options = {"saveStates": False, "statistics": False, "maxTokens": 2}
                await client.initialize(options=options)
                result = await fuzz(client, 1, 3_000)
                assert await client.shutdown() == 0
                return result

    result = await asyncio.wait_for(run(), TIMEOUT_S)
    assert result["faults"] == []
    assert result["served"] == 12
    assert json.dumps(result)
