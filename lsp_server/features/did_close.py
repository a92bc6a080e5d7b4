"""`textDocument/didClose`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lsprotocol import types

    from lsp_server.server import Server


async def did_close(server: Server, params: types.DidCloseTextDocumentParams) -> None:
    """Forget the document everywhere."""
    server.drop(params.text_document.uri)
