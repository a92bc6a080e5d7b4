"""The files of a git repository that may be read: which they are, and their text.

Only what git tracks, so that no folder is ever searched. Never links nor what lies behind one,
nor files whose names say that they hold secrets, nor excluded ones. Not for the event loop.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lsp_server.documents import with_unix_newlines
from lsp_server.filters import excluding_glob
from lsp_server.git import ask_git
from lsp_server.private_files import is_secret
from lsp_server.syntax import SYNTAXES, language_id_of
from lsp_server.workspace_index import family_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from threading import Event

# Of all files together, and of one; a longer line is not written by hand.
MAX_BYTES = 4_000_000
MAX_FILE_BYTES = 200_000
MAX_LINE_CHARS = 2_000

Stamp = tuple[int, int]
"""Bytes of a file, and when it was last changed, in ns."""


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A work tree, by the path that its user has for it and by the one without links."""

    named: Path
    real: Path

    @classmethod
    def around(cls, folder: Path) -> Repository | None:
        """The innermost one that a folder lies in; None if in none. Raises as `ask_git` does."""
        if not folder.is_dir():
            # Where a new file will lie, maybe.
            return None
        done = ask_git(folder, "rev-parse", "--show-toplevel")
        if done.returncode:
            return None
        real = os.path.realpath(os.fsdecode(done.stdout.removesuffix(b"\n")))
        for named in (folder, *folder.parents):
            if os.path.realpath(named) == real:
                return cls(named=named, real=Path(real))
        return cls(named=Path(real), real=Path(real))

    def folder(self, folder: Path) -> str:
        """Where a folder lies in it, with slashes; empty for the topmost, and for any outside."""
        real = Path(os.path.realpath(folder))
        inside = real != self.real and real.is_relative_to(self.real)
        return real.relative_to(self.real).as_posix() if inside else ""

    def files(self, family: str) -> list[str]:
        """The tracked files of a language family, by their paths in it. Raises OSError."""
        done = ask_git(self.real, "ls-files", "-z", "--cached", "--no-recurse-submodules")
        if done.returncode:
            raise OSError(f"git ls-files ended with {done.returncode}")
        # Of a file in conflict there are several versions.
        names = sorted(set(os.fsdecode(done.stdout).split("\0")))
        return [name for name in names if _family(name) == family]

    def stamp(self, name: str) -> Stamp | None:
        """What tells whether a file has changed; None for what is no regular file."""
        try:
            status = os.lstat(self.real / name)
        except OSError:
            return None
        return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None

    def read(self, names: Sequence[str], near: str, exclude: Sequence[str], stop: Event) -> Texts:
        """Read files until there are 4,000,000 bytes, those nearest to a folder first.

        The more folders in common, the nearer; of equals the one changed last. Raises
        CancelledError once `stop` is set.
        """
        stamps = {name: self.stamp(name) for name in names}
        texts: dict[str, str] = {}
        tried: dict[str, Stamp | None] = {}
        n_bytes, is_partial = 0, False
        plain_folders: dict[str, bool] = {}
        here = near.split("/")

        def order(name: str) -> tuple[int, int]:
            return -n_common(here, folder_of(name).split("/")), -(stamps[name] or (0, 0))[1]

        for name in sorted(names, key=order):
            if stop.is_set():
                raise CancelledError
            tried[name] = stamps[name]
            folder = folder_of(name)
            if folder not in plain_folders:
                path = os.path.normcase(self.real / folder)
                plain_folders[folder] = os.path.normcase(os.path.realpath(path)) == path
            if not plain_folders[folder] or not self._may_be_read(name, exclude):
                continue
            text = self._text(name, stamps[name])
            size = len(text.encode())
            if n_bytes + size > MAX_BYTES:
                is_partial = True
                break
            if text.strip():
                texts[name] = text
                n_bytes += size
        return Texts(texts=texts, stamps=tried, is_partial=is_partial)

    def _may_be_read(self, name: str, exclude: Sequence[str]) -> bool:
        paths = [(top / name).as_posix() for top in (self.named, self.real)]
        if any(map(is_secret, paths)):
            return False
        # Globs are about paths below the workspace's folders, and any folder can be one.
        ends = [path[at:] for path in paths for at in _starts(path)]
        return not exclude or excluding_glob(exclude, *dict.fromkeys(ends)) is None

    def _text(self, name: str, stamp: Stamp | None) -> str:
        """A file's text with unix newlines; empty where it has none that a person wrote."""
        if stamp is None or stamp[0] > MAX_FILE_BYTES:
            return ""
        try:
            with open(self.real / name, "rb") as file:
                text = with_unix_newlines(file.read(MAX_FILE_BYTES).decode("utf-8-sig"))
        except (OSError, UnicodeDecodeError):
            return ""
        is_code = "\0" not in text and max(map(len, text.split("\n"))) <= MAX_LINE_CHARS
        return text if is_code else ""


@dataclass(frozen=True, kw_only=True)
class Texts:
    """What was read of a repository."""

    texts: dict[str, str]
    """By the file's path in it."""
    stamps: dict[str, Stamp | None]
    """Of all files that were looked at for it."""
    is_partial: bool
    """Whether there is more than was read."""


def key_of(path: str | os.PathLike[str]) -> str:
    """What two paths of one file have in common, on disks that know no upper case too."""
    return unicodedata.normalize("NFC", os.path.realpath(path)).casefold()


def folder_of(name: str) -> str:
    return name.rpartition("/")[0]


def _family(name: str) -> str | None:
    language_id = language_id_of(name)
    return family_of(language_id) if language_id in SYNTAXES else None


def n_common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many parts two paths have in common, from the topmost on."""
    n = 0
    while n < min(len(one), len(other)) and one[n] == other[n]:
        n += 1
    return n


def _starts(path: str) -> list[int]:
    """Where in a path it begins, and each of its parts."""
    return [0, *(at + 1 for at, character in enumerate(path) if character == "/")]
