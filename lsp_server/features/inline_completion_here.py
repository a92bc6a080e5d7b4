"""Whether a request for inline completion is for the engine, and for which text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lsprotocol import types

from lsp_server.features.inline_completion import inline_completion
from lsp_server.filters import reason_off

if TYPE_CHECKING:
    from lsp_server.server import Server


async def inline_completion_here(
    server: Server, params: types.InlineCompletionParams
) -> types.InlineCompletionList | None:
    """Answer where suggestions are on, or are asked for; a notebook's cell as part of the whole."""
    uri = params.text_document.uri
    place = server.notebooks.place(uri)
    document = server.documents.get(uri) if place is None else place.document
    invoked = params.context.trigger_kind == types.InlineCompletionTriggerKind.Invoked
    if document is None or (not invoked and reason_off(server.settings, document) is not None):
        return types.InlineCompletionList(items=[])
    if place is None:
        return await inline_completion(server, params)
    answer = await inline_completion(server, place.moved_in(params))
    return None if answer is None else place.moved_out(answer)
