"""What the server does when nothing has been typed for a while."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from lsp_server import server as server_module
from lsp_server.documents import Change, Document
from lsp_server.server import Server
from lsp_server.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lsp_server.suggestions import Suggester

pytestmark = pytest.mark.asyncio


class Asked:
    """Stands in for a suggester: notes what it is asked, and finds headers changed as told."""

    name, device = "fake", "cpu"

    def __init__(self) -> None:
        self.documents: Iterable[Document] = ()
        self.prepared: list[int] = []
        self.refreshed: list[int] = []
        self.n_changed = 0

    def prepare(self, document: Document, offset: int) -> None:
        self.prepared.append(offset)

    def configure(self, settings: Settings) -> None:
        pass

    def refresh(self, document: Document, offset: int) -> bool:
        self.refreshed.append(offset)
        self.n_changed -= 1
        return self.n_changed >= 0


async def loaded(suggester: Asked) -> tuple[Server, Document]:
    """A server with one open document, whose engine has been loaded."""
    server = Server({}, lambda: lambda *_: cast("Suggester", suggester))
    document = server.documents.open("file:///w/a.py", "python", 1, "x = 1\n", "a.py")
    server.configure(Settings(), [])
    assert await asyncio.wait_for(server.suggester(60_000), 60) is not None
    assert list(suggester.documents) == [document]
    return server, document


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def test_a_header_is_looked_at_again_once_the_user_rests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "IDLE_S", 0.0)
    suggester = Asked()
    server, document = await loaded(suggester)
    suggester.n_changed = 1
    server.prepare_soon(document, 3)
    await settle()
    # Once to have it read, once to use it.
    assert (suggester.prepared, suggester.refreshed) == ([3], [3, 3])


async def test_typing_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting: list[Any] = []
    suggester = Asked()
    server, document = await loaded(suggester)

    def call_later(delay_s: float, work: Any) -> Any:
        assert delay_s == server_module.IDLE_S == 1.0
        timer = asyncio.TimerHandle(0.0, work, (), asyncio.get_running_loop())
        waiting.append((timer, work))
        return timer

    monkeypatch.setattr(server._loop, "call_later", call_later)
    server.prepare_soon(document, 1)
    await settle()
    document.apply(Change(text="y = 2\n"))
    server.prepare_soon(document, 2)
    assert waiting[0][0].cancelled()
    await settle()
    (first, outdated), (second, _) = waiting
    assert first is not second
    assert not second.cancelled()
    # Were it called all the same, the text has moved on.
    outdated()
    assert suggester.refreshed == []
    server.documents.close(document.uri)
    second._run()
    assert suggester.refreshed == []


async def test_at_rest_no_clock_is_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle means zero: once the header was looked at, nothing wakes the process any more."""
    monkeypatch.setattr(server_module, "IDLE_S", 0.0)
    made: list[asyncio.TimerHandle] = []
    suggester = Asked()
    server, document = await loaded(suggester)
    loop = asyncio.get_running_loop()
    call_later = loop.call_later

    def counted(*args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        made.append(call_later(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(server._loop, "call_later", counted)
    suggester.n_changed = 1
    document.apply(Change(text="y = 2\n"))
    server.prepare_soon(document)
    await settle()
    assert len(suggester.refreshed) == 2
    # One for each look, and those have rung.
    assert len(made) == 2
    assert all(timer.when() <= loop.time() for timer in made)


async def test_where_suggestions_are_off_no_clock_is_started() -> None:
    suggester = Asked()
    server, document = await loaded(suggester)
    server.reconfigure({"enabled": False})
    document.apply(Change(text="y = 2\n"))
    server.prepare_soon(document)
    await settle()
    assert (suggester.prepared, suggester.refreshed, server._idle) == ([], [], None)
