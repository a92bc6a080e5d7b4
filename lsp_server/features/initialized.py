"""`initialized`: the first moment at which a client may be told something."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lsprotocol import types

if TYPE_CHECKING:
    from lsp_server.server import Server


async def initialized(server: Server, _params: types.InitializedParams | None) -> None:
    """Show once what is wrong with the settings."""
    if server.setting_problems:
        problems = "; ".join(server.setting_problems)
        server.show(types.MessageType.Warning, f"keystate: {problems}")
