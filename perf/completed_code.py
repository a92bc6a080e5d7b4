"""How much of the code in a keystroke trace suggestions would have written."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lsp_server.documents import Document, Position
    from perf.trace_format import Trace

Ask = Callable[["Document", "Position"], Awaitable[str]]
"""Gives the text that is shown at a position, "" for none."""


@dataclass(frozen=True, kw_only=True)
class CompletedCode:
    """What was typed in traces, and what of it need not have been."""

    n_typed_chars: int = 0
    n_completed_chars: int = 0
    n_shown: int = 0
    n_accepted: int = 0

    @property
    def ratio(self) -> float:
        return self.n_completed_chars / self.n_typed_chars if self.n_typed_chars else 0.0

    @property
    def figures(self) -> dict[str, float]:
        """As `keystate eval --json` gives them."""
        return {
            "typed_chars": self.n_typed_chars,
            "completed_chars": self.n_completed_chars,
            "ratio_completed": self.ratio,
            "shown": self.n_shown,
            "accepted": self.n_accepted,
        }

    def __add__(self, other: CompletedCode) -> CompletedCode:
        return CompletedCode(
            n_typed_chars=self.n_typed_chars + other.n_typed_chars,
            n_completed_chars=self.n_completed_chars + other.n_completed_chars,
            n_shown=self.n_shown + other.n_shown,
            n_accepted=self.n_accepted + other.n_accepted,
        )


async def completed_code(trace: Trace, ask: Ask) -> CompletedCode:
    """Play a trace and count the typed characters that an accepted suggestion would have brought.

    Accepted is a suggestion that the user then typed to its last character (`Event.next`); no
    other is asked for until it is typed, or something else is done. Only characters of "type"
    events count.
    """
    document = trace.open()
    taken, taken_at = "", 0
    n_typed = n_completed = n_shown = n_accepted = 0
    for event in trace.events:
        ranges = [change.range for change in event.changes if change.range is not None]
        start = document.offset_at(ranges[0][0]) if ranges else document.n_chars
        for change in event.changes:
            document.apply(change)
        cursor = document.offset_at(event.cursor)
        # What the editor puts behind the cursor by itself was not typed.
        typed = max(cursor - start, 0) if event.kind == "type" else 0
        n_typed += typed
        if taken:
            n_done = cursor - taken_at
            written = document.slice(taken_at, cursor)
            is_inside = n_done >= 0 and taken.startswith(written)
            if is_inside:
                n_completed += typed
            elif written.startswith(taken):
                # The last key brought more than was left of the suggestion.
                n_completed += max(typed - (n_done - len(taken)), 0)
            if not is_inside or n_done == len(taken):
                taken = ""
        if taken or not event.request or not event.next:
            continue
        text = await ask(document, event.cursor)
        n_shown += bool(text)
        if text and event.next.startswith(text):
            taken, taken_at = text, cursor
            n_accepted += 1
    return CompletedCode(
        n_typed_chars=n_typed,
        n_completed_chars=n_completed,
        n_shown=n_shown,
        n_accepted=n_accepted,
    )
