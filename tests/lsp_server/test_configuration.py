"""Settings while the server runs: what is taken, what is told, and what no workspace can set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lsp_server.configuration import Configuration, section_of
from lsp_server.settings import Settings

if TYPE_CHECKING:
    from tests.lsp_server.server_bench import Bench

PULL = {"workspace": {"configuration": True}}
CHANGED = "workspace/didChangeConfiguration"
ASKED = "workspace/configuration"


def started(options: object, forced: dict[str, Any] | None = None) -> Configuration:
    configuration = Configuration(forced or {})
    assert configuration.start(options) == []
    return configuration


def test_configuration_goes_over_the_options_of_the_start() -> None:
    configuration = started({"maxTokens": 8, "deadlineMs": 100})
    assert configuration.change({"maxTokens": 9}) == []
    assert configuration.settings == Settings(max_tokens=9, deadline_ms=100)


def test_a_key_that_is_gone_has_its_default_again() -> None:
    configuration = started({"maxTokens": 8, "deadlineMs": 100})
    configuration.change({"maxTokens": 9, "enabled": False})
    assert configuration.change({}) == []
    assert configuration.settings == Settings(deadline_ms=100)


def test_a_value_that_does_not_fit_leaves_the_old_one_and_is_told_once() -> None:
    configuration = started({"maxTokens": 8})
    configuration.change({"maxTokens": 9})
    for told in (1, 0):
        assert len(configuration.change({"maxTokens": "many", "maxTokns": 1, "enabled": 0})) == (
            3 * told
        )
        assert configuration.settings == Settings(max_tokens=9)


@pytest.mark.parametrize(
    ("key", "value"), [("model", "/evil"), ("device", "cuda"), ("threads", 3), ("saveStates", True)]
)
def test_what_a_workspace_must_not_set(key: str, value: object) -> None:
    options = {"model": "/mine", "device": "cpu", "threads": 1, "saveStates": False}
    configuration = started(options)
    before = configuration.settings
    # Clients that send all that they have are right to.
    assert configuration.change(options) == []
    (problem,) = configuration.change({key: value})
    assert problem.startswith(f"setting {key} is only taken from the initializationOptions")
    assert configuration.change({key: value}) == []
    assert configuration.settings == before


def test_the_command_line_wins_to_the_end() -> None:
    configuration = started({"model": "theirs"}, {"model": "ours", "max_tokens": 4})
    assert configuration.change({"model": "evil", "maxTokens": 9}) == []
    assert configuration.settings == Settings(model="ours", max_tokens=4)


@pytest.mark.parametrize(
    ("pushed", "section"),
    [
        (None, None),
        ([], None),
        ({}, None),
        ({"otherServer": {"maxTokens": 1}}, None),
        ({"keystate": {"maxTokens": 1}, "other": {}}, {"maxTokens": 1}),
        ({"keystate": {}}, {}),
        ({"keystate": None}, None),
        ({"maxTokens": 1}, {"maxTokens": 1}),
    ],
)
def test_our_part_of_what_is_pushed(pushed: object, section: object) -> None:
    assert section_of(pushed) == section


class TestServer:
    pytestmark = pytest.mark.asyncio

    async def test_pushed(self, ready_bench: Bench) -> None:
        bench = ready_bench
        bench.tell(CHANGED, {"settings": {"keystate": {"deadlineMs": 5000, "model": "/evil"}}})
        await bench.settle()
        assert bench.server.settings == Settings(deadline_ms=5000)
        assert bench.suggester.settings == bench.server.settings
        bench.complete()
        await bench.settle()
        assert bench.suggester.asked[-1][3] == pytest.approx(5000, abs=500)
        (shown,) = bench.told("window/showMessage")
        assert "model is only taken" in shown["message"]
        assert bench.told(ASKED) == []

    async def test_pulled_at_the_start_and_on_change(self, bench: Bench) -> None:
        await bench.initialized({"maxTokens": 8}, PULL)
        assert bench.told(ASKED) == [{"items": [{"section": "keystate"}]}]
        await bench.answer(ASKED, [{"maxTokens": 9, "maxTokns": 1}])
        assert bench.server.settings == Settings(max_tokens=9)
        (shown,) = bench.told("window/showMessage")
        assert shown["type"] == 2
        assert shown["message"].endswith("maxTokns: did you mean maxTokens?")
        # What is pushed beside it is the whole editor's, maybe.
        bench.tell(CHANGED, {"settings": {"keystate": {"maxTokens": 1}}})
        await bench.settle()
        await bench.answer(ASKED, [{"maxTokens": 10}])
        assert bench.server.settings == Settings(max_tokens=10)

    @pytest.mark.parametrize("nothing", [None, [], [None], ["text"], {"a": 1}, 5])
    async def test_a_client_that_has_nothing(self, bench: Bench, nothing: object) -> None:
        await bench.initialized({"maxTokens": 8}, PULL)
        await bench.answer(ASKED, nothing)
        assert bench.server.settings == Settings(max_tokens=8)
        # Asked once more, it gives as little; but it has pushed something.
        bench.tell(CHANGED, {"settings": {"keystate": {"maxTokens": 6}}})
        await bench.settle()
        await bench.answer(ASKED, nothing)
        assert bench.server.settings == Settings(max_tokens=6)
        bench.tell(CHANGED, {"settings": {"keystate": {"maxTokens": 7}}})
        await bench.settle()
        await bench.answer(ASKED, [None])
        assert bench.server.settings == Settings(max_tokens=7)

    async def test_an_error_for_an_answer(self, bench: Bench) -> None:
        await bench.initialized({"maxTokens": 8}, PULL)
        (asked,) = [message for message in bench.messages() if message.get("method") == ASKED]
        bench.send({"id": asked["id"], "error": {"code": -32601, "message": "no"}})
        await bench.settle()
        assert bench.server.settings == Settings(max_tokens=8)

    async def test_of_two_that_are_asked_for_the_later_counts(self, bench: Bench) -> None:
        await bench.initialized({}, PULL)
        bench.tell(CHANGED, {"settings": None})
        await bench.settle()
        await bench.answer(ASKED, [{"maxTokens": 2}], nth=1)
        await bench.answer(ASKED, [{"maxTokens": 1}], nth=0)
        assert bench.server.settings == Settings(max_tokens=2)

    async def test_settings_of_while_the_model_loads(self, bench: Bench) -> None:
        await bench.initialized({})
        bench.tell(CHANGED, {"settings": {"keystate": {"maxTokens": 2}}})
        await bench.settle()
        await bench.load()
        assert bench.suggester.settings == Settings(max_tokens=2)

    @pytest.mark.parametrize("dynamic", [True, False])
    async def test_changes_are_registered_for_and_nothing_else(
        self, bench: Bench, dynamic: bool
    ) -> None:
        can = {"dynamicRegistration": dynamic}
        capabilities = {
            "workspace": {"didChangeConfiguration": can},
            "textDocument": {"inlineCompletion": can, "synchronization": can},
        }
        await bench.initialized({}, capabilities)
        registered = [
            registration["method"]
            for params in bench.told("client/registerCapability")
            for registration in params["registrations"]
        ]
        # Inline completion is advertised in the answer to `initialize`, once.
        assert registered == [CHANGED] * dynamic
        first = next(bench.messages())
        assert "inlineCompletionProvider" in first["result"]["capabilities"]
