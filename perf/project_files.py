"""The files of a case's project that are not open, as the server gives what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.text_index import TextIndex
from lsp_server.syntax import language_id_of
from lsp_server.workspace_index import family_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lsp_server.documents import Document
    from perf.source_files import SourceFile

Project = tuple[str, str]
"""A top folder and a language family."""


class ProjectFiles:
    """Those of a source tree, each top folder a project: what `WorkspaceFiles` is in a server."""

    def __init__(self, sources: Sequence[SourceFile]) -> None:
        """What is asked about is indexed when it is asked about first."""
        self._sources: dict[Project, dict[str, str]] = {}
        for source in sorted(sources, key=lambda source: source.path):
            project = _project(source.path, language_id_of(source.path))
            self._sources.setdefault(project, {})[source.path] = source.text
        self._indexes: dict[Project, TextIndex] = {}

    def passages(self, document: Document, before: str, after: str = "") -> tuple[str, ...]:
        """What stands around places like a cursor in a project's files but the document's own."""
        project = _project(document.path, document.language_id)
        texts = self._sources.get(project)
        if texts is None:
            return ()
        if project not in self._indexes:
            self._indexes[project] = TextIndex(list(texts.values()))
        paths = list(texts)
        own = paths.index(document.path) if document.path in texts else None
        return self._indexes[project].passages(
            before, after, near=own or 0, without=() if own is None else (own,)
        )


def _project(path: str, language_id: str) -> Project:
    return path.partition("/")[0] if "/" in path else "", family_of(language_id)
