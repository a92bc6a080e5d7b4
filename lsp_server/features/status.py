"""`keystate/status` as a request: how things stand, in one document where one is named.

Parameters: null, or an object with `textDocument: {uri}`. The result is described in
`lsp_server/status.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lsp_server.documents import Position
from lsp_server.filters import reason_off

if TYPE_CHECKING:
    from lsp_server.server import Server


async def status(server: Server, params: Any) -> dict[str, Any]:
    """Give the status, and why a document gets no suggestions unasked."""
    match params:
        case object(textDocument=object(uri=str(uri))):
            document, _, _ = server.place(uri, Position(0, 0))
            if document is not None:
                return server.status.now(reason_off(server.settings, document))
    return server.status.now()
