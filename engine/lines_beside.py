"""What stands elsewhere beside the lines that stand beside a cursor.

Where one line is written between two others, these say as much of it as its own beginning: in code
that is written again, with other names or in another order, the line above or below is the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

# Looked at, the last first: a line that stands oftener says little about those beside it.
MAX_PLACES = 64


def line_above(before: str) -> str:
    """Give the last whole line above a cursor with something on it, without blanks around."""
    whole = before[: before.rfind("\n") + 1]
    return whole.rstrip().rpartition("\n")[2].strip()


def line_below(after: str) -> str:
    """Give the first whole line below a cursor with something on it, without blanks around.

    Empty where something stands on the rest of the cursor's line.
    """
    rest, _, lines = after.partition("\n")
    if rest.strip():
        return ""
    whole = lines[: lines.rfind("\n") + 1]
    return whole.lstrip().partition("\n")[0].strip()


class LinesBeside:
    """Lines above or below other places of one line, and where they go on as a line has begun."""

    def __init__(
        self, text: bytes, spans: Iterable[tuple[int, int]], begun: bytes, without: Container[bytes]
    ) -> None:
        """Take lines of `text` by their starts and ends, the nearest first."""
        self._begun = begun
        # The start of the nearest place of each line, and how many places it has.
        self._lines: dict[bytes, tuple[int, int]] = {}
        for start, end in spans:
            line = text[start:end]
            if line.strip() not in without:
                nearest, n = self._lines.get(line, (start, 0))
                self._lines[line] = nearest, n + 1

    @classmethod
    def above(
        cls, text: bytes, next_line: bytes, begun: bytes, without: Container[bytes] = ()
    ) -> LinesBeside:
        """Look in `text`, of parts with NUL between, above the lines that are `next_line`.

        `begun` is what stands of the cursor's line. Lines in `without` do not count.
        """
        return cls(text, _above(text, next_line), begun, without)

    @classmethod
    def below(
        cls, text: bytes, last_line: bytes, begun: bytes, without: Container[bytes] = ()
    ) -> LinesBeside:
        """Look below the lines that are `last_line`, for whole lines."""
        return cls(text, _below(text, last_line), begun, without)

    def places(self, written: bytes) -> dict[int, float]:
        """Give places in lines that begin as the cursor's with what was `written` behind it.

        With their shares of all such lines. A line that is begun may be indented otherwise.
        """
        if not self._lines or b"\n" in written:
            return {}
        begun = self._begun + written
        bare = begun.lstrip()
        found: dict[int, int] = {}
        for line, (start, n) in self._lines.items():
            if line.startswith(begun):
                found[start + len(begun)] = n
            elif bare and line.lstrip().startswith(bare):
                found[start + len(line) - len(line.lstrip()) + len(bare)] = n
        n_lines = sum(found.values())
        return {place: n / n_lines for place, n in found.items()}


def _above(text: bytes, anchor: bytes) -> Iterator[tuple[int, int]]:
    """Yield start and end of the lines above those that are `anchor`, the last first."""
    for start, _ in _lines_that_are(text, anchor):
        # Blank lines between count for nothing.
        while start and text[start - 1] == ord("\n"):
            start, end = _start(text, start - 1), start - 1
            if text[start:end].strip():
                yield start, end
                break


def _below(text: bytes, anchor: bytes) -> Iterator[tuple[int, int]]:
    """Yield start and end of the whole lines below those that are `anchor`, the last first."""
    for _, end in _lines_that_are(text, anchor):
        start = end + 1
        while (end := text.find(b"\n", start)) >= 0 and text.find(b"\0", start, end) < 0:
            if text[start:end].strip():
                yield start, end
                break
            start = end + 1


def _lines_that_are(text: bytes, anchor: bytes) -> Iterator[tuple[int, int]]:
    """Yield start and end of lines that are `anchor` but for blanks around, the last first.

    None for an empty one.
    """
    at = len(text)
    for _ in range(MAX_PLACES if anchor else 0):
        at = text.rfind(anchor, 0, at)
        if at < 0:
            return
        start, end = _start(text, at), text.find(b"\n", at)
        if end >= 0 and text[start:end].strip() == anchor:
            yield start, end


def _start(text: bytes, at: int) -> int:
    """Give where the line begins that a place lies in."""
    start = text.rfind(b"\n", 0, at) + 1
    # Not searched for in all the text before: there may be one NUL in 64 kB.
    return max(start, text.rfind(b"\0", start, at) + 1)
