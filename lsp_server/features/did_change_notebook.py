"""`notebookDocument/didChange`: cells come, go and move, and their texts change."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from lsp_server.features.did_change import change_of
from lsp_server.features.did_open_notebook import cell, join, keep

if TYPE_CHECKING:
    from lsprotocol import types

    from lsp_server.documents import Document
    from lsp_server.notebooks import Notebook
    from lsp_server.server import Server

logger = logging.getLogger(__name__)


async def did_change_notebook(
    server: Server, params: types.DidChangeNotebookDocumentParams
) -> None:
    """Edit the cells; requests on the older text are void, and the engine may read ahead."""
    uri, cells = params.notebook_document.uri, params.change.cells
    notebook = server.notebooks.get(uri)
    if notebook is None:
        logger.warning("change of a notebook that is not open: %s", uri)
        return
    if cells is None:
        return
    if cells.structure is not None:
        _restructure(notebook, cells.structure)
    for given in cells.data or ():
        changed = cell(given)
        notebook.cells = [changed if old.uri == changed.uri else old for old in notebook.cells]
    typed_in: Document | None = None
    for content in cells.text_content or ():
        text = notebook.texts.get(content.document.uri)
        if text is None:
            logger.warning("change of a cell that is not open: %s", content.document.uri)
            continue
        for change in content.changes:
            text.apply(change_of(change))
            typed_in = text
        text.version = content.document.version
    join(server, notebook, params.notebook_document.version)
    if typed_in is not None and typed_in.last_edit is not None:
        document, position, _ = server.place(
            typed_in.uri, typed_in.position_at(typed_in.last_edit.new_end)
        )
        if document is not None:
            server.prepare_soon(document, document.offset_at(position))


def _restructure(notebook: Notebook, structure: types.NotebookDocumentCellChangeStructure) -> None:
    array = structure.array
    end = array.start + array.delete_count
    notebook.cells[array.start : end] = map(cell, array.cells or ())
    for closed in structure.did_close or ():
        notebook.texts.pop(closed.uri, None)
    # A cell whose language changes is closed and opened in one message.
    keep(notebook, structure.did_open or ())
