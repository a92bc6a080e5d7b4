"""`notebookDocument/didOpen`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lsprotocol import types

from lsp_server.documents import Document
from lsp_server.notebooks import Cell
from lsp_server.uris import path_in_prompts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lsp_server.notebooks import Notebook
    from lsp_server.server import Server


async def did_open_notebook(server: Server, params: types.DidOpenNotebookDocumentParams) -> None:
    """Keep the cells; a notebook that is open already is replaced."""
    opened = params.notebook_document
    notebook = server.notebooks.open(opened.uri, path_in_prompts(opened.uri, server.roots))
    notebook.cells = list(map(cell, opened.cells))
    keep(notebook, params.cell_text_documents)
    join(server, notebook, opened.version)


def cell(given: types.NotebookCell) -> Cell:
    return Cell(uri=given.document, is_code=given.kind == types.NotebookCellKind.Code)


def keep(notebook: Notebook, texts: Iterable[types.TextDocumentItem]) -> None:
    """Take texts of cells; they need not be in the notebook yet."""
    for text in texts:
        notebook.texts[text.uri] = Document(text.uri, text.language_id, text.version, text.text)


def join(server: Server, notebook: Notebook, version: int | None) -> None:
    """Bring the documents that the engine reads in line with the cells."""
    changed, gone = notebook.join(version)
    for document in changed:
        server.scheduler.supersede(document.uri)
    for uri in gone:
        server.drop(uri)
