"""Which of a repository's files are read, and which never."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lsp_server import tracked_files
from lsp_server.settings import Settings
from lsp_server.tracked_files import MAX_FILE_BYTES, MAX_LINE_CHARS
from tests.lsp_server.desk import Desk, line


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
