"""`textDocument/didOpen`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lsp_server.uris import path_in_prompts

if TYPE_CHECKING:
    from lsprotocol import types

    from lsp_server.server import Server


async def did_open(server: Server, params: types.DidOpenTextDocumentParams) -> None:
    """Keep the text; one that is open already is closed first."""
    opened = params.text_document
    if server.documents.get(opened.uri) is not None:
        # Window edges and offers are places in the text that was.
        server.drop(opened.uri)
    path = path_in_prompts(opened.uri, server.roots)
    server.documents.open(opened.uri, opened.language_id, opened.version, opened.text, path)
