"""`shutdown`: no more suggestions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lsp_server.server import Server


async def shutdown(server: Server, _params: None) -> None:
    """Note that the exit to come is a clean one; pygls cancels what runs."""
    server.is_shut_down = True
