"""`textDocument/didChange`: where the work on the next suggestion begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lsprotocol import types

from lsp_server.documents import Change, Position

if TYPE_CHECKING:
    from lsp_server.server import Server


async def did_change(server: Server, params: types.DidChangeTextDocumentParams) -> None:
    """Edit the text; a request on the older text is void, and the engine may read ahead."""
    uri, version = params.text_document.uri, params.text_document.version
    document = server.documents.change(uri, version, map(change_of, params.content_changes))
    if document is not None and params.content_changes:
        server.scheduler.supersede(uri)
        server.prepare_soon(document)


def change_of(change: types.TextDocumentContentChangeEvent) -> Change:
    """A change as the documents take it."""
    if isinstance(change, types.TextDocumentContentChangeWholeDocument):
        return Change(text=change.text)
    start, end = change.range.start, change.range.end
    return Change(
        text=change.text,
        range=(Position(start.line, start.character), Position(end.line, end.character)),
    )
