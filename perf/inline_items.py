"""What any server's answer to `textDocument/inlineCompletion` would put behind the cursor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lsp_server.documents import Position
from perf.json_objects import checked, field

if TYPE_CHECKING:
    from lsp_server.documents import Document


def first_text(result: Any, document: Document, cursor: Position) -> str:
    """The first item's text behind the cursor; "" for none, or one that changes what is before it.

    Of an item that replaces text up to the cursor, what it adds. Raises ValueError for what is
    neither null, nor a list of items, nor an object with one, and for what is no item.
    """
    items = result.get("items", []) if isinstance(result, dict) else result or []
    if not isinstance(items, list):
        raise ValueError(f"the answer is a {type(result).__name__}, expected a list of items")
    if not items:
        return ""
    item = checked(items[0], dict, "an item")
    if isinstance(item.get("insertText"), dict):
        # A StringValue.
        text = field(item["insertText"], "value", str)
    else:
        text = field(item, "insertText", str)
    if item.get("range") is not None:
        at = field(field(item, "range", dict), "start", dict)
        start = Position(field(at, "line", int), field(at, "character", int))
        replaced = document.slice(document.offset_at(start), document.offset_at(cursor))
        if not text.startswith(replaced):
            return ""
        text = text[len(replaced) :]
    return text


def is_first_line(text: str, next_: str, document: Document, cursor: Position) -> bool:
    """Whether the first line of a suggestion is that of what the user typed there.

    What an editor closed by itself stands behind the cursor already; nobody needs to suggest it.
    """
    line, typed = text.partition("\n")[0], next_.partition("\n")[0]
    if not text or not typed.startswith(line):
        return False
    offset = document.offset_at(cursor)
    rest = document.slice(offset, offset + len(typed))
    return rest.startswith(typed[len(line) :])
