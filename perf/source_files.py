"""Source files that cases are cut from: a folder's, one alone, or those of a packed corpus."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lsp_server.syntax import language_id_of

if TYPE_CHECKING:
    from collections.abc import Iterator

# What is larger was not written by hand.
MAX_FILE_BYTES = 300_000
_SKIPPED_DIRECTORIES = frozenset({"node_modules", "__pycache__", "build", "dist", "target"})


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A file that cases are cut from; `path` is what prompts call it."""

    path: str
    text: str


def read_sources(source: Path) -> list[SourceFile]:
    """The source files of a path: a packed corpus, a folder's, or the one file that it is."""
    if source.suffix == ".npz":
        return list(packed_files(source))
    if source.is_file():
        text = _as_source(source.read_bytes())
        return [] if text is None else [SourceFile(path=source.name, text=text)]
    found = []
    for path in source_paths(source):
        text = _as_source(path.read_bytes())
        if text is not None:
            found.append(SourceFile(path=path.relative_to(source).as_posix(), text=text))
    return found


def packed_files(path: Path) -> Iterator[SourceFile]:
    """The files of a packed corpus: their bytes one after the other, offsets, and names."""
    # Nothing in it is unpickled: that is numpy's default.
    with np.load(path) as arrays:
        text, offsets = arrays["text"], arrays["offsets"]
        names = bytes(arrays["names"]).decode("utf-8").split("\n")
    for name, start, end in zip(names, offsets[:-1], offsets[1:], strict=True):
        yield SourceFile(path=name, text=bytes(text[start:end]).decode("utf-8"))


def half_of(path: str) -> str:
    """Which half of held-out files one is in: "calibration", or "results".

    What a model's makers fit on held-out files (how far copying is trusted, which confidence is
    worth showing) they fit on the one, so that figures may come from the other.
    """
    is_even = hashlib.sha256(path.encode("utf-8")).digest()[0] % 2 == 0
    return "calibration" if is_even else "results"


def source_paths(directory: Path) -> Iterator[Path]:
    """The files below a directory that may be source somebody typed, in a fixed order."""
    for root, directories, names in os.walk(directory):
        directories[:] = sorted(
            name
            for name in directories
            if not name.startswith(".") and name not in _SKIPPED_DIRECTORIES
        )
        for name in sorted(names):
            path = Path(root, name)
            if language_id_of(name) != "plaintext" and path.stat().st_size <= MAX_FILE_BYTES:
                yield path


def _as_source(content: bytes) -> str | None:
    """The text of a file that somebody may have typed; None for any other."""
    if b"\0" in content or not content.strip():
        return None
    try:
        return content.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError:
        return None
