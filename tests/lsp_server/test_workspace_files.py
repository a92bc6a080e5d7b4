"""Passages of files that are not open: what is known of them, and what the editor knows better."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from engine.engine import Engine
from lsp_server import tracked_files, workspace_files
from lsp_server.documents import Change, Document, Position
from lsp_server.git import ask_git
from lsp_server.repository_text import LOOK_AGAIN_S
from lsp_server.settings import Settings
from lsp_server.suggestions import Suggester
from lsp_server.syntax import language_id_of
from lsp_server.tracked_files import Repository, key_of
from lsp_server.workspace_files import NICENESS
from tests.lsp_server.desk import END, TIMEOUT_S, Desk, edit, line
from tests.lsp_server.server_bench import Bench

if TYPE_CHECKING:
    from pathlib import Path


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


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no priority")
def test_a_thread_that_gives_way_more_stays_so() -> None:
    def stays() -> int:
        own = os.PRIO_PROCESS, threading.get_native_id()
        os.setpriority(*own, NICENESS + 5)
        workspace_files._be_nice()
        return os.getpriority(*own)

    # Of one thread alone.
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(stays).result(TIMEOUT_S) == NICENESS + 5


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
