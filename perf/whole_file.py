"""Files of figures and pictures: replaced as a whole, where it was looked beforehand."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


# Of the files of a report, which have one name otherwise.
ENDINGS = (".json", ".md", ".svg")


def with_ending(out: Path, ending: str) -> Path:
    """One of a report's files; its name may have dots, and one of these endings gives way."""
    return out.with_name((out.stem if out.suffix in ENDINGS else out.name) + ending)


def check_place(path: Path) -> None:
    """Raise ValueError where no file can be put: better before a long run than after it."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no file, expected the name of one, or of none yet")
    try:
        # Rights alone do not tell: a file system may be read-only, or none for files.
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"{path} cannot be written: {path.parent}: {reason}") from error


def write_whole(path: Path, text: str) -> None:
    """Replace a text file as a whole; if that fails (OSError), what was there stays."""
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_bytes(text.encode())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
