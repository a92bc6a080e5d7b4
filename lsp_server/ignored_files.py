"""Which files git ignores: asked of git itself, once a file, off the event loop."""

from __future__ import annotations

import logging
import os
import subprocess
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from lsp_server.git import ask_git
from lsp_server.private_files import is_secret
from lsp_server.uris import path_on_disk

if TYPE_CHECKING:
    from concurrent.futures import Future

logger = logging.getLogger(__name__)

# Files whose answer is remembered; far more than are asked about at one time.
MAX_FILES = 512


class IgnoredFiles:
    """Answers that are there at once: what git has not been heard on yet counts as ignored."""

    def __init__(self) -> None:
        # The last asked for last.
        self._answers: OrderedDict[str, Future[bool]] = OrderedDict()
        self._thread: ThreadPoolExecutor | None = None

    def is_ignored(self, uri: str) -> bool:
        """Whether this file must not be read; True also for what is no file on this machine."""
        answer = self.answer(uri)
        return not answer.done() or answer.cancelled() or answer.result()

    def answer(self, uri: str) -> Future[bool]:
        """Git's answer, to be waited for; asked for now unless it was before."""
        answer = self._answers.get(uri)
        if answer is None:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="git")
            answer = self._answers[uri] = self._thread.submit(_is_ignored, uri)
        self._answers.move_to_end(uri)
        while len(self._answers) > MAX_FILES:
            # Git need not run for what nobody asks about any more.
            self._answers.popitem(last=False)[1].cancel()
        return answer

    def forget(self, uri: str) -> None:
        """Ask again when this file is opened again: what git ignores may have changed."""
        answer = self._answers.pop(uri, None)
        if answer is not None:
            answer.cancel()

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)


def _is_ignored(uri: str) -> bool:
    """Ask git of a file and of what it links to; where it cannot tell, all of a repository is."""
    try:
        path = path_on_disk(uri)
        if path is None:
            return True
        if not path.parent.is_dir():
            return False
        if _ask_git(path):
            return True
        real = Path(os.path.realpath(path))
        return real != path and (is_secret(str(real)) or _ask_git(real))
    except (OSError, ValueError) as error:
        logger.warning("not used for other files, git cannot tell of it: %s", error)
        return True


def _ask_git(path: Path) -> bool:
    try:
        done = ask_git(path.parent, "check-ignore", "--quiet", "--", path.name)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return _is_in_a_repository(path)
    if done.returncode in (0, 1):
        return done.returncode == 0
    return _is_in_a_repository(path)


def _is_in_a_repository(path: Path) -> bool:
    return any((folder / ".git").exists() for folder in path.parents)
