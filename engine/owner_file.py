"""Files that their owner alone may read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


PART_SUFFIX = ".part"


def write_owner_file(path: Path, content: bytes) -> None:
    """Replace a file, or what is in its place, as a whole by one for its owner alone.

    It is written beside it, with `.part` behind its name; that is left there if it fails (OSError).
    """
    part = path.with_name(f"{path.name}{PART_SUFFIX}")
    # A file that is there keeps the rights it has, and a link leads elsewhere.
    part.unlink(missing_ok=True)
    with open(part, "xb", opener=owner_opener) as file:
        file.write(content)
    part.replace(path)


def owner_opener(path: str, flags: int) -> int:
    """An opener for `open` whose new files are for their owner alone."""
    return os.open(path, flags, 0o600)
