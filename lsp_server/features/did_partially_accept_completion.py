"""`textDocument/didPartiallyAcceptCompletion`: a part of an item is in the document now.

A notification with `item`, as the server sent it, and `acceptedLength`: how much of its text was
accepted so far, in UTF-16 units; as Copilot's language server takes it. Parameters of another
shape are a log line.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lsp_server.server import Server

DID_PARTIALLY_ACCEPT = "textDocument/didPartiallyAcceptCompletion"

logger = logging.getLogger(__name__)


async def did_partially_accept_completion(server: Server, params: Any) -> None:
    """Note how much of an item was accepted."""
    match params:
        case object(
            item=object(command=object(arguments=[str(offer_id), *_])), acceptedLength=int(n_units)
        ) if n_units >= 0:
            server.offers.partially_accepted(offer_id, n_units)
        case _:
            logger.warning("%s: parameters of a wrong shape", DID_PARTIALLY_ACCEPT)
