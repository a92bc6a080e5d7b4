"""Which files hold secrets by their name, and where what is kept about the others lies.

Nothing of them is told to the model while another file is edited, either: `surroundings.py`.
"""

from __future__ import annotations

import os
import sys
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path

# Of these nothing is ever written to disk.
SECRET_NAMES = (
    ".env*",
    "*.pem",
    "*.key",
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
    "credentials*",
    "secrets*",
)


@lru_cache(1024)
def is_secret(path: str) -> bool:
    """Whether a file's name says that it holds secrets."""
    name = path.replace("\\", "/").rpartition("/")[2].lower()
    return any(fnmatch(name, pattern) for pattern in SECRET_NAMES)


def states_folder() -> Path:
    """Where states outlast the process: in the user's cache folder."""
    return _user_folder("XDG_CACHE_HOME", ".cache", mac="Caches") / "states"


def statistics_path() -> Path:
    """The user's file of numbers: in the state folder."""
    folder = _user_folder("XDG_STATE_HOME", ".local/state", mac="Application Support")
    return folder / "statistics.json"


def _user_folder(variable: str, default: str, *, mac: str) -> Path:
    """One of the user's folders, by the platform's custom."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / mac
    else:
        base = Path(os.environ.get(variable) or Path.home() / default)
    return base / "keystate"
