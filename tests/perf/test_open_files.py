from __future__ import annotations

from perf.open_files import MAX_OPEN, OpenFiles
from perf.source_files import SourceFile


def open_files(*paths: str) -> OpenFiles:
    return OpenFiles([SourceFile(path=path, text=f"# {path}\n") for path in paths])


def beside(files: OpenFiles, path: str) -> list[str]:
    return [document.path for document in files.beside(path)]


def test_the_nearest_come_last() -> None:
    files = open_files("a/b/w.py", "a/b/x.py", "a/b/y.py", "a/v.py", "c/x.py")
    assert beside(files, "a/b/y.py") == ["a/v.py", "a/b/w.py", "a/b/x.py"]


def test_never_the_file_itself_nor_another_package() -> None:
    files = open_files("a/x.py", "b/x.py", "top.py")
    assert beside(files, "a/x.py") == []
    # A file at the top lies in the same folder as all others.
    assert sorted(beside(files, "top.py")) == ["a/x.py", "b/x.py"]


def test_not_more_than_an_editor_has_open() -> None:
    files = open_files(*(f"a/{n:02}.py" for n in range(30)))
    assert sorted(beside(files, "a/15.py")) == [
        f"a/{n:02}.py" for n in (*range(11, 15), *range(16, 20))
    ]
    assert len(beside(files, "a/00.py")) == MAX_OPEN


def test_documents_stay_the_same() -> None:
    files = open_files("a/x.go", "a/y.go")
    (first,), (again,) = files.beside("a/x.go"), files.beside("a/x.go")
    assert first is again
    assert first.language_id == "go"
    assert first.text == "# a/y.go\n"
