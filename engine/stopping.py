"""When a completion has said enough, decided on its text alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_LINE_BREAK = re.compile(r"\r\n?|\n")
_WORD_TAIL = re.compile(r"\w+\Z")
_OPENERS = (":", "(", "[", "{")
_CLOSERS = frozenset(")]}")
# Lines that go on with a block, at the indentation of the line that opened it.
_CONTINUES_BLOCK = re.compile(
    r"(?:else|elif|except|finally|catch|case|default|end|public|private|protected)\b"
)
# Between top-level definitions two are usual; more say that there is nothing to write.
_MAX_LEADING_BLANK_LINES = 2


@dataclass(frozen=True, kw_only=True)
class StopRule:
    """Where to cut generated text.

    A single line ends before its line break. Several lines end before a blank line, or before a
    line that stands further left than the first one with something on it, or than the cursor's
    indentation. Where the first one opens a block or a bracket, they end with the line that closes
    it, or before the statement beside it.
    """

    multiline: bool
    # The cursor line's text before the cursor.
    line_before: str

    def end(self, text: str) -> int | None:
        """Give how much of `text` is kept when decoding can stop here, else None."""
        if not self.multiline:
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
                    began, indent, opened = True, _indent(composed), _opens(composed)
                elif opened and complete and _indent(composed) == indent:
                    if _closes(composed):
                        if not _opens(composed):
                            return stop
                    elif not _CONTINUES_BLOCK.match(composed.strip()):
                        return kept
                kept = stop
            elif complete:
                n_blank += 1
                # The first lines may be those being opened: blank ones count after them only.
                if wrote or n_blank > _MAX_LEADING_BLANK_LINES:
                    return kept
            wrote = wrote or bool(line.strip())
        return None

    def unfinished(self, text: str) -> str:
        """Give the part of `text` that can be shown when time ran out in the middle of it.

        The complete lines, else the complete words of the first line.
        """
        if self.multiline:
            *complete, (start, _, _) = _lines(text)
            if complete and text[:start].strip():
                return text[:start].rstrip()
        return _WORD_TAIL.sub("", text).rstrip()


def _lines(text: str) -> Iterator[tuple[int, int, bool]]:
    """Yield start and end of each line, without its break, and whether there is a break."""
    start = 0
    for found in _LINE_BREAK.finditer(text):
        yield start, found.start(), True
        start = found.end()
    yield start, len(text), False


def _opens(line: str) -> bool:
    return line.rstrip().endswith(_OPENERS)


def _closes(line: str) -> bool:
    return line.strip()[0] in _CLOSERS


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))
