from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lsp_server.private_files import is_secret, states_folder

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("path", "secret"),
    [
        (".env", True),
        ("app/.env.local", True),
        ("C:\\keys\\Server.PEM", True),
        ("id_rsa", True),
        ("a/id_rsa.pub", True),
        ("secrets.py", True),
        ("home/.git-credentials", True),
        ("vault.KDBX", True),
        ("environment.py", False),
        ("app/models.py", False),
        ("pem.py", False),
    ],
)
def test_secrets_are_known_by_name(path: str, secret: bool) -> None:
    assert is_secret(path) == secret


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_states_lie_in_the_users_cache(
    platform: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", platform)
    for variable in ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    folder = states_folder()
    assert folder.is_relative_to(tmp_path)
    assert "keystate" in folder.parts
