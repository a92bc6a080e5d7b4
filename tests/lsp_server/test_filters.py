"""Where nothing is suggested unasked, nor read ahead, nor read for other files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lsp_server.documents import Document
from lsp_server.filters import reason_off
from lsp_server.settings import Settings
from tests.lsp_server.server_bench import URI, suggestion

if TYPE_CHECKING:
    from tests.lsp_server.server_bench import Bench

CHANGED = "workspace/didChangeConfiguration"


def document(path: str = "src/a.py", language_id: str = "python", text: str = "x") -> Document:
    return Document(f"file:///home/me/w/{path}", language_id, 1, text, path)


@pytest.mark.parametrize(
    ("languages", "is_on"),
    [
        ({}, True),
        ({"*": True, "python": False}, False),
        ({"*": False, "python": True}, True),
        ({"*": False}, False),
        ({"markdown": False}, True),
    ],
)
def test_languages(languages: dict[str, bool], is_on: bool) -> None:
    reason = reason_off(Settings(languages=languages), document())
    assert reason == (None if is_on else "suggestions are switched off for python")


@pytest.mark.parametrize(
    ("glob", "path", "fits"),
    [
        ("*.py", "src/a.py", True),
        ("a.py", "src/a.py", True),
        ("*.py", "src/a.pyi", False),
        ("src/*.py", "src/a.py", True),
        ("src/*.py", "src/deep/a.py", False),
        ("src/**/*.py", "src/deep/er/a.py", True),
        ("src/**/*.py", "src/a.py", True),
        ("**/gen/**", "x/gen/y/a.py", True),
        ("**/gen/**", "gen/a.py", True),
        ("**/gen/**", "x/generated/a.py", False),
        ("gen/", "x/gen/a.py", True),
        ("./src/a.py", "src/a.py", True),
        ("src\\a.py", "src/a.py", True),
        ("/home/me/w/**", "src/a.py", True),
        ("**/*.{py,js}", "src/a.py", True),
        ("**/*.{ts,js}", "src/a.py", False),
        ("a.p?", "src/a.py", True),
        ("src/?/a.py", "src/a.py", False),
        ("[a-c].py", "src/b.py", True),
        ("[!a-c].py", "src/b.py", False),
        ("[z-a].py", "src/b.py", False),
        ("{a,b", "src/b", True),
        ("a+b(1).py", "src/a+b(1).py", True),
        ("", "src/a.py", False),
    ],
)
def test_globs(glob: str, path: str, fits: bool) -> None:
    reason = reason_off(Settings(exclude=(glob,)), document(path))
    assert reason == (f"the file is excluded by {glob}" if fits else None)


@pytest.mark.parametrize(
    ("settings", "place", "said"),
    [
        (Settings(enabled=False), document(), "suggestions are switched off"),
        (Settings(), document("app/.env.local"), "the file's name says that it holds secrets"),
        (Settings(max_file_chars=3), document(text="four"), "longer than 3 characters"),
        (Settings(max_file_chars=4), document(text="four"), None),
    ],
)
def test_reasons(settings: Settings, place: Document, said: str | None) -> None:
    reason = reason_off(settings, place)
    assert (reason is None) == (said is None)
    assert said is None or said in str(reason)


class TestServer:
    pytestmark = pytest.mark.asyncio

    async def configured(self, bench: Bench, **section: Any) -> None:
        bench.tell(CHANGED, {"settings": {"keystate": section}})
        await bench.settle()

    async def test_where_it_is_off_only_who_asks_is_answered(self, ready_bench: Bench) -> None:
        bench = ready_bench
        await self.configured(bench, languages={"python": False})
        automatic = bench.complete()
        bench.insert("y", 1)
        await bench.settle()
        assert bench.result(automatic) == {"items": []}
        assert bench.suggester.asked == bench.suggester.prepared == []
        invoked = bench.complete(trigger=1)
        await bench.settle()
        bench.suggester.answers[0].set_result(suggestion("23"))
        await bench.settle()
        assert bench.result(invoked)["items"][0]["insertText"] == "23"
        await self.configured(bench)
        bench.insert("z", 2)
        await bench.settle()
        assert len(bench.suggester.prepared) == 1
        bench.complete()
        await bench.settle()
        assert len(bench.suggester.asked) == 2

    async def test_secret_files_are_not_read_ahead(self, ready_bench: Bench) -> None:
        bench, uri = ready_bench, "file:///workspace/.env"
        opened = {"uri": uri, "languageId": "python", "version": 0, "text": "KEY=hunter2\n"}
        bench.tell("textDocument/didOpen", {"textDocument": opened})
        place = {"textDocument": {"uri": uri}, "position": {"line": 0, "character": 4}}
        bench.tell("keystate/cursorMoved", place)
        context = {"context": {"triggerKind": 2}}
        request = bench.ask("textDocument/inlineCompletion", place | context)
        await bench.settle()
        assert bench.result(request) == {"items": []}
        assert bench.suggester.asked == bench.suggester.prepared == []

    async def test_an_excluded_file_is_not_read_for_others(self, ready_bench: Bench) -> None:
        bench = ready_bench
        readable: Any = bench.suggester.documents  # type: ignore[attr-defined]
        assert [found.uri for found in readable] == [URI]
        await self.configured(bench, exclude=["**/package/*"])
        assert [found.uri for found in readable] == []
