"""Hands on a document: each edit is applied, timed at human speed and noted as an event.

The time between two keys is that of Dhakal, Feit, Kristensson and Oulasvirta, "Observations on
Typing from 136 Million Keystrokes", CHI 2018, doi:10.1145/3173574.3174220, table 3: its mean over
168,000 participants is 238.66 ms (sd 111.60). They copied sentences; how one person's keys spread
about their own mean, and the longer pauses of somebody who writes code, are set here by judgement.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lsp_server.documents import Change, Document
from perf.auto_editing import indentation_unit
from perf.trace_format import Event

if TYPE_CHECKING:
    import random

# Pauses as mean and standard deviation in ms; None in their place is the time between two keys.
Pause = tuple[float, float] | None
BETWEEN_KEYS_MS = (238.66, 111.60)
THINKING_MS = (2500.0, 2000.0)
READING_MS = (3500.0, 2500.0)
REACHING_MS = (700.0, 300.0)
# One person's keys, relative to their own mean.
KEY_SPREAD = 0.45
# No hand is faster, where the distribution's tail is.
SHORTEST_PAUSE_MS = 25.0


class Keyboard:
    """One person at one document. Cursors and starts are offsets in characters."""

    def __init__(self, document: Document, dice: random.Random) -> None:
        self.document = document
        self.dice = dice
        self.unit = indentation_unit(document.text)
        """One level of indentation, as the editor is set to."""
        self._key_ms = log_normal(dice, *BETWEEN_KEYS_MS)
        self._t_ms = 0.0

    def chance(self, probability: float) -> bool:
        return self.dice.random() < probability

    def line_before(self, cursor: int) -> str:
        """The cursor's line, up to it."""
        document = self.document
        return document.slice(document.line_start(document.line_of(cursor)), cursor)

    def around(self, cursor: int) -> tuple[str, str]:
        """The characters on both sides of the cursor; empty at the text's ends."""
        slice_ = self.document.slice
        return slice_(max(cursor - 1, 0), cursor), slice_(
            cursor, min(cursor + 1, self.document.n_chars)
        )

    def jump(self, to: int, next_: str = "", pause_ms: Pause = THINKING_MS) -> Event:
        """Move the cursor."""
        return self._event("jump", (), to, next_, pause_ms)

    def change(
        self,
        kind: str,
        start: int,
        n_old: int,
        text: str,
        *,
        cursor: int,
        next_: str = "",
        pause_ms: Pause = None,
    ) -> Event:
        """Put `text` in the place of `n_old` characters, after which the cursor is at `cursor`."""
        position_at = self.document.position_at
        change = Change(text=text, range=(position_at(start), position_at(start + n_old)))
        self.document.apply(change)
        return self._event(kind, (change,), cursor, next_, pause_ms)

    def _event(
        self, kind: str, changes: tuple[Change, ...], cursor: int, next_: str, pause_ms: Pause
    ) -> Event:
        mean_ms, sd_ms = pause_ms or (self._key_ms, KEY_SPREAD * self._key_ms)
        self._t_ms += max(log_normal(self.dice, mean_ms, sd_ms), SHORTEST_PAUSE_MS)
        return Event(
            t_ms=round(self._t_ms),
            kind=kind,
            changes=changes,
            cursor=self.document.position_at(cursor),
            next=next_,
        )


def log_normal(dice: random.Random, mean: float, sd: float) -> float:
    """A number from the log-normal distribution with this mean and standard deviation."""
    variance = math.log(1 + (sd / mean) ** 2)
    return dice.lognormvariate(math.log(mean) - variance / 2, math.sqrt(variance))
