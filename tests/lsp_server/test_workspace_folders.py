"""Many folders in one workspace, and their coming and going."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lsp_server.server_bench import URI

if TYPE_CHECKING:
    from tests.lsp_server.server_bench import Bench

pytestmark = pytest.mark.asyncio

OTHER = "file:///other/b.py"


async def change(
    bench: Bench, *, added: tuple[str, ...] = (), removed: tuple[str, ...] = ()
) -> None:
    event = {
        "added": [{"uri": uri, "name": uri} for uri in added],
        "removed": [{"uri": uri, "name": uri} for uri in removed],
    }
    bench.tell("workspace/didChangeWorkspaceFolders", {"event": event})
    await bench.settle()


async def test_documents_are_named_by_the_innermost_folder(ready_bench: Bench) -> None:
    bench = ready_bench
    opened = {"uri": OTHER, "languageId": "python", "version": 0, "text": ""}
    bench.tell("textDocument/didOpen", {"textDocument": opened})
    await bench.settle()

    def paths() -> list[str]:
        return [document.path for document in bench.server.documents]

    assert paths() == ["a.py", "b.py"]
    await change(bench, added=("file:///workspace", "file:///"))
    assert paths() == ["package/a.py", "other/b.py"]
    await change(bench, added=("file:///workspace/package", "file:///workspace"))
    assert paths() == ["a.py", "other/b.py"]
    # Never there, and twice.
    await change(bench, removed=("file:///nowhere", "file:///workspace/package", "file:///"))
    assert paths() == ["package/a.py", "b.py"]
    await change(bench, removed=("file:///workspace", "file:///workspace"))
    assert paths() == ["a.py", "b.py"]
    assert bench.server.documents.get(URI) is not None


async def test_the_client_is_told_that_it_may_tell(bench: Bench) -> None:
    await bench.initialized()
    capabilities = next(bench.messages())["result"]["capabilities"]
    folders = capabilities["workspace"]["workspaceFolders"]
    assert folders == {"supported": True, "changeNotifications": True}
