"""Which files hold secrets by their name, and where what is kept about the others lies.

Nothing of them is told to the model while another file is edited, either: `surroundings.py`.
"""

from __future__ import annotations

import os
import sys
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path

# Of these nothing is ever written to disk. Both editor clients have the same lists.
SECRET_NAMES = (
    ".env*",
    "*.env",
    "*.env.*",
    "*.pem",
    "*.key",
    "*.p8",
    "*.p12",
    "*.pfx",
    "*.keystore",
    "*.jks",
    "*.kdbx",
    "*.ppk",
    "id_rsa*",
    "id_dsa*",
    "id_ed25519*",
    "id_ecdsa*",
    ".netrc",
    ".pgpass",
    ".npmrc",
    ".pypirc",
    ".git-credentials",
    ".htpasswd",
    ".vault-token",
    "*.tfvars*",
    "*.tfstate*",
    "credentials*",
    "service-account*.json",
    "client_secret*.json",
    "secrets*",
    "*secrets.*",
    # One secret is as often a class or a module as a value.
    "*secret.json",
    "*secret.yaml",
    "*secret.yml",
    "*secret.toml",
    "*secret.ini",
    "*secret.txt",
    "*secret.properties",
)
# Nor of anything below these.
SECRET_FOLDERS = (".ssh", ".aws", ".kube", ".gnupg", ".docker")
# With this in its environment a server leaves the user's states as they are: for measurements.
STATES, NO_STATES = "KEYSTATE_STATES", "none"


@lru_cache(1024)
def is_secret(path: str) -> bool:
    """Whether a file's name, or a folder in its path, says that it holds secrets."""
    *folders, name = path.replace("\\", "/").lower().split("/")
    if not set(SECRET_FOLDERS).isdisjoint(folders):
        return True
    return any(fnmatch(name, pattern) for pattern in SECRET_NAMES)


def has_states() -> bool:
    """Whether states may be kept, taken up or deleted at all, whatever the settings say."""
    return os.environ.get(STATES) != NO_STATES


def states_folder() -> Path:
    """Where states outlast the process: in the user's cache folder. OSError where there is none."""
    return _user_folder("XDG_CACHE_HOME", ".cache", mac="Caches") / "states"


def statistics_path() -> Path:
    """The user's file of numbers: in the state folder. OSError where there is none."""
    folder = _user_folder("XDG_STATE_HOME", ".local/state", mac="Application Support")
    return folder / "statistics.json"


def _user_folder(variable: str, default: str, *, mac: str) -> Path:
    """One of the user's folders, by the platform's custom."""
    given = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else variable)
    try:
        if sys.platform == "win32":
            base = Path(given or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / mac
        elif given and os.path.isabs(given):
            base = Path(given)
        else:
            base = Path.home() / default
    except RuntimeError as error:
        # As in a container, for a user that it does not know.
        raise OSError(f"the user has no home folder: {error}") from error
    return base / "keystate"
