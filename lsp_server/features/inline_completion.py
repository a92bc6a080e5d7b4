"""`textDocument/inlineCompletion`: what the whole program is for.

What was typed along a suggestion is answered with its rest, and the engine is not asked; but it
always is where the user asks. Where the client's completion menu has something selected
(`selectedCompletionInfo`), the items go on from that, in its range.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lsprotocol import types

from lsp_server.documents import Change, Document, Position
from lsp_server.features.accepted import ACCEPTED
from lsp_server.filters import reason_off
from lsp_server.offers import Fate
from lsp_server.protocol import MadeWhenSent, received_s

if TYPE_CHECKING:
    from collections.abc import Callable

    from lsp_server.server import Server
    from lsp_server.type_through import Kept

_WORD = re.compile(r"\w")
# Other items beside the first, for who asks: editors let users step through them.
N_ALTERNATIVES = 2
# The counts of an answer that took nothing.
TYPED = {
    "prompt_kind": "typed",
    "stop": "typed",
    "tokens": {"prompt": 0, "recomputed": 0, "generated": 0},
    "passes": {"model": 0, "healing": 0, "alternatives": 0},
    "state_from": "none",
    "hidden": None,
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a suggestion goes: behind `chosen`, which is to replace what is in [start, end)."""

    document: Document
    start: Position
    end: Position
    chosen: str = ""
    first_line: int = 0
    """Where the client's text begins, which may be a notebook's cell, in the document."""


async def inline_completion(
    server: Server, params: types.InlineCompletionParams
) -> types.InlineCompletionList | MadeWhenSent | None:
    """Answer with what fits the document as it stands; `None` once it has moved on."""
    place = _place(server, params)
    invoked = params.context.trigger_kind == types.InlineCompletionTriggerKind.Invoked
    if place is None or (not invoked and reason_off(server.settings, place.document) is not None):
        return types.InlineCompletionList(items=[])
    work = _suggest(server, place, invoked)
    return await server.scheduler.newest(place.document.uri, work)


def _place(server: Server, params: types.InlineCompletionParams) -> Place | None:
    """The cursor's place, or that of what a menu has selected for the word at the cursor.

    None for a document that is not open.
    """

    def moved(at: types.Position) -> tuple[Document | None, Position, int]:
        return server.place(params.text_document.uri, Position(at.line, at.character))

    document, position, first_line = moved(params.position)
    if document is None:
        return None
    start = end = position
    chosen = ""
    selected = params.context.selected_completion_info
    if selected is not None:
        _, first, _ = moved(selected.range.start)
        _, last, _ = moved(selected.range.end)
        if first <= position <= last and first.line == last.line:
            start, end, chosen = first, last, selected.text
    return Place(document=document, start=start, end=end, chosen=chosen, first_line=first_line)


async def _suggest(
    server: Server, place: Place, invoked: bool
) -> types.InlineCompletionList | MadeWhenSent | None:
    document, revision = place.document, place.document.revision
    if not invoked:
        rests, fate = _typed_through(server, place)
        rests = _behind(place.chosen, rests)
        if rests:
            typed = _noted(server, document, TYPED, {"total": 0.0})

            def prolong() -> types.InlineCompletionList:
                server.type_through.n_answers += 1
                server.answers.add(*typed)
                return _answer(server, place, rests, fate)

            return _unless_outdated(server, document, revision, prolong)
    settings = server.settings
    deadline_ms = settings.invoked_deadline_ms if invoked else settings.deadline_ms
    ends_s = received_s.get() + deadline_ms / 1e3
    suggester = await server.suggester(1e3 * (ends_s - time.monotonic()))
    if suggester is None:
        server.answers.add(*_noted(server, document, {"stop": "loading"}, None))
        return types.InlineCompletionList(items=[])
    asked, position = document, place.end
    start, end = document.offset_at(place.start), document.offset_at(place.end)
    if place.start != place.end or place.chosen:
        # As if the user had taken what is selected.
        asked = document.drafted(Change(text=place.chosen, range=(place.start, place.end)))
        position = asked.position_at(start + len(place.chosen))
    suggestion = await suggester.suggest(
        asked,
        position,
        explicit=invoked,
        deadline_ms=max(0.0, 1e3 * (ends_s - time.monotonic())),
        n_alternatives=N_ALTERNATIVES if invoked else 0,
    )
    if not suggestion.is_wanted:
        return None
    noted = _noted(server, document, suggestion.counts, suggestion.timings_ms)
    texts = _behind(place.chosen, [item.insert_text for item in suggestion.items])

    def answer() -> types.InlineCompletionList:
        fate = Fate()
        server.answers.add(*noted)
        if texts:
            whole = tuple(place.chosen + text for text in texts)
            server.type_through.keep(document, start, end, whole, suggestion.completion.kind, fate)
        return _answer(server, place, texts, fate)

    return _unless_outdated(server, document, revision, answer)


def _behind(chosen: str, texts: list[str]) -> list[str]:
    """The texts that go on from what is chosen; the others would make another word of it."""
    if not _WORD.match(chosen[-1:]):
        return texts
    return [text for text in texts if not _WORD.match(text)]


def _unless_outdated(
    server: Server,
    document: Document,
    revision: int,
    answer: Callable[[], types.InlineCompletionList],
) -> MadeWhenSent:
    """What `answer` gives; None, and nothing is remembered, if anything newer has come in."""

    def make() -> types.InlineCompletionList | None:
        is_open = server.documents.get(document.uri) is document
        if not is_open or document.revision != revision or server.scheduler.is_busy(document.uri):
            return None
        return answer()

    return MadeWhenSent(make)


def _typed_through(server: Server, place: Place) -> tuple[list[str], Any]:
    """What is left of a suggestion that the user types along, and what became of that so far."""
    document, suggester = place.document, server.loaded_suggester

    def is_outdated(kept: Kept) -> bool:
        # What stood in for an answer from the epoch stands in until that can be had.
        is_makeshift = kept.kind != "epoch"
        return is_makeshift and suggester is not None and not suggester.is_reading(document)

    start, end = document.offset_at(place.start), document.offset_at(place.end)
    return server.type_through.rests(document, start, end, place.chosen, is_outdated=is_outdated)


def _answer(
    server: Server, place: Place, texts: list[str], fate: Fate
) -> types.InlineCompletionList:
    """Items that put `texts` behind what is chosen, each with an id of its own."""
    document = place.document
    start, end = (document.offset_at(at) for at in (place.start, place.end))
    replaced = document.slice(start, end)
    # Past a line's end, the cursor is at its end.
    ends = (document.position_at(offset) for offset in (start, end))
    at = types.Range(*(types.Position(one.line - place.first_line, one.character) for one in ends))
    items = []
    for text in texts:
        whole = place.chosen + text
        n_standing = len(replaced) if whole.startswith(replaced) else 0
        offer_id = server.offers.add(document, start, whole, n_standing, fate)
        command = types.Command(title="accepted", command=ACCEPTED, arguments=[offer_id])
        items.append(types.InlineCompletionItem(insert_text=whole, range=at, command=command))
    return types.InlineCompletionList(items=items)


def _noted(
    server: Server,
    document: Document,
    counts: dict[str, Any],
    timings_ms: dict[str, float] | None,
) -> tuple[dict[str, Any], float]:
    """What an answer took, for `keystate/lastTimings`, and now; no timings: nobody was asked."""
    read_s, now_s = received_s.get(), time.monotonic()
    since_received_ms = 1e3 * (now_s - read_s)
    answer = {
        "id": server.protocol.msg_id,
        "uri": document.uri,
        "version": document.version,
        **counts,
        "timings_ms": {"total": since_received_ms},
    }
    if timings_ms is not None:
        # Decoding the message, and waiting for the loop or for the model to load.
        received_ms = since_received_ms - timings_ms["total"]
        read_ahead_ms = server.read_ahead_ms(read_s, read_s + received_ms / 1e3)
        answer["timings_ms"] = {
            **timings_ms,
            "receive": received_ms - read_ahead_ms,
            "read_ahead": read_ahead_ms,
            "total": since_received_ms,
        }
    return answer, now_s
