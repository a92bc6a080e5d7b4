"""`initialize`: the client's folders and settings; the engine starts to load."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from lsp_server.settings import read_settings

if TYPE_CHECKING:
    from lsprotocol import types

    from lsp_server.server import Server

logger = logging.getLogger(__name__)


async def initialize(server: Server, params: types.InitializeParams) -> None:
    """Take the options; pygls answers with the capabilities."""
    folders = [folder.uri for folder in params.workspace_folders or ()]
    server.roots = folders or ([params.root_uri] if params.root_uri else [])
    settings, problems = read_settings(params.initialization_options, server.forced_settings)
    for problem in problems:
        logger.warning("%s", problem)
    server.configure(settings, problems)
