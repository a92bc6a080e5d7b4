"""`textDocument/didShowCompletion`: the user sees an item; as Copilot's language server takes it.

A notification with `item`, as the server sent it: the id is its command's argument. Parameters of
another shape are a log line.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lsp_server.server import Server

DID_SHOW = "textDocument/didShowCompletion"

logger = logging.getLogger(__name__)


async def did_show_completion(server: Server, params: Any) -> None:
    """Note that an item is shown."""
    match params:
        case object(item=object(command=object(arguments=[str(offer_id), *_]))):
            server.offers.shown(offer_id)
        case _:
            logger.warning("%s: parameters of a wrong shape", DID_SHOW)
