"""The files that are open beside the one that a case is from, as in an editor."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from lsp_server.documents import Document
from lsp_server.syntax import language_id_of
from lsp_server.tracked_files import n_common

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf.source_files import SourceFile

MAX_OPEN = 8


class OpenFiles:
    """Documents of a source tree, those nearest to a path at a time."""

    def __init__(self, sources: Sequence[SourceFile]) -> None:
        self._sources = {source.path: source for source in sources}
        self._order = {path: place for place, path in enumerate(sorted(self._sources))}
        # Kept, so that what is known of a file stays known.
        self._documents: dict[str, Document] = {}

    def beside(self, path: str) -> list[Document]:
        """At most 8 other files of the same top folder, those last that lie nearest to `path`.

        Never the file itself: the truth stands in it.
        """
        parts = PurePosixPath(path).parts
        at = self._order.get(path, 0)

        def distance(other: str) -> tuple[int, int]:
            return -n_common(parts, PurePosixPath(other).parts), abs(self._order[other] - at)

        near = [
            other
            for other in self._sources
            if other != path and (len(parts) == 1 or n_common(parts, PurePosixPath(other).parts))
        ]
        near.sort(key=distance)
        return [self._document(other) for other in reversed(near[:MAX_OPEN])]

    def _document(self, path: str) -> Document:
        document = self._documents.get(path)
        if document is None:
            text = self._sources[path].text
            uri = f"file:///open/{path}"
            document = Document(uri, language_id_of(path), 0, text, path=path)
            self._documents[path] = document
        return document
