"""Passages of files that are not open: which are read, which never, and when again."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from engine.engine import Engine
from lsp_server import tracked_files, workspace_files
from lsp_server.documents import Change, Document, Position
from lsp_server.git import ask_git
from lsp_server.repository_text import LOOK_AGAIN_S, MOVE_AGAIN_S
from lsp_server.settings import Settings
from lsp_server.suggestions import Suggester
from lsp_server.syntax import language_id_of
from lsp_server.tracked_files import MAX_FILE_BYTES, MAX_LINE_CHARS, Repository, key_of
from lsp_server.workspace_files import NICENESS, WorkspaceFiles
from tests.lsp_server.server_bench import Bench

TIMEOUT_S = 60
# What is typed, and how the tracked files go on from there.
END = "return quarterly_rebate("


def line(mark: str) -> str:
    return f"    {END}{mark})\n"


class Desk:
    """A repository, documents that are open, a clock, and what is read on its own thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.git("init", "-q")
        self.open: list[Document] = []
        self.now_s = 1000.0
        self.files = WorkspaceFiles(self.open, lambda: self.now_s)
        self.files.configure(Settings())

    def git(self, *arguments: str, folder: Path | None = None) -> None:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder)}
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments]
        subprocess.run(command, cwd=folder or self.folder, check=True, env=environment)

    def track(self, **marks: str) -> None:
        """Write Python files, each with a line that ends in its mark, and have git track them."""
        for name, mark in marks.items():
            (self.folder / f"{name}.py").write_text(line(mark))
        self.git("add", *(f"{name}.py" for name in marks))

    def document(
        self, path: str = "here.py", text: str = "", folder: Path | None = None
    ) -> Document:
        uri = ((folder or self.folder) / path).as_uri()
        document = Document(uri, language_id_of(path), 0, text, path)
        self.open.append(document)
        return document

    def close(self, document: Document) -> None:
        self.open.remove(document)
        self.files.forget(document)

    def passages(self, document: Document) -> str:
        """What is found once the thread has nothing left to do."""
        for _ in range(3):
            self.files.passages(document, END)
            self.files._worker().submit(int).result(TIMEOUT_S)
        return "\n".join(self.files.passages(document, END))


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    # As in an editor that git itself has started.
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    desk = Desk(tmp_path / "work")
    yield desk
    desk.files.close()


def edit(document: Document, text: str) -> None:
    document.apply(Change(text=text, range=(Position(0, 0), Position(0, 0))))


def everything_in(folder: Path) -> dict[str, tuple[int, int]]:
    found = {str(path): path.lstat() for path in folder.rglob("*")}
    return {path: (status.st_size, status.st_mtime_ns) for path, status in found.items()}


def test_tracked_files_are_read_on_a_thread_and_nothing_is_written(desk: Desk) -> None:
    desk.track(other="ceiling")
    before = everything_in(desk.folder)
    here = desk.document()
    assert desk.files.passages(here, END) == ()
    assert "ceiling" in desk.passages(here)
    assert everything_in(desk.folder) == before


@pytest.mark.parametrize(
    "uri", ["untitled:a.py", "vscode-remote://host/w/a.py", "file:///w/a.txt", "file:///%00/a.py"]
)
def test_what_is_no_file_of_a_known_language_has_none(desk: Desk, uri: str) -> None:
    document = Document(uri, language_id_of(uri), 0, "")
    desk.open.append(document)
    assert desk.passages(document) == ""


def test_line_ends_count_as_one(desk: Desk) -> None:
    (desk.folder / "other.py").write_bytes(b"ab\r\ncd = shown\r\n")
    desk.git("add", "other.py")
    here = desk.document()
    desk.passages(here)
    for newline in ("\n", "\r\n", "\r"):
        assert desk.files.passages(here, f"ab{newline}cd") == ("ab\ncd = shown\n",)
    assert desk.files.passages(here, "ab  cd") == ()


def test_where_there_is_no_repository_nothing_is_read(tmp_path: Path, desk: Desk) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "other.py").write_text(line("ceiling"))
    assert desk.passages(desk.document(folder=alone)) == ""


def test_a_draft_has_them_but_never_begins_to_read(desk: Desk) -> None:
    desk.track(other="ceiling")
    here = desk.document(text="x")
    draft = here.drafted(Change(text="y", range=(Position(0, 0), Position(0, 1))))
    assert desk.passages(draft) == ""
    assert desk.passages(here) != ""
    assert desk.passages(draft) != ""


# What is never read


def to_outside(desk: Desk) -> str:
    outside = desk.folder.parent / "outside.py"
    outside.write_text(line("hidden"))
    (desk.folder / "link.py").symlink_to(outside)
    return "link.py"


def behind_a_link(desk: Desk) -> str:
    (desk.folder / "sub").mkdir()
    (desk.folder / "sub" / "a.py").write_text(line("hidden"))
    desk.git("add", "sub")
    (desk.folder / "sub").rename(desk.folder.parent / "sub")
    (desk.folder / "sub").symlink_to(desk.folder.parent / "sub")
    return ""


def in_a_submodule(desk: Desk) -> str:
    inner = desk.folder / "inner"
    inner.mkdir()
    desk.git("init", "-q", folder=inner)
    (inner / "a.py").write_text(line("hidden"))
    desk.git("add", "a.py", folder=inner)
    desk.git("commit", "-q", "-m", "a", folder=inner)
    (desk.folder / ".gitmodules").write_text(
        '[submodule "inner"]\n\tpath = inner\n\turl = ./inner\n'
    )
    desk.git("config", "submodule.recurse", "true")
    desk.git("config", "submodule.active", ".")
    return "inner"


def ignored(desk: Desk) -> str:
    (desk.folder / ".gitignore").write_text("build/\n")
    (desk.folder / "build").mkdir()
    (desk.folder / "build" / "a.py").write_text(line("hidden"))
    return ".gitignore"


def untracked(desk: Desk) -> str:
    (desk.folder / "new.py").write_text(line("hidden"))
    return ""


def removed(desk: Desk) -> str:
    desk.track(gone="hidden")
    (desk.folder / "gone.py").unlink()
    return ""


def written(path: str, data: bytes) -> Any:
    def write(desk: Desk) -> str:
        (desk.folder / path).parent.mkdir(exist_ok=True)
        (desk.folder / path).write_bytes(data)
        return path

    return write


HIDDEN = line("hidden").encode()
NEVER_READ = {
    "link to outside": to_outside,
    "behind a link": behind_a_link,
    "submodule": in_a_submodule,
    "ignored": ignored,
    "untracked": untracked,
    "removed": removed,
    "secret": written("secrets.py", HIDDEN),
    "in a secret folder": written(".aws/a.py", HIDDEN),
    "excluded": written("gen/a.py", HIDDEN),
    "excluded by its whole path": written("private.py", HIDDEN),
    "of another language": written("a.go", HIDDEN),
    "of no language": written("notes.txt", HIDDEN),
    "binary": written("a.py", HIDDEN + b"\0"),
    "not UTF-8": written("a.py", HIDDEN + b"\xff"),
    "minified": written("a.py", HIDDEN + b"x" * (MAX_LINE_CHARS + 1)),
    "too long": written("a.py", HIDDEN + b"x = 1\n" * (MAX_FILE_BYTES // 6)),
}


@pytest.mark.parametrize("make", NEVER_READ.values(), ids=NEVER_READ)
def test_what_is_never_read(desk: Desk, make: Any) -> None:
    desk.track(other="shown")
    tracked = make(desk)
    if tracked:
        desk.git("add", "-f", tracked)
    desk.files.configure(Settings(exclude=("gen/*.py", (desk.folder / "private.py").as_posix())))
    here = desk.document()
    assert "shown" in desk.passages(here)
    assert "hidden" not in desk.passages(here)


def test_a_glob_fits_the_path_by_which_the_user_knows_the_file(desk: Desk) -> None:
    link = desk.folder.parent / "link"
    link.symlink_to(desk.folder)
    desk.track(other="shown", private="hidden")
    desk.files.configure(Settings(exclude=((link / "private.py").as_posix(),)))
    found = desk.passages(desk.document(folder=link))
    assert "shown" in found
    assert "hidden" not in found


def test_languages_of_one_family_are_read_together(desk: Desk) -> None:
    (desk.folder / "a.tsx").write_text(line("shown"))
    desk.git("add", "a.tsx")
    assert "shown" in desk.passages(desk.document("here.js"))


# Files that the editor knows better


@pytest.mark.parametrize("folder", ["work", "link"])
def test_never_of_the_document_itself(desk: Desk, folder: str) -> None:
    (desk.folder.parent / "link").symlink_to(desk.folder)
    desk.track(here="mine", other="shown")
    found = desk.passages(desk.document(folder=desk.folder.parent / folder))
    assert "shown" in found
    assert "mine" not in found


def test_files_are_known_by_any_case_and_form_of_their_paths(tmp_path: Path) -> None:
    """As disks do that do not tell them apart; on others too much is left out."""
    assert key_of(tmp_path / "Caf\u00e9.py") == key_of(tmp_path / "cafe\u0301.PY")
    assert key_of(tmp_path / "a.py") != key_of(tmp_path / "b.py")


def test_an_open_file_counts_while_it_is_as_on_disk(desk: Desk) -> None:
    link = desk.folder.parent / "link"
    link.symlink_to(desk.folder)
    desk.track(other="shown")
    here = desk.document()
    assert "shown" in desk.passages(here)
    # Not even until the thread knows where it lies, which nobody waits for.
    may_go_on = threading.Event()
    busy = desk.files._worker().submit(may_go_on.wait, 5)
    other = desk.document("other.py", line("shown").replace("\n", "\r\n"), link)
    assert desk.files.passages(here, END) == ()
    assert not busy.done()
    may_go_on.set()
    assert "shown" in desk.passages(here)
    edit(other, "x")
    assert desk.passages(here) == ""
    other.apply(Change(text="", range=(Position(0, 0), Position(0, 1))))
    assert "shown" in desk.passages(here)


def test_an_edited_file_counts_once_it_is_saved_and_read_again(desk: Desk) -> None:
    desk.track(other="old")
    here, other = desk.document(), desk.document("other.py", line("old"))
    assert "old" in desk.passages(here)
    edit(other, line("new"))
    (desk.folder / "other.py").write_text(line("new") + line("old"))
    assert desk.passages(here) == ""
    desk.now_s += LOOK_AGAIN_S
    assert "new" in desk.passages(here)


def test_an_open_file_does_not_count_whatever_the_editor_calls_its_language(desk: Desk) -> None:
    desk.track(other="shown")
    here = desk.document()
    other = Document((desk.folder / "other.py").as_uri(), "plaintext", 0, line("shown"))
    desk.open.append(other)
    assert "shown" in desk.passages(here)
    edit(other, "x")
    assert desk.passages(here) == ""


def test_what_was_compared_keeps_no_index_alive(desk: Desk) -> None:
    desk.track(other="shown")
    here, other = desk.document(), desk.document("other.py", line("shown"))
    assert "shown" in desk.passages(here)
    assert other.uri in desk.files._compared
    desk.track(more="shown")
    desk.now_s += LOOK_AGAIN_S
    # Worked in now, so not compared with what is read then.
    desk.passages(other)
    assert desk.files._compared.keys() <= {here.uri}


def test_an_unsaved_file_that_is_restored_does_not_count(desk: Desk) -> None:
    desk.track(other="old")
    here = desk.document()
    desk.document("other.py", line("unsaved"))
    assert desk.passages(here) == ""


def test_an_edited_file_that_was_closed_counts_once_it_is_read_again(desk: Desk) -> None:
    desk.track(other="old")
    here, other = desk.document(), desk.document("other.py", line("old"))
    # Text that is never looked at again.
    desk.passages(desk.document("here.go"))
    assert "old" in desk.passages(here)
    edit(other, "x")
    desk.now_s += 1
    desk.close(other)
    (desk.folder / "other.py").write_text(line("new"))
    assert desk.passages(here) == ""
    desk.now_s += LOOK_AGAIN_S
    assert "new" in desk.passages(here)
    # It is looked at again for nothing: it was closed before.
    desk.now_s += LOOK_AGAIN_S
    assert "new" in desk.passages(here)


def test_a_file_that_is_closed_unedited_counts(desk: Desk) -> None:
    desk.track(other="shown")
    here, other = desk.document(), desk.document("other.py")
    desk.passages(other)
    desk.close(other)
    assert "shown" in desk.passages(here)


def test_what_is_found_for_a_document_that_was_closed_serves_others(desk: Desk) -> None:
    desk.track(other="shown")
    here, there = desk.document(), desk.document("there.py")
    desk.files.passages(here, END)
    desk.close(here)
    assert "shown" in desk.passages(there)
    assert list(desk.files._looks) == list(desk.files._keys) == [there.uri]


# When files are read again


def test_what_changes_on_disk_is_read_again_after_a_while(desk: Desk) -> None:
    desk.track(kept="kept", changed="old", gone="gone")
    here = desk.document()
    assert all(mark in desk.passages(here) for mark in ("kept", "old", "gone"))
    desk.git("rm", "-q", "-f", "gone.py")
    desk.track(changed="newest", added="added")
    desk.now_s += LOOK_AGAIN_S - 1
    assert "old" in desk.passages(here)
    desk.now_s += 1
    found = desk.passages(here)
    assert all(mark in found for mark in ("kept", "newest", "added"))
    assert "old" not in found
    assert "gone" not in found
    desk.track(last="last_of_all")
    desk.now_s += LOOK_AGAIN_S
    assert "last_of_all" in desk.passages(here)


def test_where_nothing_has_changed_nothing_is_read_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.track(other="shown")
    here, there = desk.document(), desk.document("there.py")
    desk.passages(here)
    monkeypatch.setattr(Repository, "read", None)
    assert "shown" in desk.passages(there)
    desk.now_s += LOOK_AGAIN_S
    assert "shown" in desk.passages(there)
    # Nor looked for.
    assert "shown" in desk.passages(here)
    assert desk.files.looking is None


def test_a_change_counts_from_the_moment_it_is_known(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.track(other="shown", changed="old", gone="gone")
    here = desk.document()
    desk.passages(here)
    desk.track(changed="newer")
    desk.git("rm", "-q", "--cached", "gone.py")
    desk.now_s += LOOK_AGAIN_S
    begun, may_go_on = threading.Event(), threading.Event()
    read = Repository.read

    def slow(*arguments: Any) -> Any:
        begun.set()
        assert may_go_on.wait(TIMEOUT_S)
        return read(*arguments)

    monkeypatch.setattr(Repository, "read", slow)
    desk.files.passages(here, END)
    assert begun.wait(TIMEOUT_S)
    # While it is read anew.
    (found,) = desk.files.passages(here, END)
    assert "shown" in found
    may_go_on.set()
    assert "newer" in desk.passages(here)


def test_of_too_much_the_nearest_is_read_and_another_part_after_a_move(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("a", "b", "a/deep"):
        (desk.folder / folder).mkdir()
    desk.track(**{"top": "top", "a/one": "a_one", "a/deep/two": "a_deep", "b/three": "b_three"})
    monkeypatch.setattr(tracked_files, "MAX_BYTES", 2 * len(line("a_deep")))
    here, there = desk.document("a/here.py"), desk.document("b/here.py")
    found = desk.passages(here)
    assert [mark in found for mark in ("top", "a_one", "a_deep", "b_three")] == [0, 1, 1, 0]
    # Not at once: who goes to and fro would have everything read each time.
    assert "b_three" not in desk.passages(there)
    desk.now_s += MOVE_AGAIN_S
    found = desk.passages(there)
    assert [mark in found for mark in ("a_one", "b_three")] == [0, 1]


def test_of_equally_near_files_the_one_changed_last_is_read(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.track(a="oldest", b="newest", c="middle")
    for name, seconds in (("a", 10), ("b", 30), ("c", 20)):
        os.utime(desk.folder / f"{name}.py", (seconds, seconds))
    monkeypatch.setattr(tracked_files, "MAX_BYTES", 2 * len(line("newest")))
    found = desk.passages(desk.document())
    assert [mark in found for mark in ("newest", "middle", "oldest")] == [1, 1, 0]


def test_the_text_not_asked_for_longest_goes_and_comes_back_after_a_while(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace_files, "MAX_KEPT", 2)
    documents = [desk.document(f"here.{extension}") for extension in ("py", "go", "rs")]
    for extension in ("py", "go", "rs"):
        (desk.folder / f"other.{extension}").write_text(line(extension))
    desk.git("add", ".")
    for document in (*documents[:2], documents[0], documents[2]):
        assert "quarterly" in desk.passages(document)
    assert len(desk.files._texts) == 2
    assert desk.passages(documents[1]) == ""
    assert desk.passages(documents[0]) != ""
    desk.now_s += MOVE_AGAIN_S
    assert desk.passages(documents[1]) != ""


# What can go wrong


@pytest.mark.parametrize(
    "failure", ["no git", "slow git", "broken listing", "no memory", "deleted"]
)
def test_a_failure_is_one_line_and_no_passages_until_later(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, failure: str
) -> None:
    desk.track(other="shown")
    here = desk.document(text=line("shown"))
    n_runs = 0

    def run(*arguments: Any, **options: Any) -> Any:
        nonlocal n_runs
        n_runs += 1
        if failure == "no git":
            raise FileNotFoundError("git")
        if failure == "slow git":
            raise subprocess.TimeoutExpired("git", 5)
        if "ls-files" in arguments[0]:
            if failure == "no memory":
                raise MemoryError
            return subprocess.CompletedProcess([], 128)
        return really(*arguments, **options)

    really = subprocess.run
    with monkeypatch.context() as patch:
        if failure == "deleted":
            desk.folder.rename(desk.folder.with_name("moved"))
        else:
            patch.setattr(subprocess, "run", run)
        assert desk.passages(here) == ""
        n_first = n_runs
        desk.now_s += LOOK_AGAIN_S - 1
        assert desk.passages(here) == ""
    # A folder may well be one that is still to be made.
    assert len(caplog.records) == (failure != "deleted")
    assert all(record.levelno == logging.WARNING for record in caplog.records)
    assert "quarterly" not in caplog.text
    assert n_runs == n_first
    if failure == "deleted":
        desk.folder.with_name("moved").rename(desk.folder)
    desk.now_s += 1
    assert "shown" in desk.passages(here)


def test_an_unreadable_file_is_left_out(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.track(other="shown", broken="hidden")
    really = open

    def refuse(path: Any, *arguments: Any) -> Any:
        if Path(path).name == "broken.py":
            raise PermissionError("no")
        return really(path, *arguments)

    monkeypatch.setattr(tracked_files, "open", refuse, raising=False)
    found = desk.passages(desk.document())
    assert "shown" in found
    assert "hidden" not in found


def test_git_runs_nothing_that_a_repository_names(desk: Desk) -> None:
    hook = desk.folder.parent / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {hook}-was-run\n")
    hook.chmod(0o755)
    desk.track(other="shown")
    desk.git("config", "core.fsmonitor", str(hook))
    assert "shown" in desk.passages(desk.document())
    assert not Path(f"{hook}-was-run").exists()


# Settings


def test_off_means_that_nothing_is_read_or_known(desk: Desk) -> None:
    desk.track(other="shown")
    here = desk.document()
    assert desk.passages(here) != ""
    desk.files.configure(Settings(read_workspace=False))
    assert not desk.files._texts
    assert desk.files.passages(here, END) == ()
    assert desk.files._thread is None
    desk.files.configure(Settings())
    assert desk.files.passages(here, END) == ()
    assert "shown" in desk.passages(here)


def test_what_is_excluded_later_is_gone_at_once_and_other_settings_change_nothing(
    desk: Desk,
) -> None:
    desk.track(other="shown", private="hidden")
    here = desk.document()
    assert "hidden" in desk.passages(here)
    desk.files.configure(Settings(max_tokens=9))
    assert desk.files.passages(here, END) != ()
    desk.files.configure(Settings(exclude=("private.py",)))
    assert desk.files.passages(here, END) == ()
    assert "shown" in desk.passages(here)
    assert "hidden" not in desk.passages(here)


def test_what_is_read_when_it_is_switched_off_is_given_up(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.track(a="shown", b="shown")
    begun, may_go_on = threading.Event(), threading.Event()
    read: list[str] = []

    def slow(repository: Repository, name: str, stamp: Any) -> str:
        read.append(name)
        begun.set()
        assert may_go_on.wait(TIMEOUT_S)
        return "text"

    monkeypatch.setattr(Repository, "_text", slow)
    desk.files.passages(desk.document(), END)
    looking, thread = desk.files.looking, desk.files._thread
    assert looking is not None
    assert thread is not None
    assert begun.wait(TIMEOUT_S)
    desk.files.configure(Settings(read_workspace=False))
    may_go_on.set()
    thread.shutdown()
    assert len(read) == 1
    assert desk.files.looking is None


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no priority")
def test_the_thread_gives_way(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.track(other="shown")
    seen: list[int] = []

    def note(*arguments: str) -> Any:
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return ask_git(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(tracked_files, "ask_git", note)
    usual = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    desk.passages(desk.document())
    assert set(seen) == {max(usual, NICENESS)}
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == usual


# In the server


@pytest.mark.asyncio
async def test_the_server_tells_of_settings_edits_and_its_end(desk: Desk, bench: Bench) -> None:
    desk.track(other="shown")
    await bench.initialized({"exclude": ["private.py"]})
    desk.files.close()
    files = desk.files = bench.server.files
    assert files._exclude == ("private.py",)
    here = desk.document()
    assert "shown" in desk.passages(here)
    document = {"uri": (desk.folder / "other.py").as_uri(), "version": 1}
    opened = document | {"languageId": "python", "text": line("shown")}
    at = {"line": 0, "character": 0}
    changes = [{"range": {"start": at, "end": at}, "text": "x"}]
    bench.tell("textDocument/didOpen", {"textDocument": opened})
    bench.tell("textDocument/didChange", {"textDocument": document, "contentChanges": changes})
    await bench.settle()
    assert desk.passages(here) == ""
    bench.tell("textDocument/didClose", {"textDocument": document})
    await bench.settle()
    assert desk.passages(here) == ""
    # Its streams end at once.
    await asyncio.wait_for(bench.server.run([], io.BytesIO()), TIMEOUT_S)
    assert files._thread is None


@pytest.mark.asyncio
async def test_a_suggestion_goes_on_as_a_file_does_that_is_not_open(
    tmp_path: Path,
) -> None:
    """The server with the embedded model, its engine stepped by hand; the setting, to and fro."""
    desk = Desk(tmp_path / "work")
    rest = 'basket, ceiling=ORCHARD_LIMIT, grace="fortnight")'
    (desk.folder / "pricing.py").write_text(f"def reprice(basket):\n    {END}{rest}\n")
    desk.git("add", "pricing.py")
    text = f"def settle(basket):\n    {END}"
    uri = (desk.folder / "orders.py").as_uri()
    suggester = Suggester(Engine.load(device="cpu", n_threads=1), Settings(max_tokens=32))
    bench = Bench(suggester)

    async def suggested() -> list[str]:
        context = {"context": {"triggerKind": 1}}
        position = {"line": 1, "character": len(END) + 4}
        place = {"textDocument": {"uri": uri}, "position": position}
        request = bench.ask("textDocument/inlineCompletion", place | context)

        async def step() -> None:
            while suggester.engine.step() or not bench.answers(request):
                await bench.settle()

        await asyncio.wait_for(step(), TIMEOUT_S)
        return [item["insertText"] for item in bench.result(request)["items"]]

    async def set_to(reads: bool) -> None:
        section = {"readWorkspace": reads, "invokedDeadlineMs": 60_000}
        bench.tell("workspace/didChangeConfiguration", {"settings": {"keystate": section}})
        await bench.settle()

    try:
        await bench.initialized({"readWorkspace": False, "invokedDeadlineMs": 60_000})
        await bench.load()
        opened = {"uri": uri, "languageId": "python", "version": 0, "text": text}
        bench.tell("textDocument/didOpen", {"textDocument": opened})
        await bench.settle()
        alone = await suggested()
        await set_to(True)
        await suggested()
        looking = bench.server.files.looking
        assert looking is not None
        await asyncio.wait_for(asyncio.wrap_future(looking), TIMEOUT_S)
        assert rest in await suggested()
        await set_to(False)
        assert await suggested() == alone
        assert rest not in alone
    finally:
        bench.server.files.close()
        bench.close()
        suggester.close()
