"""`workspace/didChangeConfiguration`: settings while the server runs, asked for or pushed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from lsprotocol import types
from pygls.exceptions import JsonRpcException

from lsp_server.configuration import SECTION, section_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lsp_server.server import Server

logger = logging.getLogger(__name__)


async def did_change_configuration(
    server: Server, params: types.DidChangeConfigurationParams
) -> None:
    """Take the settings, from a client that can be asked by asking it."""
    await take_configuration(server, params.settings)


async def take_configuration(server: Server, pushed: object) -> None:
    """Take the settings that the client has now; of several that are asked for, the last."""
    await server.scheduler.newest(SECTION, _take(server, pushed))


async def _take(server: Server, pushed: object) -> None:
    workspace = server.client_capabilities.workspace
    section: Mapping[str, Any] | None = None
    if workspace is not None and workspace.configuration:
        section = await _ask(server)
    if section is None:
        section = section_of(pushed)
    if section is not None:
        server.reconfigure(section)


async def _ask(server: Server) -> dict[str, Any] | None:
    """Our section, as the client has it; None if it has none."""
    items = [types.ConfigurationItem(section=SECTION)]
    try:
        answer = await server.workspace_configuration_async(types.ConfigurationParams(items=items))
    except JsonRpcException as error:
        logger.warning("the client did not give its configuration: %s", error)
        return None
    section = answer[0] if answer else None
    return section if isinstance(section, dict) else None
