"""`textDocument/didOpen`."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from lsprotocol import types

    from lsp_server.server import Server


async def did_open(server: Server, params: types.DidOpenTextDocumentParams) -> None:
    """Keep the text; one that is open already is replaced."""
    opened = params.text_document
    server.scheduler.supersede(opened.uri)
    path = path_in_prompts(opened.uri, server.roots)
    server.documents.open(opened.uri, opened.language_id, opened.version, opened.text, path)


def path_in_prompts(uri: str, roots: list[str]) -> str:
    """A document's path below the innermost folder that holds it, else its name alone."""
    path = PurePosixPath(unquote(urlsplit(uri).path))
    for root in sorted(roots, key=len, reverse=True):
        folder = PurePosixPath(unquote(urlsplit(root).path))
        if path != folder and path.is_relative_to(folder):
            return str(path.relative_to(folder))
    return path.name
