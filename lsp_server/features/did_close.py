"""`textDocument/didClose`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lsprotocol import types

    from lsp_server.server import Server


async def did_close(server: Server, params: types.DidCloseTextDocumentParams) -> None:
    """Forget the document everywhere."""
    uri = params.text_document.uri
    server.scheduler.supersede(uri)
    server.documents.close(uri)
    suggester = server.loaded_suggester
    if suggester is not None:
        suggester.forget(uri)
