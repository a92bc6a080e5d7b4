from __future__ import annotations

import re
from pathlib import Path

import pytest

from lsp_server.documents import Document
from lsp_server.private_files import SECRET_FOLDERS, SECRET_NAMES, is_secret, states_folder

CLIENTS = Path(__file__).parents[2] / "editor-clients"


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
        ("prod.env", True),
        ("prod.env.local", True),
        ("terraform.tfvars", True),
        ("db.auto.tfvars.json", True),
        ("terraform.tfstate.backup", True),
        ("AuthKey_X.p8", True),
        ("my_secrets.yaml", True),
        ("db.secret.yaml", True),
        ("client_secret_12.apps.json", True),
        (".vault-token", True),
        ("service-account-ci.json", True),
        ("/home/me/.aws/config", True),
        ("C:\\Users\\me\\.SSH\\config", True),
        (".docker/config.json", True),
        ("environment.py", False),
        ("app/models.py", False),
        ("pem.py", False),
        ("secret.go", False),
        ("Secret.java", False),
        ("aws/config.py", False),
        ("work/.ssh", False),
        ("vite-env.d.ts", False),
    ],
)
def test_secrets_are_known_by_name(path: str, secret: bool) -> None:
    assert is_secret(path) == secret


def test_a_documents_whole_path_counts() -> None:
    """In prompts it is called by what is below the workspace's folder."""
    assert Document("file:///home/me/.kube/sub/config", "yaml", 1, "", "sub/config").is_secret
    assert Document("file:///home/me/w/%2Eenv", "yaml", 1, "", "x").is_secret
    assert Document("untitled:Untitled-1", "yaml", 1, "", ".env").is_secret
    assert not Document("file:///home/me/kube/config", "yaml", 1, "", "config").is_secret


@pytest.mark.parametrize(
    ("client", "names", "folders"),
    [
        ("neovim/lua/keystate/buffers.lua", "SECRET_NAMES = {", "SECRET_FOLDERS = {"),
        ("vscode/src/secrets.ts", "const NAMES = [", "const FOLDERS = ["),
    ],
    ids=["neovim", "vscode"],
)
def test_the_editors_clients_keep_away_from_the_same(client: str, names: str, folders: str) -> None:
    source = (CLIENTS / client).read_text()

    def listed(begin: str) -> list[str]:
        (inside,) = re.findall(re.escape(begin) + r"([^]}]*)[]}]", source)
        return re.findall('"([^"]+)"', inside)

    assert listed(names) == list(SECRET_NAMES)
    assert listed(folders) == list(SECRET_FOLDERS)


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


def test_a_path_that_is_not_absolute_is_no_folder_of_the_user_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert states_folder() == tmp_path / ".cache" / "keystate" / "states"
