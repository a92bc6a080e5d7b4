"""What somebody does in a long document, keystroke by keystroke, each of a named kind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lsp_server.documents import Change, Document, Position

if TYPE_CHECKING:
    from engine.tokenizer import Tokenizer

ROOT = Path(__file__).parents[2]
SOURCES = ("engine", "lsp_server")
PATH, LANGUAGE_ID = "project/module.py", "python"
# Where the cursor stands, a round after the other, and where it goes for a moment: shares of the
# document. None is visited twice.
CURSORS, NEW_PLACES = (0.9, 0.8, 0.85, 0.95, 0.75), (0.3, 0.5, 0.7, 0.4, 0.6)
BEHIND = (300, 600)
TYPED = (
    "    for position, entry in enumerate(entries):\n"
    "        if entry.amount is not None:\n"
    "            total += entry.amount * position\n"
    "        yield position, total\n"
)
COLD, APPEND, DELETE_ONE, DELETE_40 = "cold", "append", "delete one", "delete 40"
UNDO_DELETION, UNDO_EDIT, JUMP_BACK = "undo a deletion", "undo an edit", "jump back, type"
NEW_PLACE = "new place"
BEHIND_KINDS = tuple(f"edit {n} tokens behind" for n in BEHIND)
KINDS = (
    APPEND,
    DELETE_ONE,
    DELETE_40,
    UNDO_DELETION,
    *BEHIND_KINDS,
    UNDO_EDIT,
    JUMP_BACK,
    NEW_PLACE,
)


@dataclass(frozen=True, kw_only=True)
class Step:
    """A change, where the cursor then is, and what kind of keystroke that is.

    Nobody asks for anything at a step without a kind.
    """

    kind: str | None
    changes: tuple[Change, ...]
    cursor: Position


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A document of about so many tokens, and the steps from when it is opened."""

    n_tokens: int
    text: str
    steps: tuple[Step, ...]

    def open(self) -> Document:
        return Document(f"file:///{PATH}", LANGUAGE_ID, 0, self.text, path=PATH)


def make_scenario(tokenizer: Tokenizer, n_tokens: int, n_rounds: int) -> Scenario:
    """Edit a document of this project's own code, made of so many tokens.

    A round goes to a new line, deletes from what stands in front of it, undoes, types, takes back,
    changes something further up, goes elsewhere, and comes back. ValueError for a document longer
    than there is code, or for more rounds than there are places.
    """
    if not 1 <= n_rounds <= len(CURSORS):
        raise ValueError(f"n_rounds is {n_rounds}, expected 1 to {len(CURSORS)}")
    text = source_text(tokenizer, n_tokens)
    writer = _Writer(text, tokenizer)
    for cursor, new_place in zip(CURSORS[:n_rounds], NEW_PLACES, strict=False):
        writer.go(cursor)
        writer.note(COLD)
        _round(writer, new_place)
    return Scenario(n_tokens=n_tokens, text=text, steps=tuple(writer.steps))


def typing_scenario(tokenizer: Tokenizer, n_tokens: int, n_typed: int) -> Scenario:
    """Type so many characters at one place, taking back two and typing them again now and then."""
    text = source_text(tokenizer, n_tokens)
    writer = _Writer(text, tokenizer)
    writer.go(CURSORS[0])
    writer.note(COLD)
    for number in range(n_typed):
        writer.type(1)
        if number % 20 == 19:
            writer.delete(2)
            writer.untype(2)
            writer.type(2)
    return Scenario(n_tokens=n_tokens, text=text, steps=tuple(writer.steps))


def source_text(tokenizer: Tokenizer, n_tokens: int) -> str:
    """Give the start of this project's own code, whole lines of about so many tokens."""
    files = (
        p for folder in ("engine", "lsp_server") for p in sorted((ROOT / folder).rglob("*.py"))
    )
    lines: list[str] = []
    n_left = n_tokens
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
            n_left -= len(tokenizer.encode_part(line))
            if n_left < 0:
                return "".join(lines)
            lines.append(line)
    raise ValueError(f"{n_tokens} tokens is more than there is of this project's code")


def _round(writer: _Writer, new_place: float) -> None:
    # Of text that was there before: nobody has been asked within it.
    writer.delete(40, DELETE_40)
    writer.undo(UNDO_DELETION)
    for _ in range(2):
        writer.type(12)
        for _ in range(4):
            writer.delete(1, DELETE_ONE)
        writer.untype(4)
        writer.type(4)
    for distance, kind in zip(BEHIND, BEHIND_KINDS, strict=True):
        if writer.change_behind(distance, kind):
            writer.undo(UNDO_EDIT)
            writer.type(1)
    home = writer.offset
    writer.go(new_place)
    writer.insert("x", NEW_PLACE)
    # Taken back unasked: what is measured next is the way home.
    writer.delete(1)
    writer.offset = home
    writer.type(1, JUMP_BACK)
    writer.type(2)


class _Writer:
    """A cursor in a document, and the steps it has gone."""

    def __init__(self, text: str, tokenizer: Tokenizer) -> None:
        self._document = Document("file:///" + PATH, LANGUAGE_ID, 0, text, path=PATH)
        self._tokenizer = tokenizer
        self.offset = 0
        self.steps: list[Step] = []
        self._n_typed = 0
        self._undo: tuple[int, int, str, int] = (0, 0, "", 0)

    def go(self, share: float) -> None:
        """Put the cursor at the start of the line at a share of the document."""
        text = self._document.text
        self.offset = text.rfind("\n", 0, int(share * len(text))) + 1

    def note(self, kind: str | None, *changes: Change) -> None:
        cursor = self._document.position_at(self.offset)
        self.steps.append(Step(kind=kind, changes=changes, cursor=cursor))

    def type(self, n_chars: int, kind: str = APPEND) -> None:
        for _ in range(n_chars):
            self.insert(TYPED[self._n_typed % len(TYPED)], kind)
            self._n_typed += 1

    def untype(self, n_chars: int) -> None:
        """Have the last characters typed again next."""
        self._n_typed -= n_chars

    def insert(self, text: str, kind: str) -> None:
        self._replace(self.offset, self.offset, text, self.offset + len(text), kind)

    def delete(self, n_chars: int, kind: str | None = None) -> None:
        start = self.offset - n_chars
        self._replace(start, self.offset, "", start, kind)

    def change_behind(self, n_tokens: int, kind: str) -> bool:
        """Put a character in front of the line so many tokens up; False where there is none."""
        prefix = self._document.slice(0, self.offset)
        ids = self._tokenizer.encode(prefix)
        if len(ids) <= n_tokens:
            return False
        at = len(self._tokenizer.decode(ids[:-n_tokens]))
        at = prefix.rfind("\n", 0, at) + 1
        self._replace(at, at, "x", self.offset + 1, kind)
        return True

    def undo(self, kind: str) -> None:
        """Take the last change back, and put the cursor where it was."""
        start, end, text, cursor = self._undo
        self._replace(start, end, text, cursor, kind)

    def _replace(self, start: int, end: int, text: str, cursor: int, kind: str | None) -> None:
        document = self._document
        self._undo = (start, start + len(text), document.slice(start, end), self.offset)
        change = Change(text=text, range=(document.position_at(start), document.position_at(end)))
        document.apply(change)
        self.offset = cursor
        self.note(kind, change)
