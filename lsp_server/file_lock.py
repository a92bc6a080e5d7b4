"""A lock between processes: on an open file, until it is closed or its process is gone."""

from __future__ import annotations

import sys
from typing import IO


def lock(file: IO[str]) -> None:
    """Lock a file for as long as it is open; OSError if somebody else has. Others can read it."""
    if sys.platform == "win32":
        import msvcrt

        # Far behind what is in it: there a locked byte cannot be read.
        file.seek(2**20)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
