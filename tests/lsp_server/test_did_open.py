"""Opening documents, once and again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from lsp_server.offers import Fate
from tests.lsp_server.server_bench import INLINE_COMPLETION, URI, Bench, suggestion

if TYPE_CHECKING:
    from lsp_server.suggestions import Suggester

pytestmark = pytest.mark.asyncio

LONG = "".join(f"def function_{n}(a, b):\n    return a + b\n" for n in range(400))


async def opened(bench: Bench, text: str, uri: str = URI) -> None:
    document = {"uri": uri, "languageId": "python", "version": 0, "text": text}
    bench.tell("textDocument/didOpen", {"textDocument": document})
    await bench.settle()


async def test_a_document_that_is_opened_again_is_closed_first(stepped: Suggester) -> None:
    bench = Bench(stepped)
    try:
        await bench.initialized()
        await bench.load()
        await opened(bench, LONG)
        first = bench.server.documents.get(URI)
        assert first is not None
        stepped.prepare(first, first.n_chars - 40)
        offer_id = bench.server.offers.add(first, 0, "x", 0, Fate())
        assert stepped._windows[URI][0].prefix_start > 0
        await opened(bench, "y = 1\n")
        assert URI not in stepped._windows
        assert offer_id not in bench.server.offers._offers
        second = bench.server.documents.get(URI)
        assert second is not None
        assert second.text == "y = 1\n"
    finally:
        bench.close()
        stepped.close()


async def test_what_is_opened_once_closes_nothing(ready_bench: Bench) -> None:
    await opened(ready_bench, "x", "file:///workspace/b.py")
    assert ready_bench.suggester.forgotten == []
    await opened(ready_bench, "y", "file:///workspace/b.py")
    assert ready_bench.suggester.forgotten == ["file:///workspace/b.py"]


async def test_a_uri_that_cannot_be_read_is_a_documents_all_the_same(ready_bench: Bench) -> None:
    bench, uri = ready_bench, "http://[::1/w/b.py"
    bench.server.roots.append("http://[::1")
    bench.server.reconfigure({"exclude": ["*.generated.py"]})
    await opened(bench, "import os\n", uri)
    document = bench.server.documents.get(uri)
    assert document is not None
    assert document.path == "b.py"
    place = {"textDocument": {"uri": uri}, "position": {"line": 1, "character": 0}}
    asked = bench.ask(INLINE_COMPLETION, place | {"context": {"triggerKind": 2}})
    await bench.settle()
    bench.suggester.answers[-1].set_result(suggestion("x"))
    await asyncio.wait_for(bench.settle(), 30)
    assert [item["insertText"] for item in bench.result(asked)["items"]] == ["x"]
