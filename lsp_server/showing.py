"""Whether a continuation is shown at a cursor, and what of it: all between model text and item."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lsp_server.context import lacks_block
from lsp_server.documents import Document
from lsp_server.excerpt import excerpt_at
from lsp_server.indentation import indent_unit, is_indented
from lsp_server.syntax import SYNTAXES
from lsp_server.trimming import closing_lines, first_outer_closer, trim, wrong_closer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tree_sitter import Tree

# Text below the cursor that a suggestion is compared with.
TRIM_CHARS = 2000
# Lines on either side of the cursor that tell how a document indents.
INDENT_LINES = 200
# Where the lines near the cursor look worse, the whole is asked if it is no longer than this:
# what is broken may be what was left out. 3,000 lines take 25 ms.
MAX_WHOLE_LINES = 3000
# Shorter and shorter parts of a suggestion that are tried where the whole would not parse.
MAX_PARTS = 8


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Text to insert at the cursor, "" for none, and why there is none.

    hidden: "language" (the model does not know it), "confidence", "repeat" (it stands there
    already) or "syntax" (the document would parse worse); None where something is shown, or the
    model had nothing to say.
    """

    text: str = ""
    hidden: str | None = None


def shown(document: Document, offset: int, text: str) -> Shown:
    """Fit a model's continuation to a document: what of it can be inserted at an offset.

    Nothing doubled, indented as the document is, with its line ends, and with no more errors in
    the parse than there are without it. Costs what the text and the lines around the cursor cost,
    whatever the document's length.
    """
    line = document.line_of(offset)
    before = document.slice(document.line_start(line), offset)
    after = document.slice(offset, min(offset + TRIM_CHARS, document.n_chars))
    unit, above, is_python = None, "", document.language_id == "python"
    if "\n" in text or text[:1].isspace():
        start = max(line - INDENT_LINES, 0)
        unit = indent_unit(document.lines[start : line + INDENT_LINES])
        above = next(filter(str.strip, reversed(document.lines[start:line])), "")
    fitting = trim(
        before,
        text,
        after,
        document.newline,
        unit,
        is_indented=is_indented(before, above, unit, is_python=is_python),
        is_python=is_python and above.rstrip().endswith(":"),
    )
    if not fitting:
        return Shown(hidden="repeat" if text.strip() else None)
    part = _parsing_part(document, offset, before, fitting)
    return Shown(text=part) if part else Shown(hidden="syntax")


def is_confident(log_prob: float, min_confidence: float) -> bool:
    """Whether a suggestion of this log-probability may be shown to who did not ask for it."""
    return math.exp(min(log_prob, 0.0)) >= min_confidence


def n_errors(tree: Tree) -> int:
    """The nodes that tree-sitter made up or could not place; reads only where there are any."""
    n_found = 0
    cursor = tree.walk()
    while True:
        node = cursor.node
        assert node is not None, "a cursor always stands on a node"
        n_found += node.is_error or node.is_missing
        if node.has_error and cursor.goto_first_child():
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return n_found


def _parsing_part(document: Document, offset: int, before: str, text: str) -> str:
    """The longest part that leaves no more errors than there were; "" if there is none.

    A line that is being written has errors before and after: only more of them count.
    """
    excerpt, at = excerpt_at(document, offset)
    n_before = _n_errors_in(document, excerpt)
    if n_before is None:
        return text
    if n_before:
        # A parse that is broken already may have no more errors with it.
        wrong = wrong_closer(excerpt[:at], text)
        text = text if wrong is None else text[:wrong].rstrip()
    rest = excerpt[at:].partition("\n")[0]
    for part in _parts(before, text):
        for finished in _finished(document, offset, before, part, rest):
            n_after = _n_errors_in(document, excerpt[:at] + finished + excerpt[at:])
            if n_after is None or n_after <= n_before:
                return _without_early_end(document, excerpt, at, finished, n_after or 0)
    # In a text without errors nothing that was left out can be broken.
    if n_before == 0 or len(excerpt) == document.n_chars:
        return ""
    candidates = _finished(document, offset, before, text, rest)
    return next((one for one in candidates if _parses_as_well(document, offset, one)), "")


def _without_early_end(
    document: Document, excerpt: str, at: int, text: str, n_errors_with: int
) -> str:
    """A text without its semicolon where that leaves fewer errors; there it ends too early."""
    rest = excerpt[at:].partition("\n")[0]
    if not n_errors_with or not text.endswith(";") or not rest.strip():
        return text
    going_on = text[:-1]
    n_without = _n_errors_in(document, excerpt[:at] + going_on + excerpt[at:]) or 0
    return going_on if n_without < n_errors_with else text


def _parses_as_well(document: Document, offset: int, text: str) -> bool:
    """Whether a whole document has no more errors with a text inserted; no for a long one."""
    if document.tree is None or len(document.lines) > MAX_WHOLE_LINES:
        return False
    whole, n_before = document.text, n_errors(document.tree)
    n_after = _n_errors_in(document, whole[:offset] + text + whole[offset:])
    return n_after is not None and n_after <= n_before


def _finished(document: Document, offset: int, before: str, text: str, rest: str) -> Iterator[str]:
    """A text, and where it leaves a block open that it opens, the text with the block's end.

    The more likely one first. No block is written between a brace and the rest of its line.
    """
    syntax = SYNTAXES.get(document.language_id)
    has_blocks = syntax is not None and syntax.blocks and not rest.strip()
    closing = closing_lines(before, text) if has_blocks else []
    if not closing:
        yield text
        return
    closed = document.newline.join([text.rstrip(), *closing])
    yield from (closed, text) if lacks_block(document, offset) else (text, closed)


def _n_errors_in(document: Document, text: str) -> int | None:
    """None where there is no parser for it."""
    tree = Document("", document.language_id, None, text).tree
    return None if tree is None else n_errors(tree)


def _parts(before: str, text: str) -> Iterator[str]:
    """The whole text, it up to where it first closes what was open before, then fewer lines."""
    parts = [text]
    closer = first_outer_closer(before, text)
    if closer is not None:
        parts.append(text[:closer])
    lines = text.splitlines(keepends=True)
    parts += ("".join(lines[:n]) for n in range(len(lines) - 1, 0, -1))
    bare = dict.fromkeys([text, *(part.rstrip() for part in parts[1:])])
    yield from [part for part in bare if part.strip()][:MAX_PARTS]
