"""Messages between the stream they are read from and the loop that handles them."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

# Messages read ahead of the one being handled; past that, the pipe holds the client back.
MAX_READ_AHEAD = 64


class Inbox:
    """Hands messages to one loop, in order, and knows which are still to be handled."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, receive: Callable[[bytes, float], None]
    ) -> None:
        """`receive` gets a message and when it was read, by `time.monotonic()`; in the loop."""
        self._loop = loop
        self._receive = receive
        self._room = threading.BoundedSemaphore(MAX_READ_AHEAD)
        self._n_read = self._n_handled = 0
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()

    def put(self, body: bytes) -> None:
        """Take one message; blocks while there are too many. From one thread at a time."""
        self._room.acquire()
        self._n_read += 1
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._hand_over, body, time.monotonic())

    def once_handled(self, work: Callable[[], None]) -> None:
        """Do this as soon as all that was read by now has been handled, which may be now."""
        if self._n_handled >= self._n_read:
            work()
        else:
            self._waiting.append((self._n_read, work))

    def _hand_over(self, body: bytes, at_s: float) -> None:
        self._room.release()
        try:
            self._receive(body, at_s)
        finally:
            # The loop runs a handler up to its first wait before this: for a change, all of it.
            self._loop.call_soon(self._handled)

    def _handled(self) -> None:
        self._n_handled += 1
        while self._waiting and self._waiting[0][0] <= self._n_handled:
            _, work = self._waiting.popleft()
            work()
