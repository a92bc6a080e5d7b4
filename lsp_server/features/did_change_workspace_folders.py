"""`workspace/didChangeWorkspaceFolders`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lsp_server.uris import path_in_prompts

if TYPE_CHECKING:
    from lsprotocol import types

    from lsp_server.server import Server


async def did_change_workspace_folders(
    server: Server, params: types.DidChangeWorkspaceFoldersParams
) -> None:
    """Name open documents by the folders that there are now."""
    removed = {folder.uri for folder in params.event.removed}
    added = [folder.uri for folder in params.event.added]
    kept = [root for root in server.roots if root not in removed]
    server.roots = list(dict.fromkeys([*kept, *added]))
    for notebook in server.notebooks:
        notebook.path = path_in_prompts(notebook.uri, server.roots)
    for document in server.documents:
        document.path = path_in_prompts(document.uri, server.roots)
