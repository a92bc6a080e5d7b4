"""Downloads by the real hub's client, from a hub on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine.checkpoint import CheckpointError, resolve_model
from tests.loopback_hub import serve_folder

if TYPE_CHECKING:
    from pathlib import Path

HUB_ID = "owner/tiny"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name, n_bytes in (("config.json", 100), ("model.safetensors", 2**20), ("weights.bin", 9)):
        (folder / name).write_bytes(bytes(n_bytes))
    return folder


def test_what_is_wanted_comes_once_with_progress(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shares: list[float] = []
    with serve_folder(folder, HUB_ID, tmp_path / "cache", monkeypatch) as downloaded:
        path = resolve_model(HUB_ID, shares.append)
        assert sorted(downloaded) == ["config.json", "model.safetensors"]
        assert resolve_model(HUB_ID, shares.append) == path
        assert len(downloaded) == 2
    for file in path.iterdir():
        assert file.read_bytes() == (folder / file.name).read_bytes()
    assert {file.name for file in path.iterdir()} == {*downloaded}
    assert len(shares) > 10
    assert all(0 <= share <= 1 for share in shares)
    # The bulk is the weights, in several parts.
    assert sum(0.1 < share < 0.9 for share in shares) > 5
    assert shares[-1] == 1.0
    # A server's stderr is a log.
    assert capfd.readouterr().err == ""


def test_what_the_hub_does_not_have(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        serve_folder(folder, HUB_ID, tmp_path / "cache", monkeypatch),
        pytest.raises(CheckpointError, match=r"owner/other.*name a directory"),
    ):
        resolve_model("owner/other", lambda _share: None)
