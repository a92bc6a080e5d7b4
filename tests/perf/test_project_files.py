from __future__ import annotations

from typing import TYPE_CHECKING

from engine.text_index import TextIndex
from lsp_server.documents import Document
from lsp_server.syntax import language_id_of
from perf import project_files
from perf.project_files import ProjectFiles
from perf.source_files import SourceFile

if TYPE_CHECKING:
    import pytest

END = "    total = price("


def files_of(*paths: str) -> ProjectFiles:
    """Files that all go on behind `END`, each with its own path."""
    texts = {path: f"def f():\n{END}{path})\n" for path in paths}
    return ProjectFiles([SourceFile(path=path, text=text) for path, text in texts.items()])


def found(files: ProjectFiles, path: str, end: str = END) -> list[str]:
    """What stands behind `END` in the passages for a document."""
    document = Document(f"file:///case/{path}", language_id_of(path), 0, "", path=path)
    return [text.partition(END)[2].partition(")")[0] for text in files.passages(document, end)]


def test_the_nearest_come_first_but_never_the_document_s_own() -> None:
    files = files_of("a/x.py", "a/b/w.py", "a/b/x.py", "a/b/y.py")
    assert found(files, "a/b/x.py") == ["a/b/w.py", "a/b/y.py", "a/x.py"]
    assert found(files, "a/x.py") == ["a/b/y.py", "a/b/x.py", "a/b/w.py"]
    # One that is new.
    assert set(found(files, "a/new.py")) == {"a/x.py", "a/b/w.py", "a/b/x.py", "a/b/y.py"}


def test_a_top_folder_is_a_project() -> None:
    files = files_of("a/x.py", "b/x.py", "b/y.py", "top.py")
    assert found(files, "b/x.py") == ["b/y.py"]
    assert found(files, "a/x.py") == []
    assert found(files, "new.py") == ["top.py"]
    assert found(files, "c/x.py") == []


def test_languages_that_use_one_another_go_together() -> None:
    files = files_of("a/x.js", "a/y.tsx", "a/z.py", "a/u.c", "a/v.cpp")
    assert found(files, "a/new.ts") == ["a/x.js", "a/y.tsx"]
    assert found(files, "a/u.c") == ["a/v.cpp"]
    assert found(files, "a/new.go") == []


def test_nothing_where_the_same_stands_nowhere() -> None:
    assert found(files_of("a/x.py", "a/y.py"), "a/x.py", "class Thing:\n") == []
    assert found(ProjectFiles([]), "a/x.py") == []


def test_a_project_is_indexed_when_it_is_asked_about_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    indexed: list[list[str]] = []

    def index(texts: list[str]) -> TextIndex:
        indexed.append(texts)
        return TextIndex(texts)

    monkeypatch.setattr(project_files, "TextIndex", index)
    files = files_of("a/y.py", "a/x.py", "b/x.py")
    assert indexed == []
    for _ in range(2):
        assert found(files, "a/x.py") == ["a/y.py"]
    assert [len(texts) for texts in indexed] == [2]
    assert "a/x.py" in indexed[0][0]
