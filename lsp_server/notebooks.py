"""Notebooks: the code cells of one language as one document, so that a cell knows the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lsprotocol import types

from lsp_server.documents import Change, Document, Position, with_unix_newlines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lsp_server.documents import Documents

NOTEBOOK_SYNC = types.NotebookDocumentSyncOptions(
    notebook_selector=[types.NotebookDocumentFilterWithNotebook(notebook="*")]
)
# Between cells: the end of the one's last line, and an empty line.
SEPARATOR = "\n\n"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell's place among others: its text's address, and whether it holds code."""

    uri: str
    is_code: bool


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a cell stands in its language's document."""

    document: Document
    first_line: int
    """The document's line that is the cell's first."""
    cell: Document

    def position(self, position: Position) -> Position:
        """The document's position for one of the cell's, which is moved back to the cell's end."""
        line, character = self.cell.position_at(self.cell.offset_at(position))
        return Position(self.first_line + line, character)


class Notebook:
    """One notebook: its cells in order, each with a text of its own, and a text a language.

    The joined documents lie among the open ones, as `NOTEBOOK#LANGUAGE`; their line ends are \\n.
    """

    def __init__(self, uri: str, path: str, documents: Documents) -> None:
        self.uri = uri
        self.path = path
        self.cells: list[Cell] = []
        self.texts: dict[str, Document] = {}
        """Cells' texts by their URI."""
        self._documents = documents

    def joined_uri(self, language_id: str) -> str:
        return f"{self.uri}#{language_id}"

    @property
    def languages(self) -> list[str]:
        """The languages of the code cells."""
        return list(dict.fromkeys(text.language_id for text in self._code()))

    def place(self, cell_uri: str) -> Place | None:
        """Where a code cell stands; None for any other."""
        cell = self.texts.get(cell_uri)
        if cell is None:
            return None
        document = self._documents.get(self.joined_uri(cell.language_id))
        first_line = 0
        for text in self._code():
            if text is cell and document is not None:
                return Place(document=document, first_line=first_line, cell=cell)
            if text.language_id == cell.language_id:
                first_line += len(text.lines) + 1
        return None

    def join(self, version: int | None) -> tuple[list[Document], list[str]]:
        """Bring the joined documents in line with the cells.

        Gives those changed, and the URIs of those that no cell is part of any more.
        """
        changed = []
        languages = self.languages
        for language in languages:
            texts = [
                with_unix_newlines(text.text)
                for text in self._code()
                if text.language_id == language
            ]
            text, uri = SEPARATOR.join(texts), self.joined_uri(language)
            document = self._documents.get(uri)
            if document is None:
                document = self._documents.open(uri, language, version, text, self.path)
            elif document.text != text:
                # An edit of what differs alone: what was read of the rest stays good.
                document.apply(Change(text=text))
            else:
                continue
            document.version = version
            changed.append(document)
        known = {self.joined_uri(language) for language in languages}
        mine = [document.uri for document in self._documents if self._is_mine(document)]
        return changed, [uri for uri in mine if uri not in known]

    def _code(self) -> Iterator[Document]:
        for cell in self.cells:
            if cell.is_code and cell.uri in self.texts:
                yield self.texts[cell.uri]

    def _is_mine(self, document: Document) -> bool:
        return document.uri == self.joined_uri(document.language_id)


class Notebooks:
    """The notebooks that the client has open."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._by_uri: dict[str, Notebook] = {}

    def open(self, uri: str, path: str) -> Notebook:
        """A new notebook; one that is open already gives its cells up."""
        notebook = self._by_uri[uri] = Notebook(uri, path, self._documents)
        return notebook

    def get(self, uri: str) -> Notebook | None:
        return self._by_uri.get(uri)

    def close(self, uri: str) -> Notebook | None:
        return self._by_uri.pop(uri, None)

    def __iter__(self) -> Iterator[Notebook]:
        return iter(self._by_uri.values())

    def place(self, cell_uri: str) -> Place | None:
        """Where a cell stands, in whichever notebook."""
        for notebook in self._by_uri.values():
            if cell_uri in notebook.texts:
                return notebook.place(cell_uri)
        return None
