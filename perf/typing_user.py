"""A user who types a part of a file again, and takes a suggestion when it is what comes next."""

from __future__ import annotations

import asyncio
import random
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from lsp_server.documents import Change, Document, Position
from perf.client import INVOKED, Answer, Client, ResponseError

if TYPE_CHECKING:
    from collections.abc import Iterator

# One press of a key: Enter brings the next line's indentation along, as editors do.
_KEYSTROKE = re.compile(r"(?:\r?\n|^)[ \t]*|.", re.DOTALL)
# A shorter suggestion is typed faster than it is read.
MIN_ACCEPTED_CHARS = 2


class View(Protocol):
    """Where a replay is shown."""

    def loading(self, elapsed_s: float) -> None:
        """The model is not ready yet."""

    def answered(self, document: Document, offset: int, ghost: str, latency_ms: float) -> None:
        """A suggestion, or none, for the document with its cursor at `offset`."""

    def accepted(self, document: Document, offset: int, n_chars: int) -> None:
        """The user took the suggestion; the cursor is behind it."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast someone types; zeros are as fast as the server answers."""

    keystroke_s: float
    reading_s: float

    def next_s(self, keystroke: str, dice: random.Random) -> float:
        """The pause after a keystroke: longer where a word or a line begins."""
        mean = self.keystroke_s * (2.0 if keystroke[:1] in "\r\n " else 1.0)
        return mean * dice.uniform(0.6, 1.4)


BRISK = Pace(keystroke_s=0.08, reading_s=0.45)
FULL_SPEED = Pace(keystroke_s=0.0, reading_s=0.0)


@dataclass(kw_only=True)
class Tally:
    """What happened during a replay."""

    first_suggestion_s: float | None = None
    """From the start of the server's process."""
    latencies_ms: list[float] = field(default_factory=list)
    """Of every request whose answer was not overtaken by a keystroke."""
    n_keystrokes: int = 0
    n_overtaken: int = 0
    n_shown: int = 0
    n_accepted: int = 0
    n_accepted_chars: int = 0


class TypingUser:
    """Types `missing` into a document, from `offset` on, against a server."""

    def __init__(
        self,
        client: Client,
        document: Document,
        offset: int,
        missing: str,
        *,
        pace: Pace,
        view: View,
    ) -> None:
        self._client = client
        self._document = document
        self._offset = offset
        self._missing = missing
        self._pace = pace
        self._view = view
        # The same pauses every time.
        self._dice = random.Random(0)
        self.tally = Tally()

    async def run(self) -> Tally:
        """Open the document, wait for the model, type, accept; gives the tally."""
        document = self._document
        self._client.open(document.uri, document.language_id, document.text)
        await self._until_ready()
        while self._missing:
            keystroke = _first_keystroke(self._missing)
            self._insert(keystroke)
            self.tally.n_keystrokes += 1
            pause_s = self._pace.next_s(keystroke, self._dice)
            ghost = await self._ghost(pause_s)
            if len(ghost) >= MIN_ACCEPTED_CHARS and self._missing.startswith(ghost):
                await asyncio.sleep(self._pace.reading_s)
                self._insert(ghost)
                self.tally.n_accepted += 1
                self.tally.n_accepted_chars += len(ghost)
                self._view.accepted(document, self._offset, len(ghost))
        return self.tally

    async def _until_ready(self) -> None:
        """Ask until the model is loaded; raises ValueError with the server's words if it fails."""
        while True:
            pending = self._client.ask(self._document.uri, *self._cursor, INVOKED)
            answer = asyncio.ensure_future(_answer(pending))
            while not (await asyncio.wait([answer], timeout=0.1))[0]:
                self._view.loading(time.perf_counter() - self._client.started_s)
            ghost = _text_of(answer.result())
            if ghost:
                self._shown(ghost, answer.result().latency_ms)
            for message in self._client.notifications:
                if message["method"] == "window/showMessage" and message["params"]["type"] == 1:
                    raise ValueError(message["params"]["message"])
            stops = [timing["stop"] for timing in await self._client.last_timings()]
            if stops and stops[-1] != "loading":
                return

    async def _ghost(self, pause_s: float) -> str:
        """Ask for a suggestion and look at it for a while; "" if the next keystroke came first."""
        asked_s = time.perf_counter()
        answer = asyncio.ensure_future(_answer(self._client.ask(self._document.uri, *self._cursor)))
        # At full speed it is the answer that sets the pace.
        timeout = pause_s or None
        await asyncio.wait([answer], timeout=timeout)
        if not answer.done():
            self.tally.n_overtaken += 1
            answer.add_done_callback(_ignore)
            return ""
        latency_ms = answer.result().latency_ms
        ghost = _text_of(answer.result())
        self.tally.latencies_ms.append(latency_ms)
        self._shown(ghost, latency_ms)
        await asyncio.sleep(max(0.0, pause_s - (time.perf_counter() - asked_s)))
        return ghost

    def _shown(self, ghost: str, latency_ms: float) -> None:
        if ghost:
            self.tally.n_shown += 1
            if self.tally.first_suggestion_s is None:
                self.tally.first_suggestion_s = time.perf_counter() - self._client.started_s
        self._view.answered(self._document, self._offset, ghost, latency_ms)

    def _insert(self, text: str) -> None:
        position = self._cursor
        self._client.insert(self._document.uri, *position, text)
        self._document.apply(Change(text=text, range=(position, position)))
        self._offset += len(text)
        self._missing = self._missing.removeprefix(text)

    @property
    def _cursor(self) -> Position:
        return self._document.position_at(self._offset)


def cut_out(document: Document, n_chars: int) -> tuple[int, str]:
    """Take some lines out of a document's middle; gives where, and their text.

    About `n_chars`, whole lines without the last one's end: an empty line stays to type on. They
    start where a paragraph does, if there is one. ValueError for a text without three lines.
    """
    lines = document.lines
    filled = [n for n, line in enumerate(lines) if line.strip()]
    if len(filled) < 3:
        raise ValueError(f"{document.path} has {len(filled)} lines with text, expected 3 or more")
    in_middle = [n for n in filled if 0.4 * len(lines) <= n <= 0.8 * len(lines)] or filled[1:-1]
    starts = (n for n in in_middle if not lines[n - 1].strip())
    first = next(starts, in_middle[0])
    last = max(_lines_worth(lines, first, n_chars))
    start = document.line_start(first)
    end = document.line_start(last) + len(lines[last].rstrip("\r\n"))
    missing = document.slice(start, end)
    range_ = (document.position_at(start), document.position_at(end))
    document.apply(Change(text="", range=range_))
    return start, missing


def _lines_worth(lines: list[str], first: int, n_chars: int) -> Iterator[int]:
    """Filled lines from `first` on until they hold `n_chars`, but not the text's last line."""
    for n in range(first, max(len(lines) - 1, first + 1)):
        if lines[n].strip():
            yield n
        n_chars -= len(lines[n].strip()) + 1
        if n_chars <= 0:
            return


def _first_keystroke(text: str) -> str:
    match = _KEYSTROKE.match(text)
    assert match is not None, "the text is not empty"
    return match[0] or text[0]


async def _answer(pending: object) -> Answer:
    answer: Answer = await pending  # type: ignore[misc]
    return answer


def _ignore(answer: asyncio.Future[Answer]) -> None:
    """Fetch the error of an answer nobody waits for; only our own server's refusal is expected."""
    error = None if answer.cancelled() else answer.exception()
    if error is not None and not isinstance(error, ResponseError):
        raise error


def _text_of(answer: Answer) -> str:
    items = (answer.result or {}).get("items", [])
    return items[0]["insertText"] if items else ""
