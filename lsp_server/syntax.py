"""Languages and their parse trees: parsers loaded on first use, node kinds as data."""

from __future__ import annotations

import importlib
import logging
import re
import threading
import time
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from tree_sitter import Language, Parser, Point, Tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tree_sitter import Node, TreeCursor

logger = logging.getLogger(__name__)

# Lines encoded for the parser at a time: an edit inside a line reads a handful of such runs.
LINES_PER_READ = 64
# Processor time of one parse, for text on which error recovery runs away; 1 MB of Python takes
# 0.2 s.
PARSE_BUDGET_S = 1.0

_LONE_CR = re.compile(r"\r(?!\n)")


@dataclass(frozen=True, kw_only=True)
class Syntax:
    """What the rest of the server knows of one language; kinds are tree-sitter node kinds."""

    package: str
    factory: str = "language"
    line_comment: str = "//"
    definitions: frozenset[str]
    """Nodes whose first line is a good place to cut a window."""
    top_level_definitions: frozenset[str] = frozenset()
    """Nodes that count as definitions only at the top of the file."""
    wrappers: frozenset[str] = frozenset()
    """Definitions that hold another definition: a decorated one, an exported one, a template."""
    leading: frozenset[str] = frozenset({"comment"})
    """Nodes that belong to the definition that starts on the line below them."""
    comments: frozenset[str] = frozenset({"comment"})
    blocks: frozenset[str] = frozenset()
    """Nodes that hold statements or members between braces, not values."""
    docstrings: frozenset[str] = frozenset()
    """Nodes that are documentation when they are a whole statement."""
    imports: frozenset[str] = frozenset()
    """Statements that name what of other files is used."""


def _kinds(names: str) -> frozenset[str]:
    return frozenset(names.split())


PYTHON = Syntax(
    package="tree_sitter_python",
    line_comment="#",
    definitions=_kinds("function_definition class_definition decorated_definition"),
    wrappers=_kinds("decorated_definition"),
    docstrings=_kinds("string"),
    imports=_kinds("import_statement import_from_statement future_import_statement"),
)
JAVASCRIPT = Syntax(
    package="tree_sitter_javascript",
    definitions=_kinds(
        "function_declaration generator_function_declaration class_declaration method_definition"
        " export_statement"
    ),
    top_level_definitions=_kinds("lexical_declaration variable_declaration"),
    wrappers=_kinds("export_statement"),
    leading=_kinds("comment decorator"),
    blocks=_kinds("statement_block class_body class_static_block switch_body"),
    imports=_kinds("import_statement"),
)
TYPESCRIPT = Syntax(
    package="tree_sitter_typescript",
    factory="language_typescript",
    definitions=JAVASCRIPT.definitions
    | _kinds(
        "abstract_class_declaration interface_declaration type_alias_declaration enum_declaration"
        " ambient_declaration internal_module module"
    ),
    top_level_definitions=JAVASCRIPT.top_level_definitions,
    wrappers=_kinds("export_statement ambient_declaration"),
    leading=JAVASCRIPT.leading,
    blocks=JAVASCRIPT.blocks | _kinds("interface_body enum_body"),
    imports=_kinds("import_statement import_alias"),
)
TSX = Syntax(
    package="tree_sitter_typescript",
    factory="language_tsx",
    definitions=TYPESCRIPT.definitions,
    top_level_definitions=TYPESCRIPT.top_level_definitions,
    wrappers=TYPESCRIPT.wrappers,
    leading=TYPESCRIPT.leading,
    blocks=TYPESCRIPT.blocks,
    imports=TYPESCRIPT.imports,
)
GO = Syntax(
    package="tree_sitter_go",
    definitions=_kinds("function_declaration method_declaration type_declaration"),
    top_level_definitions=_kinds("const_declaration var_declaration"),
    blocks=_kinds(
        "block field_declaration_list interface_type expression_switch_statement"
        " type_switch_statement select_statement"
    ),
    imports=_kinds("import_declaration"),
)
RUST = Syntax(
    package="tree_sitter_rust",
    definitions=_kinds(
        "function_item impl_item trait_item struct_item enum_item union_item mod_item"
        " macro_definition type_item"
    ),
    top_level_definitions=_kinds("const_item static_item"),
    leading=_kinds("line_comment block_comment attribute_item"),
    comments=_kinds("line_comment block_comment"),
    blocks=_kinds(
        "block declaration_list field_declaration_list enum_variant_list match_block"
        " ordered_field_declaration_list"
    ),
    imports=_kinds("use_declaration extern_crate_declaration"),
)
JAVA = Syntax(
    package="tree_sitter_java",
    definitions=_kinds(
        "class_declaration interface_declaration enum_declaration record_declaration"
        " annotation_type_declaration method_declaration constructor_declaration"
        " compact_constructor_declaration"
    ),
    leading=_kinds("line_comment block_comment"),
    comments=_kinds("line_comment block_comment"),
    blocks=_kinds(
        "block class_body enum_body interface_body annotation_type_body constructor_body"
        " switch_block module_body"
    ),
    imports=_kinds("import_declaration"),
)
C = Syntax(
    package="tree_sitter_c",
    definitions=_kinds(
        "function_definition type_definition struct_specifier union_specifier enum_specifier"
        " preproc_function_def"
    ),
    wrappers=_kinds("type_definition"),
    blocks=_kinds("compound_statement declaration_list field_declaration_list enumerator_list"),
    imports=_kinds("preproc_include"),
)
CPP = Syntax(
    package="tree_sitter_cpp",
    definitions=C.definitions
    | _kinds(
        "class_specifier namespace_definition template_declaration concept_definition"
        " alias_declaration"
    ),
    wrappers=_kinds("type_definition template_declaration"),
    blocks=C.blocks,
    imports=_kinds("preproc_include using_declaration"),
)

# Keys are LSP's language identifiers.
SYNTAXES = {
    "python": PYTHON,
    "javascript": JAVASCRIPT,
    "javascriptreact": JAVASCRIPT,
    "typescript": TYPESCRIPT,
    "typescriptreact": TSX,
    "go": GO,
    "rust": RUST,
    "java": JAVA,
    "c": C,
    "cpp": CPP,
}

_LANGUAGE_IDS = {
    "python": "py pyi pyw",
    "javascript": "js mjs cjs",
    "javascriptreact": "jsx",
    "typescript": "ts mts cts",
    "typescriptreact": "tsx",
    "go": "go",
    "rust": "rs",
    "java": "java",
    "c": "c h",
    "cpp": "cc cpp cxx c++ hh hpp hxx h++ inl ipp",
}
_LANGUAGE_ID_BY_EXTENSION = {
    extension: language_id
    for language_id, extensions in _LANGUAGE_IDS.items()
    for extension in extensions.split()
}


def language_id_of(path: str) -> str:
    """The language identifier that an editor would send for this file; "plaintext" if unknown."""
    extension = PurePosixPath(path.replace("\\", "/")).suffix.removeprefix(".")
    return _LANGUAGE_ID_BY_EXTENSION.get(extension.lower(), "plaintext")


def line_comment_of(language_id: str) -> str:
    """What starts a comment line in this language; "#" where the language is unknown."""
    syntax = SYNTAXES.get(language_id)
    return syntax.line_comment if syntax else "#"


def parse(
    syntax: Syntax,
    lines: Sequence[str],
    old_tree: Tree | None = None,
    budget_s: float = PARSE_BUDGET_S,
) -> Tree | None:
    """Parse a document's lines, each with its line end, reusing what `old_tree` still knows.

    `old_tree` must have been told of every edit since it was parsed (`Tree.edit`). None when the
    grammar is missing or the parse ran over its budget of processor time; the caller then goes by
    lines.
    """
    language = _language(syntax.package, syntax.factory)
    if language is None:
        return None
    deadline = time.thread_time() + budget_s

    def read(_byte: int, point: Point) -> bytearray:
        run = "".join(lines[point.row : point.row + LINES_PER_READ])
        _room.run[:] = parser_text(run)[point.column :]
        return _room.run

    def out_of_time(_byte: int, _has_error: bool) -> bool:
        return time.thread_time() > deadline

    parser = Parser(language)
    try:
        if old_tree is None:
            return parser.parse(read, progress_callback=out_of_time)
        return parser.parse(read, old_tree, progress_callback=out_of_time)
    except ValueError:
        logger.info(
            "%s: a parse of %d lines took over %g s, going by lines",
            syntax.package,
            len(lines),
            budget_s,
        )
        return None


class _Room(threading.local):
    """Where the parser finds the lines it asked for; they are good until it asks again."""

    def __init__(self) -> None:
        # One object for all lines: the parser's Python binding (0.25.0 to 0.26.1) never lets go of
        # what it is given here, which was 90 kB a keystroke in a file of 230 kB.
        self.run = bytearray()


_room = _Room()


def parser_text(text: str) -> bytes:
    """The bytes that the parser sees for this text.

    A lone carriage return becomes a newline of the same length: it ends a line for LSP but not
    for tree-sitter, and so tree-sitter's rows are LSP's lines.
    """
    if "\r" in text:
        text = _LONE_CR.sub("\n", text)
    return text.encode("utf-8")


def definition_lines(tree: Tree, syntax: Syntax, first: int, last: int) -> list[int]:
    """Lines from `first` to `last` on which a definition starts, ascending.

    Comments and attributes directly above a definition belong to it. Walks only nodes that reach
    into the range, and into them only where they span lines.
    """
    found: set[int] = set()
    cursor = tree.walk()
    if not _enter(cursor, first):
        return []
    levels = [_Siblings(parent_is_root=True)]
    while True:
        node = _node(cursor)
        start, end = node.start_point.row, node.end_point.row
        leading = levels[-1].leading
        # A comment in the range may belong to a definition just below it.
        in_reach = start <= last or (leading is not None and leading[0] <= last)
        if in_reach:
            row = _definition_row(node, syntax, levels[-1])
            if row is not None and first <= row <= last:
                found.add(row)
            spans_lines = start <= last and end > start and end >= first
            if spans_lines and _enter(cursor, first):
                levels.append(_Siblings(parent_is_wrapper=node.type in syntax.wrappers))
                continue
        while not in_reach or not cursor.goto_next_sibling():
            levels.pop()
            if not levels:
                return sorted(found)
            cursor.goto_parent()
            in_reach = True


def _enter(cursor: TreeCursor, row: int) -> bool:
    """Move to the first child that reaches into a row or below, or to one shortly before it.

    tree-sitter finds no child from between two nodes where a hidden node, such as Go's line ends,
    stands there; hence the tries from further up.
    """
    step = 1
    while row > 0:
        if cursor.goto_first_child_for_point(Point(row, 0)) is not None:
            return True
        row -= step
        step *= 2
    return cursor.goto_first_child()


@dataclass(kw_only=True)
class _Siblings:
    """Where a walk stands among the children of one node."""

    parent_is_root: bool = False
    parent_is_wrapper: bool = False
    leading: tuple[int, int] | None = None
    """First and last row of the comments and attributes just passed."""
    end_row: int = -1
    """Row on which the last sibling ended."""


def _definition_row(node: Node, syntax: Syntax, siblings: _Siblings) -> int | None:
    """The first line of this definition with what leads it; None if it is none."""
    kind, start, end = node.type, node.start_point.row, node.end_point.row
    # The node of a whole line, such as Rust's doc comments, ends in column 0 of the next.
    if end > start and node.end_point.column == 0:
        end -= 1
    starts_its_line = siblings.end_row < start
    leading, siblings.leading, siblings.end_row = siblings.leading, None, end
    if leading is not None and leading[1] + 1 < start:
        leading = None
    if kind in syntax.leading:
        if starts_its_line or leading:
            siblings.leading = (leading[0] if leading else start, end)
        return None
    is_definition = (kind in syntax.definitions and not siblings.parent_is_wrapper) or (
        kind in syntax.top_level_definitions and siblings.parent_is_root
    )
    if not is_definition:
        return None
    return leading[0] if leading else start


def _node(cursor: TreeCursor) -> Node:
    node = cursor.node
    assert node is not None, "a cursor always stands on a node"
    return node


@cache
def _language(package: str, factory: str) -> Language | None:
    """The grammar, or None, once logged, where it is not installed or not loadable."""
    try:
        return Language(getattr(importlib.import_module(package), factory)())
    except (ImportError, ValueError) as error:
        logger.warning("no parser from %s, completing by lines: %s", package, error)
        return None
