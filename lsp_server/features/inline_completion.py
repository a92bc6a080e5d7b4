"""`textDocument/inlineCompletion`: what the whole program is for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lsprotocol import types

from lsp_server.documents import Document, Position
from lsp_server.protocol import received_s

if TYPE_CHECKING:
    from lsp_server.server import Server
    from lsp_server.suggestions import Item, Suggestion


async def inline_completion(
    server: Server, params: types.InlineCompletionParams
) -> types.InlineCompletionList | None:
    """Answer with what fits the document as it stands; `None` once it has moved on."""
    document = server.documents.get(params.text_document.uri)
    if document is None:
        return types.InlineCompletionList(items=[])
    position = Position(params.position.line, params.position.character)
    invoked = params.context.trigger_kind == types.InlineCompletionTriggerKind.Invoked
    work = _suggest(server, document, position, invoked)
    return await server.scheduler.newest(document.uri, work)


async def _suggest(
    server: Server, document: Document, position: Position, invoked: bool
) -> types.InlineCompletionList | None:
    settings = server.settings
    deadline_ms = settings.invoked_deadline_ms if invoked else settings.deadline_ms
    ends_s = received_s.get() + deadline_ms / 1e3
    suggester = await server.suggester(1e3 * (ends_s - time.monotonic()))
    if suggester is None:
        _note(server, document, None)
        return types.InlineCompletionList(items=[])
    suggestion = await suggester.suggest(
        document,
        position,
        explicit=invoked,
        deadline_ms=max(0.0, 1e3 * (ends_s - time.monotonic())),
    )
    _note(server, document, suggestion)
    if not suggestion.is_wanted:
        return None
    return types.InlineCompletionList(items=[_item(item) for item in suggestion.items])


def _item(item: Item) -> types.InlineCompletionItem:
    return types.InlineCompletionItem(
        insert_text=item.insert_text,
        range=types.Range(start=types.Position(*item.start), end=types.Position(*item.end)),
    )


def _note(server: Server, document: Document, suggestion: Suggestion | None) -> None:
    """Keep what the answer took, for `keystate/lastTimings`; None: the engine was not ready."""
    since_received_ms = 1e3 * (time.monotonic() - received_s.get())
    answer = {
        "id": server.protocol.msg_id,
        "uri": document.uri,
        "version": document.version,
        "stop": "loading",
        "timings_ms": {"total": since_received_ms},
    }
    if suggestion is not None:
        timings_ms = dict(suggestion.timings_ms)
        # Reading the message, and waiting for the loop or for the model to load.
        timings_ms["receive"] = since_received_ms - timings_ms["total"]
        timings_ms["total"] = since_received_ms
        answer |= {**suggestion.counts, "timings_ms": timings_ms}
    server.answers.add(answer)
