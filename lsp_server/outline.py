"""What the model is told of a file above its window: imports and definitions.

Whole lines of the source, in its order, closed by a line of three dots.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lsp_server.definitions import definitions_in, last_row_of, line_of_row

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from tree_sitter import Tree

    from lsp_server.documents import Document
    from lsp_server.syntax import Syntax

MAX_OUTLINE_CHARS, MAX_IMPORT_CHARS = 600, 250
# Definitions that are looked at above the window.
REACH_CHARS = 20_000
OMITTED = "...\n"

# Conditions of the preprocessor, inside which a whole header file may stand.
_TRANSPARENT = frozenset({"preproc_ifdef", "preproc_if", "preproc_else"})
_WORD = re.compile(r"[^\W\d]\w{2,}")
# Words of import statements that name nothing of another file's.
_KEYWORDS = frozenset(
    {"import", "from", "use", "using", "include", "require", "const", "let", "var", "type", "self"}
)


def words_of(text: str) -> set[str]:
    """The identifiers of three characters or more in a text, keywords among them."""
    return set(_WORD.findall(text))


def outline(document: Document, edge: int, words: Collection[str]) -> str:
    """The outline of what stands above an offset; empty where there is no tree, or nothing to tell.

    `words` are those in the window: imports that name one come first where not all fit.
    """
    tree, syntax = document.tree, document.syntax
    if edge <= 0 or tree is None or syntax is None:
        return ""
    edge_row = document.line_of(edge)
    lines = document.lines
    chosen = _Rows(lines, MAX_IMPORT_CHARS)
    statements = list(_imports(tree, syntax, lines, edge_row))
    for rows in sorted(statements, key=lambda rows: not _names(lines, rows, words)):
        chosen.add(rows) or chosen.add(_cut(lines, rows, words))
    chosen.left += MAX_OUTLINE_CHARS - MAX_IMPORT_CHARS - len(OMITTED)

    first = document.line_of(max(edge - REACH_CHARS, 0))
    above = [
        definition
        for definition in definitions_in(tree, syntax, lines, first, edge_row, across=edge_row)
        if definition.first_row < edge_row
    ]
    for definition in above:
        if definition.last_row >= edge_row:
            chosen.add([row for row in definition.header_rows if row < edge_row])
    for definition in reversed(above):
        if definition.last_row < edge_row and not chosen.add(definition.header_rows):
            break
    return f"{chosen.text}{OMITTED}" if chosen.rows else ""


class _Rows:
    """Rows taken so far, and the room in characters that is left."""

    def __init__(self, lines: Sequence[str], left: int) -> None:
        self.lines, self.left = lines, left
        self.rows: set[int] = set()

    def add(self, rows: Iterable[int]) -> bool:
        """Take rows if all of them fit."""
        new = [row for row in rows if row not in self.rows]
        n_chars = sum(len(line_of_row(self.lines, row)) for row in new)
        if n_chars > self.left:
            return False
        self.rows.update(new)
        self.left -= n_chars
        return True

    @property
    def text(self) -> str:
        return "".join(line_of_row(self.lines, row) for row in sorted(self.rows))


def _imports(tree: Tree, syntax: Syntax, lines: Sequence[str], before: int) -> Iterator[range]:
    """The rows of each import statement at the top of the file above a row."""
    cursor = tree.walk()
    depth = 0
    going = cursor.goto_first_child()
    while going:
        node = cursor.node
        assert node is not None, "a cursor always stands on a node"
        row, end = node.start_point.row, last_row_of(node)
        if row >= before:
            return
        if end < before and _is_import(node.type, syntax, lines[row]):
            yield range(row, end + 1)
        if node.type in _TRANSPARENT and cursor.goto_first_child():
            depth += 1
            continue
        while not (going := cursor.goto_next_sibling()) and depth:
            cursor.goto_parent()
            depth -= 1


def _is_import(kind: str, syntax: Syntax, line: str) -> bool:
    if kind in syntax.imports:
        return True
    # How JavaScript imported before it had a statement for it.
    return kind in ("lexical_declaration", "variable_declaration") and "require(" in line


def _names(lines: Sequence[str], rows: Iterable[int], words: Collection[str]) -> bool:
    """Whether an import brings in one of these words."""
    return any(
        word in words and word not in _KEYWORDS
        for row in rows
        for word in _WORD.findall(lines[row])
    )


def _cut(lines: Sequence[str], rows: range, words: Collection[str]) -> list[int]:
    """An import over many lines: how it starts and ends, and between them what is used."""
    first, *between, last = rows if len(rows) > 1 else (rows[0], rows[0])
    used = [row for row in between if _names(lines, [row], words)]
    return [first, *used, last] if used else []
