"""A file in an editor: text, cursor, and what a person can do to them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

MAX_UNDO = 50
PAIRS = {"(": ")", "[": "]", "{": "}", '"': '"', "'": "'"}
INDENT = "    "


@dataclass
class EditedFile:
    """Text and a cursor in it, as an offset. Edits move the cursor as editors do."""

    text: str
    cursor: int
    _before: list[tuple[str, int]] = field(default_factory=list)
    _jumps: list[int] = field(default_factory=list)

    @property
    def prefix(self) -> str:
        """Give the text before the cursor."""
        return self.text[: self.cursor]

    @property
    def suffix(self) -> str:
        """Give the text after the cursor."""
        return self.text[self.cursor :]

    def insert(self, text: str) -> None:
        """Type or paste."""
        self._become(self.prefix + text + self.suffix, self.cursor + len(text))

    def insert_pair(self, opener: str) -> None:
        """Type an opening bracket or a quote; the editor puts the other one behind the cursor."""
        pair = opener + PAIRS[opener]
        self._become(self.prefix + pair + self.suffix, self.cursor + 1)

    def overtype(self) -> bool:
        """Type the closer that stands after the cursor already; False where there is none."""
        if not self.suffix or self.suffix[0] not in PAIRS.values():
            return False
        self._become(self.text, self.cursor + 1)
        return True

    def enter(self) -> None:
        """Break the line; between brackets the closer moves to an indented line of its own."""
        line = self.prefix.rpartition("\n")[2]
        indent = line[: len(line) - len(line.lstrip(" \t"))]
        opener, closer = self.prefix[-1:], self.suffix[:1]
        if opener in ("(", "[", "{") and closer == PAIRS[opener]:
            before = self.prefix + "\n" + indent + INDENT
            self._become(before + "\n" + indent + self.suffix, len(before))
        else:
            self.insert("\n" + indent)

    def delete(self, n_chars: int) -> None:
        """Take characters away before the cursor."""
        kept = self.prefix[: max(0, self.cursor - n_chars)]
        self._become(kept + self.suffix, len(kept))

    def delete_after(self, n_chars: int) -> None:
        """Take characters away after the cursor."""
        self._become(self.prefix + self.suffix[n_chars:], self.cursor)

    def delete_word(self) -> None:
        """Take the word before the cursor away, or else what stands between it and the cursor."""
        kept = re.sub(r"(\w+|[^\w\s]+)?[ \t]*\Z|\s+\Z", "", self.prefix, count=1)
        if kept == self.prefix:
            kept = kept[:-1]
        self._become(kept + self.suffix, len(kept))

    def replace(self, start: int, end: int, text: str) -> None:
        """Change another place than the cursor's, which stays where it is in its text.

        ValueError when the cursor stands inside.
        """
        if start < self.cursor < end:
            raise ValueError(f"the cursor at {self.cursor} is inside {start} to {end}")
        moved = len(text) - (end - start) if end <= self.cursor else 0
        self._become(self.text[:start] + text + self.text[end:], self.cursor + moved)

    def jump(self, cursor: int) -> None:
        """Move the cursor, and remember from where."""
        self._jumps = [*self._jumps, self.cursor][-MAX_UNDO:]
        self.cursor = cursor

    def jump_back(self) -> bool:
        """Go where the last jump came from, as far as the text still goes; False without one."""
        if not self._jumps:
            return False
        self.cursor = min(self._jumps.pop(), len(self.text))
        return True

    def undo(self) -> bool:
        """Take back the last change, cursor included; False when nothing is left to take back."""
        if not self._before:
            return False
        self.text, self.cursor = self._before.pop()
        return True

    def _become(self, text: str, cursor: int) -> None:
        self._before = [*self._before, (self.text, self.cursor)][-MAX_UNDO:]
        self.text, self.cursor = text, cursor
