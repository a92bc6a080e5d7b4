"""Open documents: text that is cheap to edit, LSP positions, and a parse tree kept in step."""

from __future__ import annotations

import logging
import re
import time
from bisect import bisect_right
from collections import deque
from copy import copy
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import TYPE_CHECKING, NamedTuple

from lsp_server.private_files import is_secret
from lsp_server.syntax import PARSE_BUDGET_S, SYNTAXES, parse, parser_text
from lsp_server.uris import path_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tree_sitter import Tree

logger = logging.getLogger(__name__)

# Above these a document is not parsed: generated or minified text, where a parse costs seconds.
MAX_PARSE_CHARS = 2_000_000
MAX_PARSE_LINE_CHARS = 100_000
# Processor time of a parse after an edit. Below a bracket or string that is not closed yet, a key
# costs 26 ms in 2,800 lines of Python and 230 ms in 25,000; elsewhere a few.
REPARSE_BUDGET_S = 0.04
# A parse that was broken off is tried again when nothing was edited for so many times its budget:
# a second after one for a key. So parses that come to nothing take 4% of the time at most.
RESTS = 25
# Edits that a window edge can be carried over; an older edge is computed anew.
EDITS_KEPT = 256

_LINE_END = re.compile(r"\r\n|\r|\n")
_SURROGATE = re.compile("[\ud800-\udfff]")


def with_unix_newlines(text: str) -> str:
    """Text with the line ends that models are trained on; `trim` puts the document's back."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


class Position(NamedTuple):
    """LSP's position: 0-based line, UTF-16 units from its start."""

    line: int
    character: int


@dataclass(frozen=True, kw_only=True)
class Change:
    """One content change of `textDocument/didChange`; without `range` the text is the whole."""

    text: str
    range: tuple[Position, Position] | None = None


@dataclass(frozen=True, kw_only=True)
class Edit:
    """An applied change, as character offsets: [start, old_end) became [start, new_end)."""

    start: int
    old_end: int
    new_end: int


class Document:
    """Text of one open file, as lines with their ends; offsets count characters.

    A line ends at \\n, \\r\\n or \\r. The last line has no end and may be empty. Unpaired
    surrogates are U+FFFD from the door on: as wide in UTF-16, and encodable.
    """

    def __init__(
        self,
        uri: str,
        language_id: str,
        version: int | None,
        text: str,
        path: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` gives seconds: a document that costs much to parse is parsed when it rests."""
        self.uri = uri
        self.language_id = language_id
        self.version = version
        self.full_path = path_of(uri)
        """Where the file lies, as its URI says."""
        self.path = _well_formed(path or self.full_path.rpartition("/")[2])
        """What the file is called in prompts; relative to the workspace where there is one."""
        self.is_secret = is_secret(self.path) or is_secret(self.full_path)
        """Whether its name or a folder that it lies in says that it holds secrets."""
        self.syntax = SYNTAXES.get(language_id)
        self.is_draft = False
        """Whether it is what could come of a document, not one that is open."""
        self.revision = 0
        """Number of edits applied so far."""
        text = _well_formed(text)
        self.lines = _split(text)
        self.n_chars = len(text)
        self._text: str | None = text
        self._n_long_lines = _count_long(self.lines)
        # Offsets of the first lines' starts: as many as are still known.
        self._starts = [0]
        self._starts_bytes = [0]
        self._edits: deque[Edit] = deque(maxlen=EDITS_KEPT)
        # As it was parsed last, and told of the edits since.
        self._tree: Tree | None = None
        self._tree_is_current = False
        self._clock = clock
        self._edited_s = clock()
        # How long nothing must have been edited before it is parsed again.
        self._rest_s = 0.0

    @property
    def text(self) -> str:
        """The whole text; joined when asked for, so not for use on every keystroke."""
        if self._text is None:
            self._text = "".join(self.lines)
        return self._text

    @property
    def newline(self) -> str:
        """The line end that this document uses."""
        first = self.lines[0]
        return first[_content_length(first) :] or "\n"

    @property
    def tree(self) -> Tree | None:
        """The parse tree of the text as it stands; None where the document goes by lines.

        So does one whose parse after an edit takes too long, until it has rested.
        """
        if not self._tree_is_current:
            self._parse()
        return self._tree if self._tree_is_current else None

    @property
    def last_edit(self) -> Edit | None:
        """The newest change; its `new_end` is where the user most likely types on."""
        return self._edits[-1] if self._edits else None

    def apply(self, change: Change) -> Edit:
        """Apply one change; positions beyond a line or the text are moved back to its end."""
        text = _well_formed(change.text)
        if change.range is None:
            return self._replace_all(text)
        (start_line, start), (end_line, end) = sorted(map(self._line_and_column, change.range))
        return self._replace(start_line, start, end_line, end, text)

    def offset_at(self, position: Position) -> int:
        line, column = self._line_and_column(position)
        return self.line_start(line) + column

    def position_at(self, offset: int) -> Position:
        """The position of a character; between \\r and \\n it is the line's end."""
        offset = min(max(offset, 0), self.n_chars)
        line = self.line_of(offset)
        text = self.lines[line]
        column = min(offset - self.line_start(line), _content_length(text))
        return Position(line, _utf16_length(text[:column]))

    def line_start(self, line: int) -> int:
        """The offset at which a line starts."""
        starts = self._starts
        if line >= len(starts):
            known = len(starts)
            lengths = map(len, islice(self.lines, known - 1, line))
            starts.extend(islice(accumulate(lengths, initial=starts[-1]), 1, None))
        return starts[line]

    def line_of(self, offset: int) -> int:
        """The line that holds the character at `offset`; the last line at the text's end."""
        starts = self._starts
        while starts[-1] <= offset and len(starts) < len(self.lines):
            self.line_start(min(len(starts) + 255, len(self.lines) - 1))
        return bisect_right(starts, offset) - 1

    def slice(self, start: int, end: int) -> str:
        """The text between two offsets; costs what lies between them."""
        if start >= end:
            return ""
        first, last = self.line_of(start), self.line_of(end)
        from_start = start - self.line_start(first)
        if first == last:
            return self.lines[first][from_start : end - self.line_start(first)]
        head = self.lines[first][from_start:]
        tail = self.lines[last][: end - self.line_start(last)]
        return "".join([head, *self.lines[first + 1 : last], tail])

    def point_at(self, offset: int) -> tuple[int, int]:
        """Row and byte column of an offset in the parse tree."""
        line = self.line_of(offset)
        return line, len(parser_text(self.lines[line][: offset - self.line_start(line)]))

    def edits_since(self, revision: int) -> list[Edit] | None:
        """The edits that followed an earlier revision, oldest first; None if not all are known."""
        n_edits = self.revision - revision
        if n_edits > len(self._edits):
            return None
        return list(islice(self._edits, len(self._edits) - n_edits, None))

    def drafted(self, change: Change) -> Document:
        """A copy to which a change is applied that this document has not seen: a draft."""
        draft = copy(self)
        draft.is_draft = True
        draft.lines = list(self.lines)
        draft._starts = list(self._starts)
        draft._starts_bytes = list(self._starts_bytes)
        draft._edits = self._edits.copy()
        draft._tree = None if self._tree is None else self._tree.copy()
        draft.apply(change)
        return draft

    def carry(self, offset: int, revision: int) -> int | None:
        """Where an offset of an earlier revision is now; None if the text before it is gone.

        Text inserted exactly at the offset comes to stand after it.
        """
        edits = self.edits_since(revision)
        if edits is None:
            return None
        for edit in edits:
            if edit.start >= offset:
                continue
            if edit.old_end >= offset:
                return None
            offset += edit.new_end - edit.old_end
        return offset

    def _parse(self) -> None:
        if self.syntax is None or self.n_chars > MAX_PARSE_CHARS or self._n_long_lines > 0:
            self._tree, self._tree_is_current = None, True
            return
        must_rest = self._rest_s > 0
        if must_rest and self._clock() - self._edited_s < self._rest_s:
            return
        # Nobody types into a text that was just opened, or that has rested.
        at_leisure = must_rest or self._tree is None
        budget_s = PARSE_BUDGET_S if at_leisure else REPARSE_BUDGET_S
        tree = parse(self.syntax, self.lines, self._tree, budget_s)
        self._rest_s = RESTS * budget_s if tree is None else 0.0
        if tree is not None or at_leisure:
            # Not the same text once more, if it had all the time there is.
            self._tree, self._tree_is_current = tree, True

    def _line_and_column(self, position: Position) -> tuple[int, int]:
        """Line and character column of a position, moved to the nearest place that exists."""
        if position.line < 0:
            return 0, 0
        if position.line >= len(self.lines):
            return len(self.lines) - 1, len(self.lines[-1])
        text = self.lines[position.line]
        column = _column_of_utf16(text, max(position.character, 0))
        return position.line, min(column, _content_length(text))

    def _replace_all(self, text: str) -> Edit:
        """Replace the whole text, as an edit of only what differs.

        Edges, tree and the place of typing survive in clients that send the whole text each time.
        """
        old = self.text
        start = _common_prefix_length(old, text)
        # A \r is never split from what follows: whether \n does decides what it is.
        if start and old[start - 1] == "\r":
            start -= 1
        n_common = _common_suffix_length(old, text, min(len(old), len(text)) - start)
        old_end = len(old) - n_common
        start_line, end_line = self.line_of(start), self.line_of(old_end)
        return self._replace(
            start_line,
            start - self.line_start(start_line),
            end_line,
            old_end - self.line_start(end_line),
            text[start : len(text) - n_common],
        )

    def _replace(self, first: int, start: int, last: int, end: int, text: str) -> Edit:
        """Replace what lies from column `start` of line `first` to column `end` of line `last`."""
        start_offset = self.line_start(first) + start
        edit = Edit(
            start=start_offset,
            old_end=self.line_start(last) + end,
            new_end=start_offset + len(text),
        )
        tail = self.lines[last][end:]
        changed = self.lines[first][:start] + text + tail
        if changed.startswith("\n") and first > 0 and self.lines[first - 1].endswith("\r"):
            # The lone \r that ended the line above and this \n become one line end.
            first -= 1
            start = len(self.lines[first]) - 1
            changed = self.lines[first] + changed
        new_lines = _split(changed)
        if last < len(self.lines) - 1:
            # The changed text ends with a line end, and so with an empty line that is not there.
            assert not new_lines[-1], "only the last line has no end"
            new_lines.pop()
        if self._tree is not None:
            new_end = len(changed) - len(tail)
            self._edit_tree(first, start, last, end, changed[start:new_end], new_lines)

        old_lines = self.lines[first : last + 1]
        self._n_long_lines += _count_long(new_lines) - _count_long(old_lines)
        self.lines[first : last + 1] = new_lines
        self.n_chars += edit.new_end - edit.old_end
        del self._starts[first + 1 :]
        del self._starts_bytes[first + 1 :]
        self._text = None
        self._tree_is_current = False
        self._edited_s = self._clock()
        self._edits.append(edit)
        self.revision += 1
        return edit

    def _edit_tree(
        self, first: int, start: int, last: int, end: int, inserted: str, new_lines: list[str]
    ) -> None:
        """Tell the tree of an edit; called while `self.lines` still hold the old text."""
        assert self._tree is not None, "there is a tree to edit"
        start_column = _utf8_length(self.lines[first][:start])
        end_column = _utf8_length(self.lines[last][:end])
        start_byte = self._line_start_bytes(first) + start_column
        row, new_end = 0, start + len(inserted)
        while row + 1 < len(new_lines) and new_end >= len(new_lines[row]):
            new_end -= len(new_lines[row])
            row += 1
        new_column = _utf8_length(new_lines[row][:new_end])
        self._tree.edit(
            start_byte=start_byte,
            old_end_byte=self._line_start_bytes(last) + end_column,
            new_end_byte=start_byte + _utf8_length(inserted),
            start_point=(first, start_column),
            old_end_point=(last, end_column),
            new_end_point=(first + row, new_column),
        )

    def _line_start_bytes(self, line: int) -> int:
        starts = self._starts_bytes
        if line >= len(starts):
            lengths = map(_utf8_length, islice(self.lines, len(starts) - 1, line))
            starts.extend(islice(accumulate(lengths, initial=starts[-1]), 1, None))
        return starts[line]


class Documents:
    """The documents that the client has open, by URI."""

    def __init__(self) -> None:
        self._by_uri: dict[str, Document] = {}

    def open(
        self, uri: str, language_id: str, version: int | None, text: str, path: str = ""
    ) -> Document:
        document = Document(uri, language_id, version, text, path)
        self._by_uri[uri] = document
        return document

    def change(self, uri: str, version: int | None, changes: Iterable[Change]) -> Document | None:
        """Apply changes in order; None, once logged, for a document that is not open."""
        document = self._by_uri.get(uri)
        if document is None:
            logger.warning("change of a document that is not open: %s", uri)
            return None
        for change in changes:
            document.apply(change)
        document.version = version
        return document

    def close(self, uri: str) -> Document | None:
        return self._by_uri.pop(uri, None)

    def get(self, uri: str) -> Document | None:
        return self._by_uri.get(uri)

    def __iter__(self) -> Iterator[Document]:
        return iter(self._by_uri.values())


def _well_formed(text: str) -> str:
    """The text with U+FFFD for each surrogate: those in pairs were decoded with the JSON."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def _split(text: str) -> list[str]:
    """Lines with their ends, and the rest after the last line end, which may be empty."""
    if "\r" not in text:
        *lines, rest = text.split("\n")
        return [*(line + "\n" for line in lines), rest]
    ends = [match.end() for match in _LINE_END.finditer(text)]
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]


def _content_length(line: str) -> int:
    if line.endswith("\r\n"):
        return len(line) - 2
    return len(line) - 1 if line.endswith(("\n", "\r")) else len(line)


def _count_long(lines: list[str]) -> int:
    return sum(len(line) > MAX_PARSE_LINE_CHARS for line in lines)


def _utf8_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8"))


def _utf16_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


def _column_of_utf16(text: str, n_units: int) -> int:
    """Characters in the first `n_units` UTF-16 units; half a character counts as none of it."""
    if text.isascii():
        return min(n_units, len(text))
    head = text[:n_units].encode("utf-16-le")[: 2 * n_units]
    return len(head.decode("utf-16-le", "ignore"))


def _common_prefix_length(a: str, b: str) -> int:
    """Found by halving, so that the characters are compared in C."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _common_suffix_length(a: str, b: str, limit: int) -> int:
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        if a[len(a) - middle : len(a) - low] == b[len(b) - middle : len(b) - low]:
            low = middle
        else:
            high = middle - 1
    return low
