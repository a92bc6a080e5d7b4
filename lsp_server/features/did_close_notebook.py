"""`notebookDocument/didClose`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lsp_server.features.did_open_notebook import join

if TYPE_CHECKING:
    from lsprotocol import types

    from lsp_server.server import Server


async def did_close_notebook(server: Server, params: types.DidCloseNotebookDocumentParams) -> None:
    """Forget the notebook and its cells everywhere."""
    notebook = server.notebooks.close(params.notebook_document.uri)
    if notebook is not None:
        notebook.cells.clear()
        join(server, notebook, None)
