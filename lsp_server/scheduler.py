"""Newest wins: at most one request of a document is worked on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


class Scheduler:
    """The work in progress, by document. To be used from one event loop."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[Any]] = {}

    async def newest(self, key: str, work: Coroutine[object, object, T]) -> T | None:
        """Run `work` in place of what runs for this key; None once it is superseded itself.

        To be called in a task, which does the work itself: handing it to another and back again
        takes turns of the loop.
        """
        self.supersede(key)
        task = asyncio.current_task()
        assert task is not None, "it is awaited in a task"
        self._tasks[key] = task
        try:
            return await work
        except asyncio.CancelledError:
            if self._tasks.get(key) is not task:
                return None
            raise
        finally:
            if self._tasks.get(key) is task:
                del self._tasks[key]

    def is_busy(self, key: str) -> bool:
        return key in self._tasks

    def supersede(self, key: str) -> None:
        """Cancel the work for this key, which is answered with None."""
        task = self._tasks.pop(key, None)
        if task is not None:
            task.cancel()
