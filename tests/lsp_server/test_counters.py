"""`keystate/counters`: what the engine has done, background work apart."""

from __future__ import annotations

import asyncio
import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from lsp_server.features.counters import COUNTERS
from lsp_server.features.cursor_moved import CURSOR_MOVED
from tests.lsp_server.server_bench import URI, Bench

if TYPE_CHECKING:
    from lsp_server.suggestions import Suggester
    from perf.client import Client

TIMEOUT_S = 60
TEXT = "import os\n\n\ndef total(items):\n    result = 0\n    for item in items:\n        re\n"


async def counted(bench: Bench) -> dict[str, int]:
    request = bench.ask(COUNTERS, None)
    await bench.settle()
    result: dict[str, int] = bench.result(request)
    return result


async def opened(bench: Bench) -> None:
    await bench.initialized({"deadlineMs": 60_000})
    await bench.load()
    document = {"uri": URI, "languageId": "python", "version": 0, "text": TEXT}
    bench.tell("textDocument/didOpen", {"textDocument": document})


async def run(bench: Bench, stepped: Suggester, *requests: int) -> None:
    """Step the engine until the requests are answered, and nothing is left to do."""

    async def step() -> None:
        while stepped.engine.step() or not all(map(bench.answers, requests)):
            await bench.settle()

    await asyncio.wait_for(step(), TIMEOUT_S)


@pytest.mark.asyncio
async def test_empty_while_the_model_loads(bench: Bench) -> None:
    await bench.initialized()
    assert await counted(bench) == {}


@pytest.mark.asyncio
async def test_every_counter_is_a_number_that_the_documentation_names(stepped: Suggester) -> None:
    bench = Bench(stepped)
    try:
        await opened(bench)
        # A request that is superseded, one that is answered, and one that starts from a state.
        requests = [bench.complete(6, 10) for _ in range(2)]
        await run(bench, stepped, *requests)
        stepped.engine.decoder.trails.clear()
        await run(bench, stepped, bench.complete(6, 10))
        result = await counted(bench)
    finally:
        bench.close()
    assert all(type(number) is int and number >= 0 for number in result.values())
    # The package's name for it is the handler.
    documented = importlib.import_module("lsp_server.features.counters").__doc__ or ""
    for name in result:
        general = re.sub(r"^answers_\w+$", "answers_STOP", re.sub(r"tier\d$", "tierN", name))
        assert f"`{general}`" in documented, f"{general} is not documented"
    named = set(re.findall(r"`((?:cache|trail|background|int8)_\w+)`", documented))
    assert {*named} - {*result} <= {
        # What has not happened is not there.
        *(f"cache_{what}" for what in ("hits_tierN", "spilled", "evicted", "thinned", "refused"))
    }
    assert result["cache_hits_tier0"] == 1
    assert result["cache_checkpoints"] > 0
    assert result["cache_bytes"] > 0
    assert result["int8_states"] == 0


@pytest.mark.asyncio
async def test_background_work_is_counted_apart(stepped: Suggester) -> None:
    bench = Bench(stepped)
    try:
        await opened(bench)
        await run(bench, stepped, bench.complete(3, 0))
        (asked,) = bench.server.answers.take()
        assert asked["tokens"]["recomputed"] == asked["tokens"]["prompt"] > 0
        before = await counted(bench)
        assert (before["background_tokens"], before["background_passes"]) == (0, 0)

        place = {"textDocument": {"uri": URI}, "position": {"line": 6, "character": 10}}
        bench.tell(CURSOR_MOVED, place)
        await bench.settle()
        await run(bench, stepped)
        ahead = await counted(bench)
        await run(bench, stepped, bench.complete(6, 10))
        (answer,) = bench.server.answers.take()
        after = await counted(bench)
    finally:
        bench.close()
    assert ahead["background_tokens"] > 0
    assert ahead["background_passes"] > 0
    # Read ahead once, by nobody's request; then by a request that reads nothing.
    assert answer["tokens"]["recomputed"] == 0
    assert n_answers(ahead) == n_answers(before) == 1
    assert n_answers(after) == 2
    for name in ("background_tokens", "background_passes"):
        assert after[name] == ahead[name]


def n_answers(result: dict[str, int]) -> int:
    return sum(number for name, number in result.items() if name.startswith("answers_"))


@pytest.mark.asyncio(loop_scope="session")
async def test_from_a_server_process(client: Client) -> None:
    async def ask() -> Any:
        uri = Path("/workspace/counted.py").as_uri()
        client.open(uri, "python", TEXT)
        client.notify(
            CURSOR_MOVED, {"textDocument": {"uri": uri}, "position": {"line": 4, "character": 0}}
        )
        client.notify(CURSOR_MOVED, ["nonsense"])
        answer = await client.ask(uri, 6, 10)
        client.close(uri)
        assert isinstance(answer.result["items"], list)
        return (await client.send(COUNTERS, None)).result

    result = await asyncio.wait_for(ask(), TIMEOUT_S)
    assert n_answers(result) > 0
    assert result["cache_bytes"] > 0


def test_counted_while_the_engine_goes_on(stepped: Suggester) -> None:
    """The engine's thread leaves trails while another counts them."""
    trails = stepped.engine.decoder.trails

    class Trail:
        @property
        def n_bytes(self) -> int:
            trails[f"document {len(trails)}"] = cast("Any", Trail())
            return 10

    trails["a"] = cast("Any", Trail())
    assert stepped.engine.counters()["trail_bytes"] == 10
    assert stepped.engine.counters()["trail_bytes"] == 20
