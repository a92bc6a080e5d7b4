"""`keystate.server.accepted`: the command of every item, run by clients when it is accepted.

Its one argument is the item's id. VS Code makes a server's commands global ones, and does not
start a server whose command's name is taken. So the name keeps out of the extension's own
(`keystate.…`), and tells no two servers apart: a client that is joined to another server process
later runs the names that the first one told it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lsp_server.server import Server

ACCEPTED = "keystate.server.accepted"

logger = logging.getLogger(__name__)


async def accepted(server: Server, arguments: Any) -> None:
    """Note that an item was accepted."""
    match arguments:
        case [str(offer_id), *_]:
            server.offers.accepted(offer_id)
        case _:
            logger.warning("%s: arguments of a wrong shape", ACCEPTED)
