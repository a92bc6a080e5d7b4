"""What of the code around a window goes into its prompt, and what may be copied from."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from lsp_server.context import header_of
from lsp_server.definitions import definitions_in
from lsp_server.ignored_files import IgnoredFiles
from lsp_server.outline import outline, words_of
from lsp_server.workspace_index import WorkspaceIndex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lsp_server.context import Window
    from lsp_server.documents import Document

# Text to copy from, nearest to the window or to a file's last edit.
MAX_ABOVE_CHARS, MAX_BELOW_CHARS = 24_000, 12_000
MAX_OTHER_CHARS, MAX_OTHERS_CHARS = 12_000, 24_000
# Documents whose order of use is remembered, and the first of them, which are read.
MAX_RECENT = 256
MAX_OTHERS = 64


@dataclass(frozen=True, kw_only=True)
class ContextSources:
    """Which sources are used beside the windows and the file's path."""

    outline: bool = True
    """Imports and definitions above the prefix window."""
    snippets: bool = True
    """Definitions in other files."""
    copying: bool = True
    """Text outside the windows that answers may copy from."""


class UnopenedFiles(Protocol):
    """Files that are not open, for who looks for text to copy from."""

    def passages(self, document: Document, before: str, after: str = "") -> tuple[str, ...]:
        """What stands in them around places like a document's cursor, the likest first."""


class Surroundings:
    """The documents around the one that is being completed. For one event loop.

    Of other documents nothing is read whose name says that it holds secrets, or that git ignores.
    """

    def __init__(
        self, sources: ContextSources, is_ignored: Callable[[str], bool] | None = None
    ) -> None:
        self._sources = sources
        self.documents: Iterable[Document] = ()
        """Those that are open; looked through anew each time."""
        self.files: UnopenedFiles | None = None
        """Files that are not open; None where there are to be none."""
        self.index = WorkspaceIndex()
        self._ignored = IgnoredFiles()
        self._is_ignored = is_ignored or self._ignored.is_ignored
        # Documents by their last use, the newest last.
        self._recent: OrderedDict[str, None] = OrderedDict()
        # By document: for which text, and what of it may be copied.
        self._parts: dict[str, tuple[Document, int, str]] = {}

    def touch(self, document: Document) -> None:
        """Note that the user works here."""
        self._recent[document.uri] = None
        self._recent.move_to_end(document.uri)
        while len(self._recent) > MAX_RECENT:
            self._recent.popitem(last=False)

    def forget(self, uri: str) -> None:
        """Take note that a document was closed; the definitions of one worked on stay known."""
        if uri in self._recent:
            del self._recent[uri]
        else:
            self.index.drop(uri)
        self._parts.pop(uri, None)
        self._ignored.forget(uri)

    def close(self) -> None:
        self._ignored.close()

    def header(self, document: Document, left: int, prefix: str, suffix: str) -> str:
        """What stands before a prefix window that starts at `left`, in a prompt.

        At most 1,000 characters beside the file's path: definitions in other files, the path, and
        the outline of the file above the window. Looks into other files that have changed; not
        for every keystroke.
        """
        snippets = above = ""
        if self._sources.snippets:
            self.index.update(self._others(document))
            snippets = self.index.snippets(document, prefix, _defined(document, left, prefix))
        if self._sources.outline:
            above = outline(document, left, words_of(prefix) | words_of(suffix))
        return snippets + header_of(document) + above

    def sources(self, document: Document, window: Window) -> tuple[str, ...]:
        """Text outside a window that an answer may copy from, the most relevant first.

        Of this document 24,000 characters above and 12,000 below the window; passages of files
        that are not open; of others 12,000 each around the last edit, 24,000 in all, the most
        recently used first. Costs what it gives.
        """
        if not self._sources.copying:
            return ()
        left, right = window.prefix_start, window.suffix_end
        texts = [
            document.slice(max(left - MAX_ABOVE_CHARS, 0), left),
            document.slice(right, min(right + MAX_BELOW_CHARS, document.n_chars)),
        ]
        if self.files is not None:
            texts += self.files.passages(document, window.prefix, window.suffix)
        room = MAX_OTHERS_CHARS
        for other in self._others(document):
            if room <= 0:
                break
            texts.append(self._part(other)[:room])
            room -= len(texts[-1])
        return tuple(filter(None, texts))

    def _others(self, document: Document) -> list[Document]:
        """The other open documents that may be read, the most recently used first.

        Of the first 64 of them: what is asked about a document costs the more, the more there are.
        """
        order = {uri: place for place, uri in enumerate(self._recent)}
        others = [other for other in self.documents if other.uri != document.uri]
        # Of those never worked on, the last opened first.
        others.reverse()
        others.sort(key=lambda other: -order.get(other.uri, -1))
        may_be_read = []
        for other in islice(others, MAX_OTHERS):
            if other.is_secret or self._is_ignored(other.uri):
                self.index.drop(other.uri)
            else:
                may_be_read.append(other)
        return may_be_read

    def _part(self, document: Document) -> str:
        """A document's text around its last edit, from a line's start."""
        document_then, revision, text = self._parts.get(document.uri, (None, -1, ""))
        if document_then is not document or revision != document.revision:
            edit = document.last_edit
            middle = 0 if edit is None else edit.new_end
            start = max(min(middle + MAX_OTHER_CHARS // 2, document.n_chars) - MAX_OTHER_CHARS, 0)
            line = document.line_of(start)
            begins = document.line_start(line)
            if begins < start and line + 1 < len(document.lines):
                next_line = document.line_start(line + 1)
                begins = next_line if next_line < start + MAX_OTHER_CHARS // 2 else start
            text = document.slice(begins, min(begins + MAX_OTHER_CHARS, document.n_chars))
            self._parts[document.uri] = (document, document.revision, text)
        return text


def _defined(document: Document, left: int, prefix: str) -> set[str]:
    """The names of what a prefix window defines."""
    tree, syntax = document.tree, document.syntax
    if tree is None or syntax is None:
        return set()
    first, last = document.line_of(left), document.line_of(left + len(prefix))
    definitions = definitions_in(tree, syntax, document.lines, first, last, across=last)
    return {definition.name for definition in definitions}
