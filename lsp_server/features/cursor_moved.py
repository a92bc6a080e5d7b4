"""`keystate/cursorMoved`: a client's early word that the cursor stands somewhere else now.

A notification with `textDocument: {uri}` and `position: {line, character}`. The engine reads up to
there before anything is asked. Optional: clients that never send it lose that head start alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lsp_server.documents import Position

if TYPE_CHECKING:
    from lsp_server.server import Server

CURSOR_MOVED = "keystate/cursorMoved"


async def cursor_moved(server: Server, params: Any) -> None:
    """Let the engine read ahead to the cursor."""
    document = server.documents.get(str(params.textDocument.uri))
    if document is not None:
        at = Position(int(params.position.line), int(params.position.character))
        server.prepare_soon(document, document.offset_at(at))
