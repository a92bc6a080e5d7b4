"""A person at a steady rate in an editor: keys become changes and requests as the editor has it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from perf.client import ResponseError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from perf.client import Client, Pending

KEYS_BETWEEN_RESTS = 10
# Longer than any editor waits, and than the server may take.
REST_S = 0.6
# How long the last answers may take.
END_S = 10.0
REQUEST_CANCELLED = -32800

Outcome = Literal["items", "empty", "null", "cancelled"]


@dataclass(frozen=True, kw_only=True)
class Editor:
    """What an editor makes of keys."""

    name: str
    wait_s: float
    """Rest after a key before the request; the next key starts it anew."""
    change_wait_s: float = 0.0
    """Changes are gathered for so long, but sent before a request."""
    cancels: bool = False
    """A key cancels what is under way, and its answer is not shown."""


@dataclass(kw_only=True)
class Asked:
    """A request, and what became of it. Times in seconds, by one clock."""

    id: int
    version: int
    changed_s: float
    """When the last change before it was sent."""
    typed_s: float | None = None
    """The first key after it, if that came before the answer."""
    superseded_s: float | None = None
    """When the first change, request or cancellation behind it was sent, before the answer."""
    is_cancelled: bool = False
    answered_s: float | None = None
    outcome: Outcome | None = None
    answered_version: int | None = None
    """The version that the server answered for, as it says; None where it does not."""

    @property
    def staleness(self) -> Literal["unsent", "crossed", "late"] | None:
        """Why it is stale; None if it is not."""
        if self.outcome != "items" or self.typed_s is None:
            return None
        if self.superseded_s is None:
            return "unsent"
        return "crossed" if self.answered_version == self.version else "late"


def keys_of(text: str, n_keys: int) -> list[str]:
    """The first keys to type a text with; Enter brings the next line's indentation along."""
    keys: list[str] = []
    for line in text.splitlines(keepends=True):
        rest = line.lstrip(" ")
        indentation = line[: len(line) - len(rest)]
        if keys:
            keys[-1] += indentation
            keys += rest
        else:
            keys += [indentation + rest[0], *rest[1:]]
    if len(keys) < n_keys:
        raise ValueError(f"{len(keys)} keys in the text, expected at least {n_keys}")
    return keys[:n_keys]


class Typist:
    """Types keys into one document that is open at version 0, as an editor does."""

    def __init__(self, client: Client, editor: Editor, uri: str, line: int) -> None:
        self._client = client
        self._editor = editor
        self._uri = uri
        # The cursor, for the editor and for the server.
        self._here = self._sent = (line, 0)
        self._unsent: list[dict[str, Any]] = []
        self._version = 0
        self._changed_s = time.perf_counter()
        self._change_timer: asyncio.TimerHandle | None = None
        self._ask_timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.asked: list[Asked] = []

    def press(self, key: str) -> None:
        """Put a key's text into the document; the rest follows by itself."""
        now_s = time.perf_counter()
        for one in self._open():
            one.typed_s = one.typed_s or now_s
        line, character = self._here
        at = {"line": line, "character": character}
        self._unsent.append({"range": {"start": at, "end": at}, "text": key})
        n_lines, last = key.count("\n"), key.rpartition("\n")[2]
        self._here = (line + n_lines, len(last) + (0 if n_lines else character))
        loop = asyncio.get_running_loop()
        if not self._editor.change_wait_s:
            self._send_change()
        elif self._change_timer is None:
            self._change_timer = loop.call_later(self._editor.change_wait_s, self._send_change)
        if self._ask_timer is not None:
            self._ask_timer.cancel()
        if self._editor.wait_s:
            self._ask_timer = loop.call_later(self._editor.wait_s, self._ask)
        else:
            self._ask()

    async def finish(self) -> None:
        """Wait for the last request, and for the answers."""
        await asyncio.sleep(self._editor.wait_s + self._editor.change_wait_s)
        if self._tasks:
            await asyncio.wait_for(asyncio.gather(*self._tasks), END_S)

    def _send_change(self) -> None:
        if self._change_timer is not None:
            self._change_timer.cancel()
            self._change_timer = None
        if not self._unsent:
            return
        self._supersede()
        self._client.change(self._uri, self._unsent)
        self._unsent = []
        self._version += 1
        self._changed_s = time.perf_counter()

    def _ask(self) -> None:
        self._send_change()
        self._supersede()
        pending = self._client.ask(self._uri, *self._here)
        asked = Asked(id=pending.id, version=self._version, changed_s=self._changed_s)
        self.asked.append(asked)
        task = asyncio.ensure_future(self._await(asked, pending))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _supersede(self) -> None:
        """Note that something newer is being sent; an editor that cancels does so now."""
        now_s = time.perf_counter()
        for one in self._open():
            one.superseded_s = one.superseded_s or now_s
            if self._editor.cancels and not one.is_cancelled:
                one.is_cancelled = True
                self._client.notify("$/cancelRequest", {"id": one.id})

    async def _await(self, asked: Asked, pending: Pending) -> None:
        try:
            answer = await pending
        except ResponseError as error:
            if error.code != REQUEST_CANCELLED:
                raise
            asked.outcome = "cancelled"
        else:
            result = answer.result
            asked.outcome = "null" if result is None else "items" if result["items"] else "empty"
        asked.answered_s = time.perf_counter()

    def _open(self) -> Iterable[Asked]:
        return (one for one in self.asked if one.answered_s is None)


async def type_keys(typist: Typist, keys: Sequence[str], per_second: float) -> None:
    """Press keys at a rate, with a rest after every few, and wait for the answers."""
    next_s = time.perf_counter()
    for n, key in enumerate(keys, start=1):
        await asyncio.sleep(next_s - time.perf_counter())
        typist.press(key)
        is_rest = n % KEYS_BETWEEN_RESTS == 0
        next_s = max(next_s, time.perf_counter() - 1 / per_second)
        next_s += REST_S if is_rest else 1 / per_second
    await typist.finish()
