"""Kinds of cursors, and what stands at one: told from the parse of the whole file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tree_sitter import Node

    from lsp_server.documents import Document

# Kinds whose truth is the rest of the cursor's line come first; a cursor is of the first that fits.
LINE_KINDS = (
    "comment",
    "docstring",
    "after-indentation",
    "mid-word",
    "after-dot",
    "in-call",
    "end-of-line",
)
KINDS = (*LINE_KINDS, "mid-line", "empty-body")
# A longer body or statement is nothing that a suggestion is expected to be.
MAX_TRUTH_LINES = 12

# Node kinds that all grammars here share for what stands between a call's parentheses.
_ARGUMENTS = frozenset({"argument_list", "arguments"})
_STATEMENT_LISTS = frozenset({"block", "statement_list"})
_BODY_FIELDS = ("body", "consequence", "alternative")

_MEMBER_DOTS = frozenset({".", "?."})

Cut = tuple[int, int, str, bool]
"""Start and end of the text taken out, the cursor's kind, whether it goes past the line's end."""


def kind_at(document: Document, offset: int) -> str:
    """The kind of a cursor if the rest of its line were taken out: one of `LINE_KINDS`."""
    prose = _prose_at(document, offset)
    if prose:
        return prose
    line = document.line_of(offset)
    column = offset - document.line_start(line)
    before, after = document.lines[line][:column], document.lines[line][column:]
    if not before.strip():
        return "after-indentation"
    if _is_word(before[-1:]) and _is_word(after[:1]):
        return "mid-word"
    if before.endswith(".") and _is_word(after[:1]) and _is_member_dot(document, offset - 1):
        return "after-dot"
    return "in-call" if _is_in_call(document, offset) else "end-of-line"


def line_cut(document: Document, offset: int) -> Cut | None:
    """Take out the rest of the cursor's line; None where nothing but blanks stands there."""
    line = document.line_of(offset)
    end = document.line_start(line) + len(document.lines[line].rstrip("\r\n"))
    if not document.slice(offset, end).strip():
        return None
    return offset, end, kind_at(document, offset), False


def cut(document: Document, offset: int, kind: str) -> Cut | None:
    """What to take out for a case of this kind at a cursor or close by; None if it is no such.

    Raises ValueError for an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
    if kind == "empty-body":
        return _body_at(document, offset)
    if kind == "mid-line":
        return _expression_at(document, offset)
    if kind == "after-indentation":
        line = document.line_of(offset)
        text = document.lines[line]
        offset = document.line_start(line) + len(text) - len(text.lstrip())
    found = line_cut(document, offset)
    if found is None or found[2] != kind:
        return None
    if kind == "after-indentation":
        end = _statement_end(document, offset)
        if end is not None:
            return offset, end, kind, True
    return found


def _prose_at(document: Document, offset: int) -> str:
    """Whether a cursor stands inside a "comment" or a "docstring"; "" if in neither."""
    node, syntax = _around(document, offset), document.syntax
    while node is not None and syntax is not None:
        if node.type in syntax.comments:
            return "comment"
        if node.type in syntax.docstrings:
            parent = node.parent
            return "docstring" if parent and parent.type == "expression_statement" else ""
        node = node.parent
    return ""


def _is_member_dot(document: Document, offset: int) -> bool:
    """Whether the dot here is code of its own, not a part of a string or number."""
    node = _at(document, offset)
    return node is not None and not node.is_named and node.type in _MEMBER_DOTS


def _is_in_call(document: Document, offset: int) -> bool:
    node, syntax = _around(document, offset), document.syntax
    while node is not None and syntax is not None:
        parent = node.parent
        if node.type in _ARGUMENTS:
            # Base classes are written like arguments.
            return parent is not None and parent.type != "class_definition"
        if _holds_statements(document, node) or node.type in syntax.definitions:
            return False
        node = parent
    return False


def _expression_at(document: Document, offset: int) -> Cut | None:
    """From a cursor to the end of the largest expression with something behind it on the line."""
    line = document.line_of(offset)
    column = offset - document.line_start(line)
    content = document.lines[line].rstrip()
    if not content[:column].strip() or not content[column:].strip() or _prose_at(document, offset):
        return None
    end = None
    node = _at(document, offset)
    while node is not None and node.end_point.row == line:
        node_end = _offset_of(document, node.end_point)
        behind = content[node_end - document.line_start(line) :].strip()
        if node.is_named and behind and node_end > offset:
            end = node_end
        node = node.parent
    if end is None or not document.slice(offset, end).strip():
        return None
    return offset, end, "mid-line", False


def _body_at(document: Document, offset: int) -> Cut | None:
    """The innermost body around a cursor that has lines of its own, as if it were yet to write."""
    node = _at(document, offset)
    while node is not None:
        parent = node.parent
        fields = () if parent is None else map(parent.child_by_field_name, _BODY_FIELDS)
        if node in fields:
            body = _lines_of_body(document, node)
            if body is not None:
                return (*body, "empty-body", True)
        node = parent
    return None


def _lines_of_body(document: Document, node: Node) -> tuple[int, int] | None:
    """Start and end of a body's statements without its braces and docstring."""
    syntax = document.syntax
    children = [child for child in node.named_children if child is not None]
    if syntax is None or not children:
        return None
    first = children[0]
    inner = first.named_children[0] if first.type == "expression_statement" else first
    if inner is not None and inner.type in syntax.docstrings:
        children = children[1:]
    if not children:
        return None
    start = _offset_of(document, children[0].start_point)
    end = _offset_of(document, children[-1].end_point)
    # What ends with its line, as Rust's comments do, ends in the next one.
    end = start + len(document.slice(start, end).rstrip())
    # A separator behind the last statement belongs to it.
    end += document.slice(end, end + 1) == ";"
    line = document.line_of(start)
    last = document.line_of(end)
    stands_alone = (
        not document.slice(document.line_start(line), start).strip()
        and not document.lines[last][end - document.line_start(last) :].strip()
    )
    return (start, end) if stands_alone and last - line < MAX_TRUTH_LINES else None


def _statement_end(document: Document, offset: int) -> int | None:
    """Where a statement without a body ends that starts here and takes several lines."""
    node = _at(document, offset)
    start = document.point_at(offset)
    largest = None
    # Not up to what holds several statements, the first of which may start here.
    while node is not None and node.parent is not None and node.start_point == start:
        if _holds_statements(document, node):
            break
        largest, node = node, node.parent
    if largest is None or largest.is_error or _has_body(document, largest):
        return None
    n_lines = largest.end_point.row - largest.start_point.row + 1
    if not 1 < n_lines <= MAX_TRUTH_LINES:
        return None
    end = _offset_of(document, largest.end_point)
    end = offset + len(document.slice(offset, end).rstrip())
    return end + (document.slice(end, end + 1) == ";")


def _has_body(document: Document, node: Node) -> bool:
    children = [child for child in node.named_children if child is not None]
    return any(_holds_statements(document, each) or _has_body(document, each) for each in children)


def _holds_statements(document: Document, node: Node) -> bool:
    assert document.syntax is not None, "what has a tree has a syntax"
    return node.type in _STATEMENT_LISTS or node.type in document.syntax.blocks


def _around(document: Document, offset: int) -> Node | None:
    """The smallest node that holds both the character before a cursor and the one after it."""
    if document.tree is None:
        return None
    first = document.point_at(max(offset - 1, 0))
    return document.tree.root_node.descendant_for_point_range(first, document.point_at(offset + 1))


def _at(document: Document, offset: int) -> Node | None:
    """The smallest node that holds the character after a cursor."""
    if document.tree is None:
        return None
    first, last = document.point_at(offset), document.point_at(offset + 1)
    return document.tree.root_node.descendant_for_point_range(first, last)


def _offset_of(document: Document, point: tuple[int, int]) -> int:
    row, column = point
    if row >= len(document.lines):
        return document.n_chars
    before = document.lines[row].encode("utf-8")[:column]
    return document.line_start(row) + len(before.decode("utf-8"))


def _is_word(char: str) -> bool:
    return char.isalnum() or char == "_"
