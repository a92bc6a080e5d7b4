"""A process that a comparison starts, looks at from outside, and ends."""

from __future__ import annotations

import subprocess
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from perf.process_usage import Usage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self


class PeerProcess(ABC):
    """A process. Use as `with PeerProcess(…) as process`: it is ended however the block ends."""

    def __init__(self, command: Sequence[str], **options: Any) -> None:
        """Start it, with options of `subprocess.Popen`; entering waits until it is ready."""
        self.started_s = time.perf_counter()
        self._process = subprocess.Popen(command, **options)

    def __enter__(self) -> Self:
        try:
            self._wait_until_ready()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def usage(self) -> Usage:
        return Usage.of(self._process.pid)

    @abstractmethod
    def _wait_until_ready(self) -> None:
        """Return once it answers; RuntimeError if it never will."""

    def _end(self) -> None:
        self._process.kill()
        # Closes its pipes as well.
        self._process.communicate()
