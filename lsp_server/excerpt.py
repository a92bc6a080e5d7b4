"""The code around a cursor, as a short text that parses as the whole does.

tree-sitter takes 1 ms to parse a hundred lines, and 10 ms to parse 10,000 again after an edit.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from tree_sitter import Point

from lsp_server.indentation import leading_blanks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tree_sitter import Node, TreeCursor

    from lsp_server.documents import Document

# Lines kept on either side of the cursor; more where a statement is longer.
NEAR_LINES = 60
# Past so many, a text that has nothing to leave out is cut by lines.
MAX_LINES = 600
# Nodes of whole lines between a first and a last one, besides the language's own blocks.
_BODIES = frozenset(
    {
        *("block", "statement_list", "preproc_ifdef", "preproc_if"),
        *("dictionary", "list", "tuple", "set", "object", "array", "literal_value"),
        *("array_expression", "initializer_list", "array_initializer"),
    }
)


def excerpt_at(document: Document, offset: int) -> tuple[str, int]:
    """The text near an offset, and where the offset is in it.

    Left out are whole statements and members far from the cursor. What encloses the cursor keeps
    its beginning and its end, so that a text without errors stays one.
    """
    row = document.line_of(offset)
    tree, syntax = document.tree, document.syntax
    far: list[tuple[int, int]] = []
    if tree is not None and syntax is not None:
        far = sorted(_far_rows(tree.root_node, row, syntax.blocks | _BODIES))
    n_lines = len(document.lines)
    if n_lines - sum(last - first for first, last in far) > MAX_LINES:
        far = _rows_by_indentation(document.lines, row)
    kept: list[str] = []
    at = offset
    start = 0
    for first, last in (*far, (n_lines, n_lines)):
        kept += document.lines[start:first]
        if last <= row:
            at -= document.line_start(last) - document.line_start(first)
        start = last
    return "".join(kept), at


def _far_rows(root: Node, row: int, bodies: frozenset[str]) -> Iterator[tuple[int, int]]:
    """Runs of rows without the last, of the statements that are far from a row."""
    above, below = max(row - NEAR_LINES, 0), row + NEAR_LINES
    # Not by recursion: a sum over a thousand lines is a thousand nodes deep.
    long_nodes = [root]
    while long_nodes:
        node = long_nodes.pop()
        # A node's parent and siblings are looked for from the root; what a cursor passed is known.
        children = node.walk()
        near = _enter(children, above)
        if node.type in bodies or node == root:
            first, end = _rows_inside(node)
            start = min(near.start_point.row if near is not None else end, row)
            if first < start:
                yield first, start
            far = _enter(node.walk(), below)
            stop = max(far.end_point.row if far is not None else end, row) + 1
            if stop < end:
                yield stop, end
        while near is not None and near.start_point.row <= below:
            # What reaches in from afar, or beyond, is kept where it is near.
            if near.end_point.row - near.start_point.row > NEAR_LINES:
                long_nodes.append(near)
            near = children.node if children.goto_next_sibling() else None


def _rows_by_indentation(lines: Sequence[str], row: int) -> list[tuple[int, int]]:
    """The same for a text whose tree is one long list, or broken: all that does not enclose."""
    near = [row]
    for rows in (range(row - 1, -1, -1), range(row + 1, len(lines))):
        least = len(lines[row])
        for at in rows:
            is_near = abs(at - row) <= NEAR_LINES
            line = lines[at]
            if is_near or (line[:least].strip() and line.strip()):
                near.append(at)
                if line.strip():
                    least = min(least, len(leading_blanks(line)))
            if least == 0 and not is_near:
                break
    near.sort()
    runs = [(first + 1, last) for first, last in pairwise([-1, *near, len(lines)])]
    return [(first, last) for first, last in runs if first < last]


def _rows_inside(body: Node) -> tuple[int, int]:
    """The rows of what stands in a body, without those of its braces; the last is excluded."""
    opening = body.child(0) if body.child_count else None
    closing = body.child(body.child_count - 1) if body.child_count else None
    if opening is None or closing is None:
        return body.end_point.row, body.end_point.row
    first = opening.start_point.row + (not opening.is_named)
    return first, closing.end_point.row + 1 if closing.is_named else closing.start_point.row


def _enter(cursor: TreeCursor, row: int) -> Node | None:
    """Move to the first child that reaches to a row or starts below it, and give it."""
    node = cursor.node
    assert node is not None, "a cursor always stands on a node"
    if row <= node.start_point.row:
        return cursor.node if cursor.goto_first_child() else None
    return cursor.node if cursor.goto_first_child_for_point(Point(row, 0)) is not None else None
