"""Definitions in other files by their names, and those of them that a cursor needs."""

from __future__ import annotations

import re
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from lsp_server.context import header_of
from lsp_server.definitions import definitions_in, line_of_row

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from lsp_server.documents import Document

MAX_SNIPPET_CHARS, MAX_SNIPPET_FILES, MAX_PER_FILE = 400, 3, 4
# Lines above the cursor whose names are looked up.
NEAR_LINES = 20
# A name defined more often says nothing about which of them is meant.
MAX_MEANINGS = 3
MIN_NAME_CHARS = 3

# What is kept: files, definitions of one file, characters of one definition and of all.
MAX_FILES = 64
MAX_DEFINITIONS = 1000
MAX_DEFINITION_CHARS = 240
MAX_KEPT_CHARS = 1_000_000
# Files that are never looked into, and how much is read anew at one time: 5 MB a second.
MAX_FILE_CHARS = 200_000
MAX_READ_CHARS = 100_000

_USE = re.compile(r"(\.|->|::)?\s*\b([^\W\d]\w*)")
# Languages whose definitions are used from one another.
_FAMILIES = {
    "javascriptreact": "javascript",
    "typescript": "javascript",
    "typescriptreact": "javascript",
    "cpp": "c",
}

Lines = tuple[tuple[int, str], ...]
"""Rows and their lines."""


@dataclass(frozen=True, kw_only=True)
class _Meaning:
    """What a name stands for in one file: its header lines, below those of what it belongs to."""

    lines: Lines
    is_member: bool


@dataclass(frozen=True, kw_only=True)
class _File:
    uri: str
    # Not to keep the text of one that was closed.
    document: weakref.ref[Document]
    revision: int
    title: str
    family: str
    meanings: dict[str, _Meaning]
    n_chars: int


class WorkspaceIndex:
    """Definitions of the files it was shown, bounded in files, definitions and bytes."""

    def __init__(self) -> None:
        # The most recently used last.
        self._files: OrderedDict[str, _File] = OrderedDict()

    def __len__(self) -> int:
        return len(self._files)

    @property
    def n_chars(self) -> int:
        """Characters kept."""
        return sum(file.n_chars for file in self._files.values())

    def clear(self) -> None:
        """Forget all files: other ones may be read from now on."""
        self._files.clear()

    def update(self, documents: Iterable[Document]) -> None:
        """Look into files that have changed; the first ones are worth most and go last.

        Costs a walk through the trees of at most 100,000 characters, or of one file: what does not
        fit has to wait for the next time.
        """
        documents = list(islice(documents, MAX_FILES))
        n_read = 0
        for document in documents:
            known = self._files.get(document.uri)
            is_same = known is not None and known.document() is document
            if known is not None and is_same and known.revision == document.revision:
                continue
            if document.n_chars > MAX_FILE_CHARS:
                self.drop(document.uri)
                continue
            if n_read and n_read + document.n_chars > MAX_READ_CHARS:
                break
            if document.tree is None:
                # It goes by lines, perhaps for a moment: what is known of it is the best there is.
                if not is_same:
                    self.drop(document.uri)
                continue
            n_read += document.n_chars
            self._files[document.uri] = _read(document)
        for document in reversed(documents):
            if document.uri in self._files:
                self._files.move_to_end(document.uri)
        n_chars = self.n_chars
        while len(self._files) > MAX_FILES or n_chars > MAX_KEPT_CHARS:
            n_chars -= self._files.popitem(last=False)[1].n_chars

    def drop(self, uri: str) -> None:
        """Know nothing of a file any more."""
        self._files.pop(uri, None)

    def snippets(self, document: Document, prefix: str, defined: Collection[str]) -> str:
        """Definitions in other files of the names used near a cursor, each below its file's path.

        `prefix` ends at the cursor; names in `defined` need none. The most specific first: names
        with one meaning, then those used nearest. At most 3 files and 400 characters.
        """
        family = family_of(document.language_id)
        others = [
            file
            for uri, file in reversed(self._files.items())
            if uri != document.uri and file.family == family
        ]
        ranked: list[tuple[int, int, list[tuple[_File, Lines]]]] = []
        for name, (last_use, is_qualified) in _uses(prefix).items():
            if name in defined or len(name) < MIN_NAME_CHARS or name.startswith("__"):
                continue
            meanings = [
                (file, meaning.lines)
                for file in others
                if (meaning := file.meanings.get(name)) is not None
                and (is_qualified or not meaning.is_member)
            ]
            if 0 < len(meanings) <= MAX_MEANINGS:
                ranked.append((len(meanings), -last_use, meanings))
        ranked.sort(key=lambda item: item[:2])
        return _fitting([pair for *_, pairs in ranked for pair in pairs])


def _read(document: Document) -> _File:
    """Look into a file; what its functions define for themselves is left out."""
    meanings: dict[str, _Meaning] = {}
    n_chars = 0
    tree, syntax, lines = document.tree, document.syntax, document.lines
    if tree is not None and syntax is not None:
        for definition in definitions_in(tree, syntax, lines, 0, len(lines)):
            owners = [parent for parent in definition.parents if not parent.is_namespace]
            rows = {row for part in (*owners, definition) for row in part.header_rows}
            # Names count once: the first of overloads, the definition before its redefinitions.
            if not definition.name or definition.name in meanings:
                continue
            size = sum(len(lines[row]) for row in rows)
            if size > MAX_DEFINITION_CHARS:
                continue
            if len(meanings) == MAX_DEFINITIONS:
                break
            meanings[definition.name] = _Meaning(
                lines=tuple((row, line_of_row(lines, row)) for row in sorted(rows)),
                is_member=bool(owners),
            )
            n_chars += size
    return _File(
        uri=document.uri,
        document=weakref.ref(document),
        revision=document.revision,
        title=header_of(document),
        family=family_of(document.language_id),
        meanings=meanings,
        n_chars=n_chars,
    )


def _uses(prefix: str) -> dict[str, tuple[int, bool]]:
    """The names in a text's last lines: where last, and whether ever as something's member."""
    start = len(prefix)
    for _ in range(NEAR_LINES):
        start = prefix.rfind("\n", 0, start)
        if start < 0:
            break
    uses: dict[str, tuple[int, bool]] = {}
    for match in _USE.finditer(prefix, start + 1):
        is_member = uses.get(match[2], (0, False))[1] or match[1] is not None
        uses[match[2]] = (match.start(), is_member)
    return uses


def _fitting(found: list[tuple[_File, Lines]]) -> str:
    """As many of these as there is room for, those of one file together in the file's order."""
    chosen: dict[str, tuple[_File, dict[int, str], int]] = {}
    left = MAX_SNIPPET_CHARS
    for file, lines in found:
        known = chosen.get(file.uri)
        if known is None:
            if len(chosen) == MAX_SNIPPET_FILES:
                continue
            known = (file, {}, 0)
        _, rows, n_taken = known
        new = {row: line for row, line in lines if row not in rows}
        size = sum(map(len, new.values())) + (0 if n_taken else len(file.title))
        if size > left or n_taken == MAX_PER_FILE:
            continue
        left -= size
        chosen[file.uri] = (file, rows | new, n_taken + 1)
    return "".join(
        file.title + "".join(rows[row] for row in sorted(rows)) for file, rows, _ in chosen.values()
    )


def family_of(language_id: str) -> str:
    """The language that stands for all whose definitions are used from one another."""
    return _FAMILIES.get(language_id, language_id)
