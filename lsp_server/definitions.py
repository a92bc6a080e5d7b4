"""Definitions in a parse tree: their names, and the lines that tell how they are used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tree_sitter import Node, Tree, TreeCursor

    from lsp_server.syntax import Syntax

# Nodes within nodes that are walked into; code that people write stays far below.
MAX_DEPTH = 64

# What may stand in front of a definition's own first line without being a node of its own.
_IN_FRONT = frozenset({"decorator", "comment", "attribute_item", "line_comment", "block_comment"})
# Parts of the names of node kinds.
_CALLABLE = ("function", "method_d", "constructor", "lambda", "closure")
_NAMESPACES = frozenset({"namespace_definition", "mod_item", "internal_module", "module"})
# Name fields are found this many nodes down: typedefs, pointers, specs within declarations.
_MAX_NAME_DEPTH = 5


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A class, function or the like; rows are the document's lines, the last ones included."""

    name: str
    """Empty where it has none of its own, such as an `impl` block."""
    first_row: int
    header_end_row: int
    """Where the signature ends: with a colon or an opening brace, if there is one."""
    last_row: int
    is_namespace: bool
    parents: tuple[Definition, ...]
    """What it is a member of, outermost first."""

    @property
    def header_rows(self) -> range:
        return range(self.first_row, self.header_end_row + 1)


def definitions_in(
    tree: Tree,
    syntax: Syntax,
    lines: Sequence[str],
    first: int,
    last: int,
    across: int | None = None,
) -> list[Definition]:
    """Definitions that reach into the rows `first` to `last`, in the order of the file.

    What functions define for themselves is seen by nobody else: they are looked into only where
    they reach across the row `across`.
    """
    walk = _Walk(syntax, lines, first, last, across)
    walk.children(tree.walk(), (), parent_kind=None, depth=0)
    return walk.found


def line_of_row(lines: Sequence[str], row: int) -> str:
    """A line as it stands, with the line end of prompts."""
    return lines[row].rstrip("\r\n") + "\n"


class _Walk:
    """What a walk through a tree looks for, and what it found."""

    def __init__(
        self, syntax: Syntax, lines: Sequence[str], first: int, last: int, across: int | None
    ) -> None:
        self.syntax, self.lines = syntax, lines
        self.first, self.last, self.across = first, last, across
        self.found: list[Definition] = []

    def children(
        self,
        cursor: TreeCursor,
        parents: tuple[Definition, ...],
        parent_kind: str | None,
        depth: int,
    ) -> None:
        """Look at all children of the cursor's node; leaves the cursor there. No kind: the root."""
        if depth > MAX_DEPTH or not cursor.goto_first_child():
            return
        syntax = self.syntax
        while True:
            node = cursor.node
            assert node is not None, "a cursor always stands on a node"
            start, end, kind = node.start_point.row, last_row_of(node), node.type
            if start > self.last:
                break
            if end >= self.first:
                within = parents
                if (kind in syntax.definitions and parent_kind not in syntax.wrappers) or (
                    kind in syntax.top_level_definitions and parent_kind is None
                ):
                    definition = self._definition(node, parents)
                    self.found.append(definition)
                    within = (*parents, definition)
                if end > start and self._looks_into(kind, start, end):
                    self.children(cursor, within, kind, depth + 1)
            if not cursor.goto_next_sibling():
                break
        cursor.goto_parent()

    def _looks_into(self, kind: str, start: int, end: int) -> bool:
        if not any(part in kind for part in _CALLABLE):
            return True
        return self.across is not None and start < self.across <= end

    def _definition(self, node: Node, parents: tuple[Definition, ...]) -> Definition:
        inner = self._unwrapped(node)
        first_row = _own_first_row(node)
        body = inner.child_by_field_name("body")
        end_row = first_row if body is None else max(first_row, _row_before(body, self.syntax))
        return Definition(
            # A typedef's name is its own, not that of the struct inside it.
            name=self._name_of(node if node.child_by_field_name("declarator") else inner),
            first_row=first_row,
            header_end_row=end_row,
            last_row=last_row_of(node),
            is_namespace=inner.type in _NAMESPACES,
            parents=parents,
        )

    def _unwrapped(self, node: Node) -> Node:
        """The definition that a decorated, exported or templated one is about."""
        kinds = self.syntax.definitions | self.syntax.top_level_definitions
        while node.type in self.syntax.wrappers:
            inner = next((child for child in node.named_children if child.type in kinds), None)
            if inner is None:
                break
            node = inner
        return node

    def _name_of(self, node: Node) -> str:
        if node.type == "impl_item":
            return ""
        at: Node | None = node
        for _ in range(_MAX_NAME_DEPTH):
            if at is None:
                break
            name = at.child_by_field_name("name")
            if name is None and not at.child_count:
                name = at
            if name is not None:
                text = self._text_of(name)
                return text if text.isidentifier() else ""
            declarator = at.child_by_field_name("declarator")
            at = declarator or next(iter(at.named_children), None)
        return ""

    def _text_of(self, node: Node) -> str:
        """A node's text; none where it runs over lines. A tree read line by line holds no text."""
        (row, start), (end_row, end) = node.start_point, node.end_point
        if row != end_row:
            return ""
        return self.lines[row].encode("utf-8")[start:end].decode("utf-8", "replace")


def last_row_of(node: Node) -> int:
    """The last row with something of the node on it: some nodes take their line end in."""
    (start, _), (end, column) = node.start_point, node.end_point
    return end - 1 if end > start and column == 0 else end


def _own_first_row(node: Node) -> int:
    """The row on which a definition's own words start, below its decorators."""
    while True:
        first = next((child for child in node.children if child.type not in _IN_FRONT), None)
        if first is None:
            return node.start_point.row
        if not first.is_named or not first.child_count:
            return first.start_point.row
        node = first


def _row_before(body: Node, syntax: Syntax) -> int:
    """The row on which what opens a body stands: its own brace, or the colon before it."""
    if body.child_count and body.children[0].type == "{":
        return body.start_point.row
    before = body.prev_sibling
    while before is not None and before.type in syntax.comments:
        before = before.prev_sibling
    return body.start_point.row if before is None else before.end_point.row
