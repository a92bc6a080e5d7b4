"""`keystate/status` and the progress of loading: what the client is told, and when."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from lsp_server import status as status_module
from lsp_server.status import STATUS, Status
from tests.lsp_server.server_bench import URI, suggestion

if TYPE_CHECKING:
    from tests.lsp_server.server_bench import Bench

pytestmark = pytest.mark.asyncio

LISTENS = {"experimental": {"keystateStatus": True}}
PROGRESS = {"window": {"workDoneProgress": True}}


def kinds(bench: Bench) -> list[str]:
    return [told["kind"] for told in bench.told(STATUS)]


async def asked(bench: Bench, uri: str | None = None) -> Any:
    params = None if uri is None else {"textDocument": {"uri": uri}}
    request = bench.ask(STATUS, params)
    await bench.settle()
    return bench.result(request)


@pytest_asyncio.fixture
async def ready_bench(bench: Bench) -> Bench:
    """One whose client listens."""
    await bench.initialized({}, LISTENS)
    await bench.load()
    return bench


@pytest.mark.parametrize(
    "experimental", [None, {}, {"keystateStatus": False}, [], "keystateStatus"], ids=repr
)
async def test_told_to_those_who_listen_alone(bench: Bench, experimental: object) -> None:
    await bench.initialized({}, {"experimental": experimental})
    await bench.load()
    assert bench.told(STATUS) == []
    assert (await asked(bench))["kind"] == "ready"


async def test_from_the_start_until_ready(bench: Bench) -> None:
    request = bench.ask("initialize", {"capabilities": LISTENS})
    await bench.settle()
    # Nothing before `initialized`.
    assert [message.get("id") for message in bench.messages()] == [request]
    bench.tell("initialized", {})
    await bench.settle()
    await bench.load()
    starting, ready = bench.told(STATUS)
    assert starting["kind"] == "starting"
    assert ready == {"kind": "ready", "message": "ready", "model": "fake", "device": "cpu"}
    assert await asked(bench) == ready


async def test_loaded_before_the_client_listens(bench: Bench) -> None:
    bench.ask("initialize", {"capabilities": LISTENS})
    await bench.settle()
    await bench.load()
    assert kinds(bench) == []
    bench.tell("initialized", {})
    await bench.settle()
    assert kinds(bench) == ["ready"]


async def test_an_error_names_its_remedy(bench: Bench) -> None:
    await bench.initialized({}, LISTENS)
    await bench.load(ValueError("no weights. Fetch them."))
    assert kinds(bench) == ["starting", "error"]
    assert bench.told(STATUS)[-1]["message"].endswith("no weights. Fetch them.")


async def test_switched_off_and_on(ready_bench: Bench) -> None:
    for section in ({"enabled": False}, {"enabled": False, "maxTokens": 3}, {"enabled": True}):
        settings = {"settings": {"keystate": section}}
        ready_bench.tell("workspace/didChangeConfiguration", settings)
        await ready_bench.settle()
    assert kinds(ready_bench) == ["starting", "ready", "off", "ready"]


async def test_of_one_document(ready_bench: Bench) -> None:
    settings = {"settings": {"keystate": {"languages": {"python": False}}}}
    ready_bench.tell("workspace/didChangeConfiguration", settings)
    await ready_bench.settle()
    here = await asked(ready_bench, URI)
    assert here["kind"] == "off"
    assert here["message"] == "suggestions are switched off for python"
    for elsewhere in (None, "file:///not/open.py"):
        assert (await asked(ready_bench, elsewhere))["kind"] == "ready"
    # The client asks where it wants to know; it is not told of every file.
    assert kinds(ready_bench) == ["starting", "ready"]


async def test_busy_where_the_wait_is_noticed(
    ready_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready_bench.complete()
    await ready_bench.settle()
    ready_bench.suggester.answers[-1].set_result(suggestion("quick"))
    await ready_bench.settle()
    assert kinds(ready_bench) == ["starting", "ready"]
    monkeypatch.setattr(status_module, "BUSY_AFTER_S", 0.0)
    # Asked for, so that nothing that is known already is an answer.
    ready_bench.complete(trigger=1)
    ready_bench.complete(trigger=1)
    await ready_bench.settle()
    assert kinds(ready_bench)[2:] == ["busy"]
    ready_bench.suggester.answers[-1].set_result(suggestion("slow"))
    await ready_bench.settle()
    assert kinds(ready_bench)[2:] == ["busy", "ready"]


async def test_nothing_is_left_to_do_once_all_is_answered() -> None:
    """Idle means zero: the clock is only asked for while a request waits."""
    timers: list[asyncio.TimerHandle] = []
    loop = asyncio.get_running_loop()

    class Loop:
        def call_later(self, delay_s: float, work: Any) -> asyncio.TimerHandle:
            assert delay_s == status_module.BUSY_AFTER_S == 0.1
            timers.append(loop.call_later(delay_s, work))
            return timers[-1]

    status = Status(Loop(), lambda _status: None)  # type: ignore[arg-type]
    with status.waiting(), status.waiting():
        pass
    (timer,) = timers
    assert timer.cancelled()


class TestProgress:
    async def test_shown_until_loaded(self, bench: Bench) -> None:
        await bench.initialized({}, PROGRESS)
        await bench.answer("window/workDoneProgress/create", None)
        assert [told["value"]["kind"] for told in bench.told("$/progress")] == ["begin"]
        await bench.load()
        begin, end = (told["value"] for told in bench.told("$/progress"))
        assert begin["message"] == "loading the embedded model"
        assert end == {"kind": "end", "message": "fake on cpu"}
        (created,) = bench.told("window/workDoneProgress/create")
        assert {told["token"] for told in bench.told("$/progress")} == {created["token"]}

    async def test_ends_where_there_is_no_model(self, bench: Bench) -> None:
        await bench.initialized({}, PROGRESS)
        await bench.answer("window/workDoneProgress/create", None)
        await bench.load(ValueError("none"))
        assert [told["value"]["kind"] for told in bench.told("$/progress")] == ["begin", "end"]

    async def test_not_where_it_was_loaded_before_the_client_answered(self, bench: Bench) -> None:
        await bench.initialized({}, PROGRESS)
        await bench.load()
        await bench.answer("window/workDoneProgress/create", None)
        assert bench.told("$/progress") == []

    @pytest.mark.parametrize("capabilities", [{}, {"window": {"workDoneProgress": False}}])
    async def test_not_where_the_client_cannot(
        self, bench: Bench, capabilities: dict[str, Any]
    ) -> None:
        await bench.initialized({}, capabilities)
        await bench.load()
        assert bench.told("window/workDoneProgress/create") == []

    async def test_says_how_far_it_is_where_that_takes_longer(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await bench.initialized({}, PROGRESS | LISTENS)
        await bench.answer("window/workDoneProgress/create", None)
        # Within a second nothing is said.
        for share in (0.1, 0.2):
            bench.server.status.progress("loading the model", share)
        assert kinds(bench) == ["starting"]
        monkeypatch.setattr(status_module, "PROGRESS_S", 0.0)
        bench.server.status._progress_due_s = None
        bench.server.status.progress("loading the model", 0.42)
        assert bench.told(STATUS)[-1]["message"] == "loading the model: 42%"
        assert bench.told("$/progress")[-1]["value"] == {
            "kind": "report",
            "message": "loading the model",
            "percentage": 42,
        }
        await bench.load()
        # From the loading thread, after the last word.
        bench.on_progress("loading the model", 1.0)
        await bench.settle()
        assert kinds(bench)[-1] == "ready"
        assert bench.told("$/progress")[-1]["value"]["kind"] == "end"
