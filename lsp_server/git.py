"""Git, asked in a way that no repository can make it do anything else."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT_S = 5.0


def ask_git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """What git answers in a folder, and its exit status; not for the event loop.

    Raises OSError where there is no git or no such folder, subprocess.TimeoutExpired after 5 s.
    """
    # A repository's own settings must not make git run anything.
    command = ("git", "-c", "core.fsmonitor=false", *arguments)
    # An editor that git started, to write a commit message, hands its repository down.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    # Nor fetch what a partial clone has left out.
    environment["GIT_NO_LAZY_FETCH"] = "1"
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=TIMEOUT_S,
        check=False,
    )
