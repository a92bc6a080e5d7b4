"""Files for their owner alone: their rights, and what stands in their way."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from engine.owner_file import write_owner_file

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "own").mkdir()
    return tmp_path / "own" / "states.bin"


def test_what_is_there_lends_its_rights_to_nothing(path: Path) -> None:
    old = os.umask(0)
    try:
        for there in (path, path.with_name(f"{path.name}.part")):
            there.touch()
            there.chmod(0o666)
        write_owner_file(path, b"\n\0one")
    finally:
        os.umask(old)
    assert path.read_bytes() == b"\n\0one"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_links_are_replaced_and_not_followed(path: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for link in (path, path.with_name(f"{path.name}.part")):
        link.symlink_to(precious)
    write_owner_file(path, b"one")
    assert precious.read_text() == "mine"
    assert not path.is_symlink()
    assert path.read_bytes() == b"one"


def test_it_is_replaced_as_a_whole(path: Path) -> None:
    write_owner_file(path, b"one")
    with path.open("rb") as read_by_another:
        write_owner_file(path, b"two and more")
        assert read_by_another.read() == b"one"
    path.with_name(f"{path.name}.part").mkdir()
    with pytest.raises(OSError, match="part"):
        write_owner_file(path, b"three")
    assert path.read_bytes() == b"two and more"
