"""`exit`: the process ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lsp_server.server import Server


async def exit_(server: Server, _params: None) -> None:
    """End, with an exit code that says whether `shutdown` came before."""
    server.stop()
