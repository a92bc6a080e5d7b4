"""A notebook's cells as one document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsp_server.documents import Change, Document, Documents, Position
from lsp_server.notebooks import Cell, Notebook, Notebooks
from tests.lsp_server.server_bench import Bench, suggestion

if TYPE_CHECKING:
    from collections.abc import Sequence

NOTEBOOK = "file:///workspace/study.ipynb"
CODE, MARKUP = 2, 1
AUTOMATIC = {"triggerKind": 2}


def cell_uri(n: int) -> str:
    return f"vscode-notebook-cell:/workspace/study.ipynb#{n}"


def notebook(*texts: str) -> tuple[Notebook, Documents]:
    documents = Documents()
    made = Notebooks(documents).open(NOTEBOOK, "study.ipynb")
    for n, text in enumerate(texts):
        made.texts[cell_uri(n)] = Document(cell_uri(n), "python", 0, text)
        made.cells.append(Cell(uri=cell_uri(n), is_code=True))
    made.join(0)
    return made, documents


def joined(documents: Documents, language: str = "python") -> str:
    document = documents.get(f"{NOTEBOOK}#{language}")
    assert document is not None
    return document.text


@pytest.mark.parametrize(
    ("texts", "whole"),
    [
        (["a = 1", "b = 2"], "a = 1\n\nb = 2"),
        (["a = 1\n", "b = 2\n"], "a = 1\n\n\nb = 2\n"),
        (["a\r\nb\rc", "d"], "a\nb\nc\n\nd"),
        (["", "", "x"], "\n\n\n\nx"),
    ],
)
def test_cells_are_joined(texts: list[str], whole: str) -> None:
    _, documents = notebook(*texts)
    assert joined(documents) == whole


TEXTS = st.lists(st.text("ab\n\r🎉", max_size=12), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(TEXTS, st.data())
def test_every_place_of_a_cell_is_the_same_text_in_the_whole(
    texts: Sequence[str], data: st.DataObject
) -> None:
    made, documents = notebook(*texts)
    for _ in range(3):
        n = data.draw(st.integers(0, len(texts) - 1))
        cell = made.texts[cell_uri(n)]
        start, end = sorted(data.draw(st.integers(0, cell.n_chars)) for _ in range(2))
        where = (cell.position_at(start), cell.position_at(end))
        cell.apply(
            Change(text=data.draw(st.sampled_from(["", "x", "\r", "\n", "y\nz"])), range=where)
        )
        made.join(1)
    whole = joined(documents)
    for n in range(len(texts)):
        place = made.place(cell_uri(n))
        assert place is not None
        document, cell = place.document, place.cell
        assert document.text == whole
        for offset in range(cell.n_chars + 1):
            at = cell.position_at(offset)
            line = document.lines[place.position(at).line].rstrip("\n")
            assert line == cell.lines[at.line].rstrip("\r\n")
            assert place.position(at).character == at.character
        assert place.position(Position(999, 999)).line < len(document.lines)


class TestServer:
    pytestmark = pytest.mark.asyncio

    async def opened(self, bench: Bench, *cells: tuple[int, str, str]) -> None:
        """Open a notebook of cells: kind, language and text."""
        texts = [
            {"uri": cell_uri(n), "languageId": language, "version": 0, "text": text}
            for n, (_, language, text) in enumerate(cells)
        ]
        listed = [{"kind": kind, "document": cell_uri(n)} for n, (kind, _, _) in enumerate(cells)]
        opened = {"uri": NOTEBOOK, "notebookType": "jupyter", "version": 0, "cells": listed}
        params = {"notebookDocument": opened, "cellTextDocuments": texts}
        bench.tell("notebookDocument/didOpen", params)
        await bench.settle()

    async def changed(self, bench: Bench, **cells: Any) -> None:
        document = {"uri": NOTEBOOK, "version": 1}
        params = {"notebookDocument": document, "change": {"cells": cells}}
        bench.tell("notebookDocument/didChange", params)
        await bench.settle()

    def ask(self, bench: Bench, n: int, line: int, character: int) -> int:
        return bench.ask(
            "textDocument/inlineCompletion",
            {
                "textDocument": {"uri": cell_uri(n)},
                "position": {"line": line, "character": character},
                "context": AUTOMATIC,
            },
        )

    async def test_a_cell_is_completed_as_part_of_the_whole(self, ready_bench: Bench) -> None:
        bench = ready_bench
        await self.opened(
            bench,
            (CODE, "python", "import os\nx = 1"),
            (MARKUP, "markdown", "# Title"),
            (CODE, "sql", "SELECT 1"),
            (CODE, "python", "y = "),
        )
        at = {"start": {"line": 0, "character": 0}, "end": {"line": 0, "character": 0}}
        content = {"document": {"uri": cell_uri(3), "version": 1}}
        await self.changed(
            bench, textContent=[content | {"changes": [{"range": at, "text": "# \n"}]}]
        )
        assert bench.suggester.prepared == ["import os\nx = 1\n\n# \n|y = "]
        request = self.ask(bench, 3, 1, 4)
        await bench.settle()
        (text, position, *_) = bench.suggester.asked[0]
        assert text == "import os\nx = 1\n\n# \ny = "
        assert position == (4, 4)
        bench.suggester.answers[0].set_result(suggestion("x"))
        await bench.settle()
        (item,) = bench.result(request)["items"]
        here = {"line": 1, "character": 4}
        assert item["range"] == {"start": here, "end": here}

    async def test_cells_come_go_and_move(self, ready_bench: Bench) -> None:
        bench = ready_bench
        await self.opened(bench, *((CODE, "python", text) for text in "abc"))
        listed = [{"kind": CODE, "document": cell_uri(n)} for n in (9, 0)]
        text = {"uri": cell_uri(9), "languageId": "python", "version": 0, "text": "new"}
        array = {"start": 0, "deleteCount": 2, "cells": listed}
        structure = {
            "array": array,
            "didOpen": [text],
            "didClose": [{"uri": cell_uri(1)}],
        }
        await self.changed(bench, structure=structure)
        assert joined(bench.server.documents) == "new\n\na\n\nc"
        await self.changed(bench, data=[{"kind": MARKUP, "document": cell_uri(0)}])
        assert joined(bench.server.documents) == "new\n\nc"
        nowhere = self.ask(bench, 0, 0, 0)
        await bench.settle()
        assert bench.result(nowhere) == {"items": []}

    async def test_a_cell_that_changes_its_language(self, ready_bench: Bench) -> None:
        bench = ready_bench
        await self.opened(bench, (CODE, "python", "a"), (CODE, "python", "b"))
        text = {"uri": cell_uri(1), "languageId": "sql", "version": 0, "text": "b"}
        structure = {
            "array": {
                "start": 1,
                "deleteCount": 1,
                "cells": [{"kind": CODE, "document": cell_uri(1)}],
            },
            "didOpen": [text],
            "didClose": [{"uri": cell_uri(1)}],
        }
        await self.changed(bench, structure=structure)
        documents = bench.server.documents
        assert (joined(documents), joined(documents, "sql")) == ("a", "b")

    async def test_a_change_makes_a_request_void(self, ready_bench: Bench) -> None:
        bench = ready_bench
        await self.opened(bench, (CODE, "python", "a"), (CODE, "python", "b"))
        request = self.ask(bench, 0, 0, 1)
        await bench.settle()
        content = {"document": {"uri": cell_uri(1), "version": 1}, "changes": [{"text": "c"}]}
        await self.changed(bench, textContent=[content])
        assert bench.result(request) is None

    async def test_a_closed_notebook_is_forgotten(self, ready_bench: Bench) -> None:
        bench = ready_bench
        await self.opened(bench, (CODE, "python", "a"), (CODE, "sql", "b"))
        closed = {"notebookDocument": {"uri": NOTEBOOK}, "cellTextDocuments": []}
        bench.tell("notebookDocument/didClose", closed)
        await bench.settle()
        assert sorted(bench.suggester.forgotten) == [f"{NOTEBOOK}#python", f"{NOTEBOOK}#sql"]
        assert bench.server.documents.get(f"{NOTEBOOK}#python") is None
        await self.changed(bench, data=[])
        request = self.ask(bench, 0, 0, 0)
        await bench.settle()
        assert bench.result(request) == {"items": []}

    async def test_opened_twice_it_is_what_it_was_opened_as_last(self, ready_bench: Bench) -> None:
        bench = ready_bench
        await self.opened(bench, (CODE, "python", "a"), (CODE, "sql", "b"))
        await self.opened(bench, (CODE, "python", "c"))
        assert joined(bench.server.documents) == "c"
        assert bench.server.documents.get(f"{NOTEBOOK}#sql") is None

    @pytest.mark.parametrize("can", [True, False])
    async def test_advertised_to_clients_that_know_notebooks(self, bench: Bench, can: bool) -> None:
        await bench.initialized({}, {"notebookDocument": {"synchronization": {}}} if can else {})
        capabilities = next(bench.messages())["result"]["capabilities"]
        assert capabilities.get("notebookDocumentSync") == (
            {"notebookSelector": [{"notebook": "*"}]} if can else None
        )
