"""What a document's URI says about where it lies."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable


def path_of(uri: str) -> str:
    """The path that a URI names, with slashes; of one that cannot be read, its last part alone."""
    try:
        return unquote(urlsplit(uri).path)
    except ValueError:
        # A bracket in the host that is not closed, say.
        return unquote(uri.rpartition("/")[2])


def path_on_disk(uri: str) -> Path | None:
    """The file that a URI names on this machine; None for any other."""
    # Brings an HTTP client with it, which no start should wait for.
    from urllib.request import url2pathname

    try:
        parts = urlsplit(uri)
    except ValueError:
        return None
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None


def path_in_prompts(uri: str, roots: Iterable[str]) -> str:
    """A document's path below the innermost folder that holds it, else its name alone."""
    path = PurePosixPath(path_of(uri))
    for root in sorted(roots, key=len, reverse=True):
        folder = PurePosixPath(path_of(root))
        if path != folder and path.is_relative_to(folder):
            return str(path.relative_to(folder))
    return path.name
