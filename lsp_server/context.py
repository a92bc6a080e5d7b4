"""What the model sees of a document: windows around the cursor whose far edges stay put.

A window's text is part of the model's cached state, so an edge that moves costs a new prefill.
Edges are chosen purely from (text, cursor, limits), carried over edits, and kept while they serve.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lsp_server.indentation import columns
from lsp_server.syntax import definition_lines, line_comment_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tree_sitter import Node, Tree

    from lsp_server.documents import Document

# Editors insert brackets and quotes after the cursor: so many characters of them fit into a
# suffix window without moving its edge.
SUFFIX_ROOM_CHARS = 64
# How far back the bracket that is open at the cursor is looked for.
BRACKET_LOOKBACK_CHARS = 4000
# How many blank and comment lines may stand between a block's opener and the cursor.
MAX_LINES_TO_OPENER = 40
# Where there is no tree, the part of a line that is looked at for what ends it.
LINE_END_CHARS = 400

_LINE_BREAKS = re.compile(r"[\r\n]+")
_BRACKET = re.compile(r"[()\[\]{}]")
_CLOSER = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True, kw_only=True)
class WindowLimits:
    """Largest windows in characters; None takes all the text there is on that side."""

    prefix_max_chars: int | None = 3000
    suffix_max_chars: int | None = 900

    def __post_init__(self) -> None:
        for name in ("prefix_max_chars", "suffix_max_chars"):
            value = getattr(self, name)
            if value is not None and value < 16:
                raise ValueError(f"{name} is {value}, expected at least 16")


@dataclass(frozen=True, kw_only=True)
class Window:
    """The text around a cursor: `prefix` ends where `suffix` starts."""

    prefix_start: int
    suffix_end: int
    prefix: str
    suffix: str
    header: str
    """What stands before `prefix` in prompts; as frozen as the left edge."""
    cursor: int
    revision: int
    """The document's revision for which the three offsets hold."""


def nearest_window(
    document: Document, offset: int, limits: WindowLimits, windows: Sequence[Window]
) -> Window | None:
    """Give the window taken nearest to a cursor whose two edges still serve there.

    So that a jump back finds the edges, and with them the states, that it left.
    """
    serving = []
    for window in windows:
        cursor, left, right = (
            document.carry(at, window.revision)
            for at in (window.cursor, window.prefix_start, window.suffix_end)
        )
        if (
            left is not None
            and right is not None
            and _left_edge_serves(left, offset, limits.prefix_max_chars)
            and _right_edge_serves(document, right, offset, limits.suffix_max_chars)
        ):
            distance = document.n_chars if cursor is None else abs(cursor - offset)
            serving.append((distance, window))
    return min(serving, key=lambda pair: pair[0])[1] if serving else None


def is_nearly_full(window: Window, limits: WindowLimits) -> bool:
    """Whether the prefix window will have to move soon if typing goes on."""
    full = limits.prefix_max_chars
    return full is not None and len(window.prefix) > _nearly(full)


def _nearly(max_chars: int) -> int:
    return max_chars * 7 // 8


def window_at(
    document: Document,
    offset: int,
    limits: WindowLimits,
    previous: Window | None = None,
    make_header: Callable[[Document, int, str, str], str] | None = None,
) -> Window:
    """Cut the windows at a cursor, keeping the edges of `previous` where they still serve.

    `make_header` (document, left edge, prefix, suffix) is called where the left edge is chosen
    anew, else the header is that of `previous`. Left out, it is the file's path alone. Costs what
    the window and the edits since `previous` cost, whatever the document's length.
    """
    header = None
    left = right = None
    if previous is not None:
        left = document.carry(previous.prefix_start, previous.revision)
        right = document.carry(previous.suffix_end, previous.revision)
    if left is None or not _left_edge_serves(left, offset, limits.prefix_max_chars):
        left = _left_edge(document, offset, limits.prefix_max_chars)
    elif previous is not None:
        header = previous.header
    if right is None or not _right_edge_serves(document, right, offset, limits.suffix_max_chars):
        right = _right_edge(document, offset, limits.suffix_max_chars)
    prefix, suffix = document.slice(left, offset), document.slice(offset, right)
    if header is None and make_header is not None:
        header = make_header(document, left, prefix, suffix)
    return Window(
        prefix_start=left,
        suffix_end=right,
        prefix=prefix,
        suffix=suffix,
        header=header_of(document) if header is None else header,
        cursor=offset,
        revision=document.revision,
    )


def header_of(document: Document) -> str:
    """The file's path as a comment line."""
    path = _LINE_BREAKS.sub(" ", document.path)
    return f"{line_comment_of(document.language_id)} {path}\n"


def _left_edge_serves(edge: int, offset: int, max_chars: int | None) -> bool:
    if max_chars is None:
        return edge == 0
    # A cursor that jumped to just below the edge would be left without context.
    shortest = 0 if edge == 0 else max_chars // 8
    return shortest <= offset - edge <= max_chars


def _left_edge(document: Document, offset: int, max_chars: int | None) -> int:
    """About half a window above the cursor: a definition, else a line start, else a character."""
    # A window that would have to move soon is cut where it will be cut then.
    if max_chars is None or offset <= _nearly(max_chars):
        return 0
    target, earliest, latest = (offset - max_chars * n // 4 for n in (2, 3, 1))
    definitions = _definition_starts(document, earliest, latest)
    if definitions:
        return min(definitions, key=lambda start: abs(start - target))
    line = document.line_of(target)
    if line + 1 < len(document.lines) and document.line_start(line + 1) <= latest:
        return document.line_start(line + 1)
    start = document.line_start(line)
    return start if start >= earliest else _character_edge(document, target)


def _right_edge_serves(document: Document, edge: int, offset: int, max_chars: int | None) -> bool:
    if max_chars is None:
        return edge == document.n_chars
    shortest = 0 if edge == document.n_chars else max_chars // 4
    return shortest <= edge - offset <= max_chars


def _right_edge(document: Document, offset: int, max_chars: int | None) -> int:
    """The last definition in the window's second half, else its last line start or character."""
    if max_chars is None:
        return document.n_chars
    latest = offset + max_chars - min(SUFFIX_ROOM_CHARS, max_chars // 4)
    if document.n_chars <= latest:
        return document.n_chars
    definitions = _definition_starts(document, (offset + latest) // 2, latest)
    if definitions:
        return definitions[-1]
    start = document.line_start(document.line_of(latest))
    return start if start >= offset + max_chars // 4 else _character_edge(document, latest)


def _definition_starts(document: Document, earliest: int, latest: int) -> list[int]:
    """Offsets within a range of the lines on which definitions start, ascending."""
    tree = document.tree
    if tree is None or document.syntax is None:
        return []
    first, last = document.line_of(earliest), document.line_of(latest)
    lines = definition_lines(tree, document.syntax, first, last)
    return [start for start in map(document.line_start, lines) if earliest <= start <= latest]


def _character_edge(document: Document, offset: int) -> int:
    """This offset, or the one before it where it would cut a \\r\\n in two."""
    return offset - (document.slice(offset - 1, offset + 1) == "\r\n")


def multiline_at(document: Document, offset: int) -> bool:
    """Whether a completion at this cursor may run over several lines.

    It may on a blank line that follows a block's opener or stands inside brackets, other than the
    braces of a block that has begun.
    """
    line = document.line_of(offset)
    column = offset - document.line_start(line)
    text = document.lines[line]
    if text[:column].strip() or text[column:].strip().strip(")]},;"):
        return False
    tree = document.tree
    if tree is not None and _inside_one_token(tree, document.point_at(offset)):
        return False
    last = _last_code(document, line)
    if last is not None and _is_token(document, last, ":{(["):
        return True
    opener = _open_bracket(document, offset)
    if opener is None:
        return False
    return document.slice(opener, opener + 1) != "{" or not _is_block_brace(document, opener)


def lacks_block(document: Document, offset: int) -> bool:
    """Whether a block that is opened at the end of the cursor's line is closed nowhere below.

    Goes by the line below: it is a block's if it stands further right, or closes one beside the
    cursor's line. Only in languages with braces, outside of comments.
    """
    syntax, tree = document.syntax, document.tree
    if syntax is None or tree is None or not syntax.blocks:
        return False
    line = document.line_of(offset)
    before = document.slice(document.line_start(line), offset)
    written = offset - 1 if before.strip() else offset
    if document.lines[line][len(before) :].strip() or _prose_at(document, written):
        return False
    below = document.lines[line + 1 : line + 1 + MAX_LINES_TO_OPENER]
    code = next(filter(str.strip, below), "")
    indent, column = columns(before), columns(code)
    return column < indent or (column == indent and not code.lstrip().startswith("}"))


def _inside_one_token(tree: Tree, point: tuple[int, int]) -> bool:
    """Whether a string or comment that spans lines goes on here."""
    leaf = tree.root_node.descendant_for_point_range(point, point)
    return leaf is not None and leaf.child_count == 0 and leaf.start_point < point < leaf.end_point


def _last_code(document: Document, line: int) -> int | None:
    """Offset of the last character above a line that is neither blank, comment nor docstring."""
    column = None
    for _ in range(MAX_LINES_TO_OPENER):
        if column is None:
            line -= 1
            if line < 0:
                return None
            column = len(document.lines[line])
        code = _before_comment(document, document.lines[line][:column])
        if not code:
            column = None
            continue
        last = document.line_start(line) + len(code) - 1
        prose = _prose_at(document, last)
        if prose is None:
            return last
        # On from where the comment starts, which may be several lines up.
        line, start_byte = prose.start_point
        encoded = document.lines[line].encode("utf-8")
        column = len(encoded[:start_byte].decode("utf-8"))
    return None


def _before_comment(document: Document, text: str) -> str:
    """A line's text up to its trailing blanks, or, where there is no tree, up to a comment."""
    text = text.rstrip()
    if document.tree is not None:
        return text
    comment = line_comment_of(document.language_id)
    if text.lstrip().startswith(comment):
        return ""
    start = text.find(f" {comment}", max(len(text) - LINE_END_CHARS, 0))
    return text if start < 0 else text[:start].rstrip()


def _prose_at(document: Document, offset: int) -> Node | None:
    """The comment or docstring that holds this character."""
    if document.tree is None or document.syntax is None:
        return None
    node = _leaf_at(document, document.tree, offset)
    # A docstring's quotes and text are inside a string inside a statement.
    for _ in range(3):
        if node is None or node.type in document.syntax.comments:
            return node
        if node.type in document.syntax.docstrings:
            parent = node.parent
            return node if parent is not None and parent.type == "expression_statement" else None
        node = node.parent
    return None


def _open_bracket(document: Document, offset: int) -> int | None:
    """Offset of the innermost bracket that is open at the cursor."""
    start = max(offset - BRACKET_LOOKBACK_CHARS, 0)
    text = document.slice(start, offset)
    closers: list[str] = []
    for match in reversed(list(_BRACKET.finditer(text))):
        bracket, at = match[0], start + match.start()
        if not _is_token(document, at, bracket):
            continue
        closer = _CLOSER.get(bracket)
        if closer is None:
            closers.append(bracket)
        elif closer in closers:
            del closers[len(closers) - 1 - closers[::-1].index(closer) :]
        elif "}" not in closers:
            return None if _dedents_after(document, at, text[match.start() :]) else at
        # Else it was left open inside a block that ends above the cursor.
    return None


def _dedents_after(document: Document, offset: int, text: str) -> bool:
    """Whether a line below a bracket stands left of the bracket's own line: it was abandoned."""
    indent = _indent_width(document.lines[document.line_of(offset)])
    below = _LINE_BREAKS.split(text)[1:]
    return any(line.strip() and _indent_width(line) < indent for line in below)


def _indent_width(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))


def _is_token(document: Document, offset: int, characters: str) -> bool:
    """Whether one of these characters stands here as code, not in a string or comment."""
    character = document.slice(offset, offset + 1)
    if character not in characters:
        return False
    if document.tree is None:
        return True
    leaf = _leaf_at(document, document.tree, offset)
    # An opener may be a part of its token: `${` in JavaScript, `[[` in C++.
    return leaf is not None and not leaf.is_named and character in leaf.type


def _is_block_brace(document: Document, offset: int) -> bool:
    """Whether this brace opens statements or members; taken so where the parse cannot tell."""
    if document.tree is None or document.syntax is None:
        return True
    leaf = _leaf_at(document, document.tree, offset)
    parent: Node | None = None if leaf is None else leaf.parent
    return parent is None or parent.is_error or parent.type in document.syntax.blocks


def _leaf_at(document: Document, tree: Tree, offset: int) -> Node | None:
    point = document.point_at(offset)
    return tree.root_node.descendant_for_point_range(point, point)
