"""How much of an accepted text still stands in its document a while later."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from lsp_server.documents import Document

    CallLater = Callable[..., asyncio.TimerHandle]
    # Language, name of the time, characters looked for and found.
    Report = Callable[[str, str, int, int], None]

# When texts are looked for, by the name of the time.
TIMES_S = {"30s": 30.0, "5min": 300.0}
# Texts that are watched at once; while there are so many, further ones are not.
MAX_WATCHED = 64

_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(eq=False)
class Watched:
    """A stretch of a document that is carried through its edits."""

    document: Document
    start: int
    end: int
    revision: int
    words: Counter[str]
    handles: tuple[asyncio.TimerHandle, ...] = ()

    def follow(self) -> bool:
        """Take account of the edits since; False if they are not all known any more.

        What an edit puts in place of a part of the stretch belongs to it from then on, so that a
        formatter takes nothing away.
        """
        edits = self.document.edits_since(self.revision)
        if edits is None:
            return False
        for edit in edits:
            shift = edit.new_end - edit.old_end
            if edit.old_end <= self.start:
                self.start, self.end = self.start + shift, self.end + shift
            elif edit.start < self.end:
                self.start = min(self.start, edit.start)
                self.end = max(self.end, edit.old_end) + shift
        self.revision = self.document.revision
        return True


class Retention:
    """The texts accepted last. Words are counted, in memory only, and no text is kept."""

    def __init__(self, call_later: CallLater, report: Report) -> None:
        """`call_later` as an event loop's; `report` is told what was found, time by time."""
        self._call_later, self._report = call_later, report
        self._watched: list[Watched] = []

    def watch(self, document: Document, start: int, end: int) -> None:
        """Look for the text of a stretch after 30 seconds and after 5 minutes."""
        words = Counter(_WORD.findall(document.slice(start, end)))
        if not words or len(self._watched) >= MAX_WATCHED:
            return
        one = Watched(document, start, end, document.revision, words)
        one.handles = tuple(
            self._call_later(seconds, self._look, one, time) for time, seconds in TIMES_S.items()
        )
        self._watched.append(one)

    def follow(self, document: Document) -> None:
        """Take account of a document's edits; to be called more often than once in 256."""
        for one in [one for one in self._watched if one.document is document]:
            if not one.follow():
                self._drop(one)

    def forget(self, document: Document) -> None:
        """Stop watching a document that is closed."""
        for one in [one for one in self._watched if one.document is document]:
            self._drop(one)

    def close(self) -> None:
        for one in list(self._watched):
            self._drop(one)

    def _look(self, one: Watched, time: str) -> None:
        if one not in self._watched:
            return
        if one.follow():
            there = Counter(_WORD.findall(one.document.slice(one.start, one.end)))
            n_found = _n_chars(one.words & there)
            self._report(one.document.language_id, time, _n_chars(one.words), n_found)
        if time == list(TIMES_S)[-1] or one.revision != one.document.revision:
            self._drop(one)

    def _drop(self, one: Watched) -> None:
        self._watched.remove(one)
        for handle in one.handles:
            handle.cancel()


def _n_chars(words: Counter[str]) -> int:
    return sum(n * len(word) for word, n in words.items())
