"""A language server that is not ours: pygls alone. It completes every line with "pass"."""

from __future__ import annotations

from lsprotocol import types
from pygls.lsp.server import LanguageServer

server = LanguageServer("foreign", "7")


@server.feature(types.TEXT_DOCUMENT_INLINE_COMPLETION, types.InlineCompletionOptions())
def complete(
    ls: LanguageServer, params: types.InlineCompletionParams
) -> types.InlineCompletionList:
    """Complete the line, with the whole line as what it replaces."""
    at = params.position
    document = ls.workspace.get_text_document(params.text_document.uri)
    line = document.lines[at.line] if at.line < len(document.lines) else ""
    before = line[: at.character]
    item = types.InlineCompletionItem(
        insert_text=before + "pass", range=types.Range(types.Position(at.line, 0), at)
    )
    return types.InlineCompletionList(items=[item])


server.start_io()
