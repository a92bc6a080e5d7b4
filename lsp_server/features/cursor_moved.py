"""`keystate/cursorMoved`: a client's early word that the cursor stands somewhere else now.

A notification with `textDocument: {uri}` and `position: {line, character}`. The engine reads up to
there before anything is asked. Optional: clients that never send it lose that head start alone.
Parameters of another shape are a log line.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from lsp_server.documents import Position

if TYPE_CHECKING:
    from lsp_server.server import Server

CURSOR_MOVED = "keystate/cursorMoved"

logger = logging.getLogger(__name__)


async def cursor_moved(server: Server, params: Any) -> None:
    """Let the engine read ahead to the cursor."""
    match params:
        case object(
            textDocument=object(uri=str(uri)),
            position=object(line=int(line), character=int(character)),
        ) if line >= 0 and character >= 0:
            document, position, _ = server.place(uri, Position(line, character))
            if document is not None:
                server.prepare_soon(document, document.offset_at(position))
        case _:
            logger.warning("%s: parameters of a wrong shape", CURSOR_MOVED)
