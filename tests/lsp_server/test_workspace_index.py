"""Definitions out of other files: which are told, which are never read, how many are kept."""

from __future__ import annotations

import gc
import subprocess
import threading
import weakref
from typing import TYPE_CHECKING

import pytest

from lsp_server import ignored_files, workspace_index
from lsp_server.context import WindowLimits, window_at
from lsp_server.documents import MAX_PARSE_LINE_CHARS, Change, Document
from lsp_server.ignored_files import IgnoredFiles
from lsp_server.surroundings import MAX_OTHERS, ContextSources, Surroundings
from lsp_server.syntax import language_id_of
from lsp_server.workspace_index import MAX_SNIPPET_CHARS, WorkspaceIndex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SHOP = """\
import os

RATE = 3


@cached
def total_price(
    items: list[Item],
) -> int:
    def inner_sum(): ...
    return sum(items)


class Basket(dict):
    def add_item(self, item: Item) -> None:
        self[item] = 1
"""


def document_of(path: str, text: str) -> Document:
    return Document(f"file:///w/{path}", language_id_of(path), 1, text, path=path)


def snippets(near: str, *documents: Document, defined: tuple[str, ...] = ()) -> str:
    """What is told at the end of the text `near`, of these files."""
    index = WorkspaceIndex()
    index.update(documents)
    return index.snippets(document_of("here.py", near), near, defined)


@pytest.mark.parametrize(
    ("near", "told"),
    [
        ("x = total_price(", "def total_price(\n    items: list[Item],\n) -> int:\n"),
        ("x = Basket()", "class Basket(dict):\n"),
        ("x.add_item(", "class Basket(dict):\n    def add_item(self, item: Item) -> None:\n"),
        # A member's name alone is something else.
        ("add_item = 1", ""),
        ("inner_sum(", ""),
        ("items = os.path", ""),
        ("", ""),
    ],
)
def test_names_near_the_cursor_are_looked_up(near: str, told: str) -> None:
    found = snippets(near, document_of("pkg/shop.py", SHOP))
    assert found == (f"# pkg/shop.py\n{told}" if told else "")


def test_lines_of_one_file_stand_together_in_its_order() -> None:
    found = snippets("b = Basket()\nb.add_item(total_price(", document_of("shop.py", SHOP))
    lines = SHOP.splitlines(keepends=True)
    assert found == "# shop.py\n" + "".join([*lines[6:9], *lines[13:15]])


def test_only_the_last_lines_are_near() -> None:
    shop = document_of("shop.py", SHOP)
    assert snippets("Basket()\n" + "x = 1\n" * 18, shop)
    assert not snippets("Basket()\n" + "x = 1\n" * 19, shop)


def test_what_the_window_defines_is_not_told() -> None:
    assert not snippets("Basket()", document_of("shop.py", SHOP), defined=("Basket",))


def test_the_most_specific_come_first() -> None:
    files = [document_of(f"f{n}.py", "def shared(): ...\n") for n in range(3)]
    files.append(document_of("one.py", "def single(a): ...\ndef nearer(b): ...\n"))
    found = snippets("shared(nearer(single(", *files)
    assert found.startswith("# one.py\ndef single(a): ...\ndef nearer(b): ...\n# f0.py\n")
    assert found.count("# ") == 3
    # Defined in so many files, it says nothing.
    files.append(document_of("f4.py", "def shared(): ...\n"))
    assert snippets("shared(", *files) == ""


def test_there_is_an_end_to_what_is_told() -> None:
    files = [
        document_of(f"f{n}.py", "".join(f"def name_{n}_{i}(argument): ...\n" for i in range(9)))
        for n in range(9)
    ]
    near = "".join(f"name_{n}_{i}(" for n in range(9) for i in range(9))
    found = snippets(near, *files)
    assert MAX_SNIPPET_CHARS - 60 < len(found) <= MAX_SNIPPET_CHARS
    assert found.count("# f") == 3
    long = document_of("long.py", f"def name(a{'a' * 300}): ...\n")
    assert snippets("name(", long) == ""


def test_languages_that_do_not_use_one_another_are_kept_apart() -> None:
    text = "function twice(x) {\n  return x;\n}\n"
    index = WorkspaceIndex()
    index.update([document_of("a.ts", text), document_of("b.js", "")])
    told = "// a.ts\nfunction twice(x) {\n"
    assert index.snippets(document_of("c.jsx", ""), "twice(", ()) == told
    assert index.snippets(document_of("c.java", ""), "twice(", ()) == ""


@pytest.mark.parametrize(
    ("path", "text", "near", "told"),
    [
        ("a.go", "package a\n\nfunc Twice(x int) {\n}\n", "Twice(", "func Twice(x int) {"),
        ("a.rs", "impl A {\n  fn twice(x) {}\n}\n", "a.twice(", "impl A {\n  fn twice(x) {}"),
        ("a.rs", "mod b {\n    fn twice() {}\n}\n", "twice(", "    fn twice() {}"),
        ("a.java", "class A {\n  A twice() {\n  }\n}\n", "a.twice(", "class A {\n  A twice() {"),
        ("a.c", "typedef struct s { int a; } pair;\n", "pair", "typedef struct s { int a; } pair;"),
        ("a.c", "int *twice(int a) {\n}\n", "twice(", "int *twice(int a) {"),
        ("a.cpp", "int A::twice(int a) {\n}\n", "a.twice(", "int A::twice(int a) {"),
        ("a.js", "export const twice = (x) => {\n};\n", "twice(", "export const twice = (x) => {"),
    ],
    ids=lambda value: value if "." in value and " " not in value else "",
)
def test_definitions_have_names_in_every_language(
    path: str, text: str, near: str, told: str
) -> None:
    index = WorkspaceIndex()
    index.update([document_of(path, text)])
    here = document_of(f"here.{path.rpartition('.')[2]}", "")
    assert index.snippets(here, near, ()) == f"// {path}\n{told}\n"


def test_a_changed_file_is_looked_into_again_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[str] = []
    look = workspace_index._read

    def counted(document: Document) -> workspace_index._File:
        read.append(document.path)
        return look(document)

    monkeypatch.setattr(workspace_index, "_read", counted)
    one, two = document_of("one.py", "def first(): ...\n"), document_of("two.py", "")
    index = WorkspaceIndex()
    for _ in range(3):
        index.update([one, two])
    assert read == ["one.py", "two.py"]
    one.apply(Change(text="def other(): ...\n"))
    index.update([one, two])
    assert read == ["one.py", "two.py", "one.py"]
    here = document_of("here.py", "")
    assert index.snippets(here, "first(other(", ()) == "# one.py\ndef other(): ...\n"
    # Opened anew, its revisions start again.
    index.update([document_of("one.py", "def third(): ...\n")])
    assert index.snippets(here, "other(third(", ()) == "# one.py\ndef third(): ...\n"


def test_one_update_reads_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace_index, "MAX_READ_CHARS", 100)
    files = [document_of(f"f{n}.py", f"def name_{n}(): ...\n" + "#" * 60) for n in range(3)]
    index = WorkspaceIndex()
    for n in range(1, 4):
        index.update(files)
        assert len(index) == n
    large = document_of("large.py", "def name(): ...\n" + "#" * workspace_index.MAX_FILE_CHARS)
    index.update([large])
    assert len(index) == 3


def test_a_file_that_goes_by_lines_for_a_while_stays_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    file = Document("file:///w/a.py", "python", 1, SHOP, "a.py", clock=lambda: now[0])
    index, here = WorkspaceIndex(), document_of("here.py", "")
    index.update([file])
    with monkeypatch.context() as patched:
        patched.setattr("lsp_server.documents.parse", lambda *_: None)
        file.apply(Change(text=SHOP.replace("Basket", "Trolley")))
        index.update([file])
        assert file.tree is None
    assert index.snippets(here, "Basket(", ()) != ""
    now[0] += 1
    index.update([file])
    assert index.snippets(here, "Basket(", ()) == ""
    assert index.snippets(here, "Trolley(", ()) != ""
    # But of one that was opened anew nothing is known.
    index.update([document_of("a.py", "x" * (MAX_PARSE_LINE_CHARS + 1))])
    assert len(index) == 0


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace_index, "MAX_KEPT_CHARS", 200)
    monkeypatch.setattr(workspace_index, "MAX_DEFINITIONS", 5)
    text = "".join(f"def name_{n}(): ...\n" for n in range(100))
    index = WorkspaceIndex()
    for n in range(9):
        index.update([document_of(f"f{n}.py", text)])
        assert index.n_chars <= 200
    # 20 characters each: the newest two files.
    assert len(index) == 2
    here = document_of("here.py", "")
    assert index.snippets(here, "name_4(", ()).startswith("# f8.py\n")
    assert index.snippets(here, "name_5(", ()) == ""

    monkeypatch.setattr(workspace_index, "MAX_FILES", 4)
    files = [document_of(f"g{n}.py", "def name(): ...\n") for n in range(9)]
    index.update(files)
    assert len(index) == 4


def test_the_index_does_not_keep_a_closed_files_text() -> None:
    document = document_of("a.py", SHOP)
    index = WorkspaceIndex()
    index.update([document])
    gone = weakref.ref(document)
    del document
    gc.collect()
    assert gone() is None
    assert index.snippets(document_of("here.py", ""), "Basket(", ()) != ""


# What is read of other documents


def surroundings_of(
    *documents: Document,
    sources: ContextSources | None = None,
    is_ignored: Callable[[str], bool] = lambda _uri: False,
) -> Surroundings:
    surroundings = Surroundings(sources or ContextSources(), is_ignored)
    surroundings.documents = documents
    return surroundings


HERE = document_of("here.py", "x = secret_name(")
PREFIX = HERE.text
OTHER_TEXT = "def secret_name(a):\n    return a\n"


def header(surroundings: Surroundings, document: Document = HERE) -> str:
    return surroundings.header(document, 0, document.text, "")


def sources(surroundings: Surroundings, document: Document = HERE) -> tuple[str, ...]:
    window = window_at(document, document.n_chars, WindowLimits())
    return surroundings.sources(document, window)


@pytest.mark.parametrize("path", [".env.py", "secrets.py", "credentials.py", "a/Secrets.py"])
def test_files_with_secrets_are_never_read(path: str) -> None:
    surroundings = surroundings_of(HERE, document_of(path, OTHER_TEXT))
    assert header(surroundings) == "# here.py\n"
    assert sources(surroundings) == ()
    surroundings = surroundings_of(HERE, document_of("fine.py", OTHER_TEXT))
    assert header(surroundings) == "# fine.py\ndef secret_name(a):\n# here.py\n"
    assert sources(surroundings) == (OTHER_TEXT,)


def test_ignored_files_are_not_read_and_forgotten_when_they_become_so() -> None:
    ignored: set[str] = set()
    other = document_of("other.py", OTHER_TEXT)
    surroundings = surroundings_of(HERE, other, is_ignored=ignored.__contains__)
    assert "secret_name" in header(surroundings)
    ignored.add(other.uri)
    assert header(surroundings) == "# here.py\n"
    assert sources(surroundings) == ()
    assert len(surroundings.index) == 0


def test_however_many_are_open_git_runs_once_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def look(uri: str) -> bool:
        asked.append(uri)
        return False

    monkeypatch.setattr(ignored_files, "_is_ignored", look)
    files = [document_of(f"f{n}.py", f"def name_{n}(): ...\n") for n in range(700)]
    surroundings = Surroundings(ContextSources())
    surroundings.documents = [*files, HERE]
    # Worked on long ago, and so before those that were only opened.
    for file in (files[3], files[1], HERE):
        surroundings.touch(file)
    for _ in range(4):
        sources(surroundings)
        for file in files[:2]:
            # Until git has been heard on all it was asked about.
            surroundings._ignored.answer(file.uri).result(30)
    surroundings.close()
    opened_last = [file.uri for file in files[: -MAX_OTHERS + 1 : -1]]
    assert len(opened_last) == MAX_OTHERS - 2
    assert asked == [files[1].uri, files[3].uri, *opened_last, files[0].uri]


def test_what_was_not_asked_about_for_longest_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, may_go_on, asked = threading.Event(), threading.Event(), []

    def look(uri: str) -> bool:
        begun.set()
        asked.append(uri)
        return may_go_on.wait(30)

    monkeypatch.setattr(ignored_files, "_is_ignored", look)
    monkeypatch.setattr(ignored_files, "MAX_FILES", 3)
    ignored = IgnoredFiles()
    for uri in ("a", "b", "c"):
        ignored.answer(uri)
    assert begun.wait(30)
    b = ignored.answer("b")
    ignored.answer("a")
    # Now "c", which nobody asks about any more, need not be looked at.
    last = ignored.answer("d")
    forgotten = ignored.answer("e")
    ignored.forget("e")
    may_go_on.set()
    assert last.result(30) is True
    assert ignored.answer("a").result(30) is True
    ignored.close()
    assert b.cancelled()
    assert forgotten.cancelled()
    assert asked == ["a", "d"]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder under git, with a setting that would have git run a command."""
    # As in an editor that git itself has started.
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    folder = tmp_path / "work"
    folder.mkdir()
    subprocess.run(["git", "-C", folder, "init", "-q"], check=True, env={"PATH": "/usr/bin:/bin"})
    (folder / ".gitignore").write_text("build/\n*.local.py\n")
    (folder / "build").mkdir()
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/was-run\n")
    hook.chmod(0o755)
    with (folder / ".git" / "config").open("a") as config:
        config.write(f"[core]\n\tfsmonitor = {hook}\n")
    yield folder
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize(
    ("path", "expected"),
    [("a.py", False), ("a.local.py", True), ("build/a.py", True), ("-x.py", False)],
)
def test_git_says_what_it_ignores(repository: Path, path: str, expected: bool) -> None:
    uri = (repository / path).as_uri()
    ignored = IgnoredFiles()
    assert ignored.answer(uri).result(30) is expected
    assert ignored.is_ignored(uri) is expected
    ignored.close()


@pytest.mark.parametrize(
    ("link", "target", "expected"),
    [
        ("link.py", "build/a.py", True),
        ("link.py", "a.py", False),
        # What is ignored itself, wherever it leads.
        ("b.local.py", "../outside.py", True),
        ("notes.txt", "../.env", True),
        ("sub", "sub", False),
    ],
    ids=["to an ignored one", "to another", "ignored itself", "to a secret", "to itself"],
)
def test_what_a_link_leads_to_counts(
    repository: Path, link: str, target: str, expected: bool
) -> None:
    (repository / link).symlink_to(target)
    ignored = IgnoredFiles()
    assert ignored.answer((repository / link).as_uri()).result(30) is expected
    ignored.close()


def test_until_git_has_answered_a_file_counts_as_ignored(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = (repository / "a.py").as_uri()
    ignored = IgnoredFiles()
    may_answer = threading.Event()

    def slow(_path: Path) -> bool:
        return not may_answer.wait(30)

    monkeypatch.setattr("lsp_server.ignored_files._ask_git", slow)
    assert ignored.is_ignored(uri) is True
    may_answer.set()
    assert ignored.answer(uri).result(30) is False
    assert ignored.is_ignored(uri) is False
    ignored.forget(uri)
    monkeypatch.setattr("lsp_server.ignored_files._ask_git", lambda path: True)
    ignored.answer(uri).result(30)
    assert ignored.is_ignored(uri) is True
    ignored.close()


@pytest.mark.parametrize("failure", ["missing", "slow", "broken"])
def test_where_git_cannot_tell_files_of_a_repository_are_ignored(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    def run(*_: object, **__: object) -> subprocess.CompletedProcess[bytes]:
        if failure == "missing":
            raise FileNotFoundError("git")
        if failure == "slow":
            raise subprocess.TimeoutExpired("git", 5)
        return subprocess.CompletedProcess([], 128)

    monkeypatch.setattr(subprocess, "run", run)
    ignored = IgnoredFiles()
    assert ignored.answer((repository / "a.py").as_uri()).result(30) is True
    assert ignored.answer((tmp_path / "a.py").as_uri()).result(30) is False
    ignored.close()


@pytest.mark.parametrize("uri", ["untitled:Untitled-1", "vscode-remote://host/w/a.py"])
def test_what_is_no_file_here_is_not_read(uri: str) -> None:
    ignored = IgnoredFiles()
    assert ignored.answer(uri).result(30) is True
    ignored.close()


# What may be copied from


def test_what_may_be_copied_lies_around_the_window_and_in_other_files() -> None:
    lines = "".join(f"line_{n} = {n}\n" for n in range(9000))
    document = document_of("here.py", lines)
    offset = document.line_start(4500)
    window = window_at(document, offset, WindowLimits())
    others = [document_of(f"other_{n}.py", f"# {n}\n" + lines) for n in range(4)]
    end = others[2].position_at(60_000)
    others[2].apply(Change(text="edited = 1\n", range=(end, end)))
    surroundings = surroundings_of(document, *others)
    surroundings.touch(others[2])
    above, below, *of_others = surroundings.sources(document, window)
    text = document.text
    assert above == text[window.prefix_start - 24_000 : window.prefix_start]
    assert below == text[window.suffix_end : window.suffix_end + 12_000]
    assert len(of_others) == 2
    assert "edited = 1\n" in of_others[0]
    assert of_others[0] in others[2].text
    assert of_others[1] == others[3].text[:12_000]
    assert sum(map(len, of_others)) <= 24_000
    # Typed in, the document gives the same around its window.
    at = document.position_at(offset)
    document.apply(Change(text="x", range=(at, at)))
    window = window_at(document, offset + 1, WindowLimits(), window)
    assert surroundings.sources(document, window) == (above, below, *of_others)
    # A change elsewhere is seen.
    others[3].apply(Change(text="short"))
    assert surroundings.sources(document, window)[3] == "short"


def test_each_source_can_be_left_out() -> None:
    document = document_of("here.py", "import os\n" * 2000 + "secret_name(")
    other = document_of("other.py", OTHER_TEXT)

    def of(**switches: bool) -> tuple[str, tuple[str, ...]]:
        surroundings = surroundings_of(other, sources=ContextSources(**switches))
        made = window_at(document, document.n_chars, WindowLimits(), None, surroundings.header)
        return made.header, surroundings.sources(document, made)

    snippet, path = "# other.py\ndef secret_name(a):\n", "# here.py\n"
    full, texts = of()
    above = full.removeprefix(snippet + path)
    assert above.startswith("import os\n")
    assert above.endswith("...\n")
    assert texts[-1] == OTHER_TEXT
    assert of(outline=False) == (snippet + path, texts)
    assert of(snippets=False) == (path + above, texts)
    assert of(copying=False) == (full, ())


def test_definitions_of_a_closed_file_stay_known_if_it_was_worked_on() -> None:
    other = document_of("other.py", OTHER_TEXT)
    for is_touched in (True, False):
        surroundings = surroundings_of(HERE, other)
        if is_touched:
            surroundings.touch(other)
        assert "secret_name(a)" in header(surroundings)
        surroundings.documents = (HERE,)
        surroundings.forget(other.uri)
        assert ("secret_name(a)" in header(surroundings)) == is_touched
        assert sources(surroundings) == ()
