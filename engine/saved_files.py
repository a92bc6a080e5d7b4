"""The files of saved states in a folder: which of them are ours, and which go.

Nothing is touched that has not a name such as we give, nor what a link leads to. Several processes
may be at work there: a file that has gone meanwhile is deleted all the same.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from logging import getLogger
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Set
    from pathlib import Path

log = getLogger(__name__)

# What a model's folder and the files in it are called: `warm_restart.py` gives the names.
_FOLDER_NAME = re.compile(r"[0-9a-f]{16}-torch\.\w+(-\w+-weights)?(-int8)?")
_FILE_NAME = re.compile(r"[0-9a-f]{32}\.safetensors(\.part)?")
UNUSED_S = 30 * 24 * 3600.0


class SavedFile(NamedTuple):
    """Older ones are less than newer ones."""

    changed_s: float
    n_bytes: int
    path: Path


def saved_files(folder: Path) -> list[SavedFile]:
    """List our files in a model's folder."""
    found = []
    for entry in _entries(folder):
        if _FILE_NAME.fullmatch(entry.name):
            try:
                status = entry.stat(follow_symlinks=False)
                is_file = entry.is_file(follow_symlinks=False)
            except OSError:
                continue
            if is_file:
                found.append(SavedFile(status.st_mtime, status.st_size, folder / entry.name))
    return found


def delete(path: Path) -> None:
    """Delete a file; one that cannot be is logged."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("a saved state was not deleted: %s", error)


def forget_states(parent: Path) -> None:
    """Delete what was saved below `parent`, of all models."""
    for folder in _model_folders(parent):
        _forget(folder)


def mark_used(folder: Path) -> None:
    """Note that a model is used, whose states lie there; models long unused lose theirs."""
    # Most likely there is none yet.
    with suppress(OSError):
        os.utime(folder)
    for other in _model_folders(folder.parent):
        try:
            unused_s = time.time() - other.stat().st_mtime
        except OSError:
            continue
        if other != folder and unused_s > UNUSED_S:
            _forget(other)


class Leftovers:
    """What was saved before, which goes when there is no room for it.

    What is being replaced in the model's own folder goes first; then the oldest of all.
    """

    def __init__(
        self, folder: Path, kept: Set[Path], is_replaced: Callable[[SavedFile], bool]
    ) -> None:
        """`folder`: of one model; `kept`: of its files those that stay, also such as come later."""
        others = [other for other in _model_folders(folder.parent) if other != folder]
        own = [file for file in saved_files(folder) if file.path not in kept]
        replaced = sorted(filter(is_replaced, own))
        older = [file for other in others for file in saved_files(other)]
        older += [file for file in own if not is_replaced(file)]
        # The last goes first.
        self._files = sorted(older, reverse=True) + replaced[::-1]
        self._kept = kept
        self._n_bytes = sum(file.n_bytes for file in self._files)

    def shrink(self, max_bytes: int) -> None:
        """Delete until there is no more than this."""
        while self._files and self._n_bytes > max_bytes:
            file = self._files.pop()
            self._n_bytes -= file.n_bytes
            if file.path not in self._kept:
                delete(file.path)


def _model_folders(parent: Path) -> Iterator[Path]:
    for entry in _entries(parent):
        if _FOLDER_NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
            yield parent / entry.name


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []
    except OSError as error:
        log.warning("saved states were not looked through: %s", error)
        return []


def _forget(folder: Path) -> None:
    for file in saved_files(folder):
        delete(file.path)
    # It holds somebody's files, or another process has just saved there.
    with suppress(OSError):
        folder.rmdir()
