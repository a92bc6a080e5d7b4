"""When a completion has said enough, decided on its text alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.blocks import continues_block, opens_block
from engine.brackets import CLOSERS, pairs

if TYPE_CHECKING:
    from collections.abc import Iterator

_LINE_BREAK = re.compile(r"\r\n?|\n")
_WORD = re.compile(r"\w")
_WORD_TAIL = re.compile(r"\w+\Z")
# Between top-level definitions two are usual; more say that there is nothing to write.
_MAX_LEADING_BLANK_LINES = 2
# What a text says at its end so many times, in so many characters, it will not stop saying. Code
# has three alike, and rows of one or two characters.
_MIN_LOOP_PERIODS = 4
_MIN_LOOP_CHARS = 24
_MIN_PERIOD_CHARS = 3
# The end of a loop stands once more a period before it.
_LOOP_END_CHARS = 8


@dataclass(frozen=True, kw_only=True)
class StopRule:
    """Where to cut generated text.

    A single line ends before its line break, unless it goes on with a block. Several lines end
    before a blank line, or before a line that stands further left than the first one with something
    on it, or than the cursor's indentation. Where the first one opens a block or a bracket, they
    end with the line that closes it, or before the statement beside it.
    """

    multiline: bool
    # The cursor line's text before the cursor.
    line_before: str
    # What the code nearby says again and again may be said so here.
    nearby: tuple[str, ...] = ()
    # A single line that ends with an opening brace is followed by what stands in the braces.
    with_block: bool = False

    def is_block(self, text: str) -> bool:
        """Whether `text`, as it stands, may run over several lines."""
        if self.multiline:
            return True
        found = _LINE_BREAK.search(text) if self.with_block else None
        return found is not None and text[: found.start()].rstrip().endswith("{")

    def end(self, text: str) -> int | None:
        """Give how much of `text` is kept when decoding can stop here, else None."""
        if not self.is_block(text):
            found = _LINE_BREAK.search(text)
            return None if found is None else found.start()
        indent = _indent(self.line_before)
        began = wrote = opened = False
        kept = n_blank = 0
        for start, stop, complete in _lines(text):
            line = text[start:stop]
            composed = line if start else self.line_before + line
            if composed.strip():
                if _indent(composed) < indent:
                    return kept
                if not began:
                    began, indent, opened = True, _indent(composed), opens_block(composed)
                elif opened and complete and _indent(composed) == indent:
                    if _closes(composed):
                        if not opens_block(composed):
                            return stop
                    elif not continues_block(composed):
                        return kept
                kept = stop
            elif complete:
                n_blank += 1
                # The first lines may be those being opened: blank ones count after them only.
                if wrote or n_blank > _MAX_LEADING_BLANK_LINES:
                    return kept
            wrote = wrote or bool(line.strip())
        return None

    def is_loop(self, text: str) -> bool:
        """Whether `text` ends in the same words again and again. Takes microseconds."""
        return self._period(text) is not None

    def unfinished(self, text: str) -> str:
        """Give the part of `text` that can be shown when writing ended in the middle of it.

        The complete lines, else the complete words of the first line, up to a bracket or quote
        that they leave open (unless nothing stands before it), or to a comma. Of what is said
        again and again, the first time.
        """
        end = len(text)
        period = self._period(text)
        if period is not None:
            end -= period
            while end > period and text[end - 1] == text[end - 1 - period]:
                end -= 1
        if self.is_block(text[: end + 1]):
            *complete, (start, _, _) = _lines(text[: end + 1])
            if complete and text[:start].strip():
                return text[:start].rstrip()
        shown, following = text[:end], text[end : end + 1]
        if not following or _WORD.match(following):
            shown = _WORD_TAIL.sub("", shown)
        left_open = pairs(shown)[1]
        closed = shown[: left_open[0] if left_open else None]
        # One that begins with what it leaves open has nothing else to show.
        return (closed if closed.strip() else shown).rstrip(", \t\r\n")

    def _period(self, text: str) -> int | None:
        """Give the length of what `text` says again and again at its end, None if it does not."""
        tail = text[-_LOOP_END_CHARS:]
        at = text.rfind(tail, 0, -1)
        while at >= 0 and len(tail) == _LOOP_END_CHARS:
            period = len(text) - len(tail) - at
            n_periods = max(_MIN_LOOP_PERIODS, -(-_MIN_LOOP_CHARS // period))
            loop = text[-n_periods * period :]
            if len(loop) < n_periods * period:
                return None
            if loop.startswith(loop[period:]):
                says_words = period >= _MIN_PERIOD_CHARS and _WORD.search(loop[:period])
                is_known = any(loop in code for code in self.nearby)
                return period if says_words and not is_known else None
            at = text.rfind(tail, 0, at + len(tail) - 1)
        return None


def _lines(text: str) -> Iterator[tuple[int, int, bool]]:
    """Yield start and end of each line, without its break, and whether there is a break."""
    start = 0
    for found in _LINE_BREAK.finditer(text):
        yield start, found.start(), True
        start = found.end()
    yield start, len(text), False


def _closes(line: str) -> bool:
    return line.strip()[0] in CLOSERS


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))
