"""`initialize`: the client's folders and settings; the engine starts to load."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lsprotocol import types

    from lsp_server.server import Server


async def initialize(server: Server, params: types.InitializeParams) -> None:
    """Take the options; pygls answers with the capabilities."""
    folders = [folder.uri for folder in params.workspace_folders or ()]
    server.roots = folders or ([params.root_uri] if params.root_uri else [])
    if params.process_id is not None:
        server.watch_parent(params.process_id)
    problems = server.configuration.start(params.initialization_options)
    server.configure(server.configuration.settings, problems)
