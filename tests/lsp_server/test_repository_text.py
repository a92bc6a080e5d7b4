"""When a repository's files are read again, and which of them where they are too many."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from lsp_server import tracked_files, workspace_files
from lsp_server.repository_text import LOOK_AGAIN_S, MOVE_AGAIN_S
from lsp_server.tracked_files import Repository
from tests.lsp_server.desk import END, TIMEOUT_S, Desk, line

if TYPE_CHECKING:
    import pytest


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
