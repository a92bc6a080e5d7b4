"""The text of a repository in one language family, indexed, and when it is read again.

Not for the event loop, but for what is said of that.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lsp_server.tracked_files import Repository, folder_of, key_of
from lsp_server.uris import path_on_disk

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from threading import Event

    from engine.text_index import TextIndex
    from lsp_server.tracked_files import Stamp

logger = logging.getLogger(__name__)

# After so long what was found is looked at again: files, or that there are none.
LOOK_AGAIN_S = 300.0
# Other files of the same repository are read, or those of one too many again, no oftener.
MOVE_AGAIN_S = 60.0

Place = tuple[Repository, str]
"""A repository and a language family."""


@dataclass(kw_only=True, eq=False)
class RepositoryText:
    """What was read at one place, and of which files. Nothing in it but `changed` changes."""

    index: TextIndex | None
    """None where there was nothing to read."""
    names: tuple[str, ...]
    """The files in the index by their paths in the repository, in its order."""
    keys: tuple[str, ...]
    """The same files by `key_of`, which is what orders them."""
    folders: frozenset[str]
    """Those of the files, and that which they were chosen for."""
    is_partial: bool
    """Whether there is more than was read."""
    listed: list[str]
    """All files that there were, and those looked at as they were then."""
    stamps: Mapping[str, Stamp | None]
    made_s: float
    checked_s: float
    """When it was as on disk."""
    changed: frozenset[int] = frozenset()
    """Numbers of files that are known not to be."""

    def __post_init__(self) -> None:
        self._numbers = {key: number for number, key in enumerate(self.keys)}

    def passages(
        self, before: str, after: str, own: str, others: Collection[str]
    ) -> tuple[str, ...]:
        """What files say as on disk, but for the document's `own` and `others`, by key.

        For any thread: takes microseconds.
        """
        if self.index is None:
            return ()
        left_out = {self._numbers[key] for key in (own, *others) if key in self._numbers}
        near = min(bisect_left(self.keys, own), len(self.keys) - 1)
        return self.index.passages(before, after, near=near, without=left_out | self.changed)

    def has(self, key: str) -> bool:
        """Whether a file is in the index."""
        return key in self._numbers

    def is_other(self, key: str, text: str) -> bool:
        """Whether the text of a file in the index was not this one when it was read."""
        assert self.index is not None, "only files in an index are asked about"
        return not self.index.holds(self._numbers[key], text)

    def serves(self, folder: str) -> bool:
        """Whether another would be no better for a document in this folder."""
        return not self.is_partial or folder in self.folders

    def compare(self, repository: Repository, listed: list[str]) -> bool:
        """Whether all is still as it was read; what is not counts as changed from now on."""
        different = {name for name, stamp in self.stamps.items() if repository.stamp(name) != stamp}
        gone = set(self.listed).difference(listed)
        self.changed |= {
            number for number, name in enumerate(self.names) if name in different | gone
        }
        return not different and listed == self.listed


@dataclass(frozen=True, kw_only=True)
class Look:
    """What was found around a document."""

    looked_s: float
    place: Place | None = None
    """None where there is no repository, or none that can be read."""
    folder: str = ""
    """Where in the repository the document lies."""
    text: RepositoryText | None = None


def look_around(
    uri: str,
    family: str,
    exclude: tuple[str, ...],
    known: Mapping[Place, RepositoryText],
    now_s: float,
    stop: Event,
) -> Look:
    """Find the repository that a document lies in, and read of it what is not `known`.

    Raises what `ask_git` does, CancelledError once `stop` is set, and MemoryError.
    """
    path = path_on_disk(uri)
    repository = None if path is None else Repository.around(path.parent)
    if path is None or repository is None:
        return Look(looked_s=now_s)
    look = Look(looked_s=now_s, place=(repository, family), folder=repository.folder(path.parent))
    text = known.get((repository, family))
    if text is None:
        return replace(look, text=_read(look, repository.files(family), exclude, stop))
    may_stay = text.serves(look.folder) or now_s - text.made_s < MOVE_AGAIN_S
    if may_stay and now_s - text.checked_s < LOOK_AGAIN_S:
        return replace(look, text=text)
    listed = repository.files(family)
    is_same = text.compare(repository, listed)
    if may_stay and is_same:
        return replace(look, text=replace(text, checked_s=now_s))
    return replace(look, text=_read(look, listed, exclude, stop))


def _read(look: Look, listed: list[str], exclude: tuple[str, ...], stop: Event) -> RepositoryText:
    # numpy, which nothing should wait for that can do without.
    from engine.text_index import TextIndex

    assert look.place is not None, "only a repository has files"
    repository, _ = look.place
    read = repository.read(listed, look.folder, exclude, stop)
    by_key = {key_of(repository.real / name): name for name in read.texts}
    by_key = dict(sorted(by_key.items()))
    names = tuple(by_key.values())
    if stop.is_set():
        raise CancelledError
    text = RepositoryText(
        index=TextIndex([read.texts[name] for name in names]) if names else None,
        names=names,
        keys=tuple(by_key),
        folders=frozenset({look.folder, *map(folder_of, names)}),
        is_partial=read.is_partial,
        listed=listed,
        stamps=read.stamps,
        made_s=look.looked_s,
        checked_s=look.looked_s,
    )
    n_chars = sum(map(len, read.texts.values()))
    logger.info(
        "read %d files, %d characters, of the repository %s", len(names), n_chars, repository.real
    )
    return text
