"""What was typed next, where a trace does not say."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lsp_server.documents import Position
    from perf.trace_format import Event

# More of what comes next than any suggestion holds.
NEXT_MAX_CHARS = 400
_WRITING = ("type", "paste", "accept")


def typed_next(event: Event, then: Event) -> str:
    """What is written right at an event's cursor, given the event after it in the document.

    Empty where that one does something else, such as deleting or going elsewhere. `then.next` has
    to be known.
    """
    if then.kind not in _WRITING or len(then.changes) != 1:
        return ""
    (change,) = then.changes
    if change.range is None or change.range[0] != event.cursor:
        return ""
    written = _up_to(change.text, event.cursor, then.cursor)
    return "" if written is None else (written + then.next)[:NEXT_MAX_CHARS]


def _up_to(text: str, start: Position, end: Position) -> str | None:
    """As much of a text inserted at `start` as stands before `end`; None if that is not in it."""
    line, character = start
    for n, one in enumerate(text):
        if (line, character) == end:
            return text[:n]
        if one == "\n":
            line, character = line + 1, 0
        else:
            character += 1 if one <= "\uffff" else 2
    return text if (line, character) == end else None
