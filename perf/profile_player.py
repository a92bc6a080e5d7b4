"""Replays sessions into a server and measures every request from outside."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lsp_server.documents import Document, Position
from perf.client import ResponseError
from perf.completed_code import completed_code
from perf.inline_items import first_text, is_first_line
from perf.profile_sample import Run, Sample
from perf.trace_format import Opened

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from perf.client import Answer, Client, Pending
    from perf.profile_speed import Speed
    from perf.trace_format import Event, Session, Trace

# Errors that say that an answer was not wanted any more: request cancelled, content modified,
# server cancelled.
UNWANTED_CODES = (-32800, -32801, -32802)
# A server that leaves so many requests in a row without an answer will leave the others too.
MAX_TIMEOUTS = 5
# Of what a server says of an error.
MAX_PROBLEM_CHARS = 200
# Our own server keeps 256 answers for who asks what they took.
ASK_TIMINGS_EVERY = 100


@dataclass
class _Asked:
    """A request under way."""

    sample: Sample
    pending: Pending
    document: Document
    # Of the document, to see whether an answer still fits.
    revision: int
    event: Event
    is_overtaken: bool = False
    task: asyncio.Task[None] | None = None


@dataclass
class _Open:
    """A document as the server has it, and the suggestions for it."""

    document: Document
    # By revision and cursor; the last answer for each.
    shown: dict[tuple[int, Position], str] = field(default_factory=dict)


class Player:
    """A person's hands and eyes at one server that is initialized. Everything goes into `run`."""

    def __init__(
        self,
        client: Client,
        run: Run,
        *,
        root: Path,
        speed: Speed,
        timeout_s: float,
        delay_s: float,
        is_ours: bool,
        sends_whole_texts: bool,
        on_event: Callable[[Sample | None], None],
    ) -> None:
        """`delay_s`: from an event to its request. `on_event` hears of each event that is over."""
        self._client = client
        self._run = run
        self._root = root
        self._speed = speed
        self._timeout_s = timeout_s
        self._delay_s = delay_s
        self._is_ours = is_ours
        self._sends_whole_texts = sends_whole_texts
        self._on_event = on_event
        self._began_s = time.perf_counter()
        self._open: dict[str, _Open] = {}
        # Of the session that is played, in the order in which documents were opened.
        self._shown: list[dict[tuple[int, Position], str]] = []
        self._asked: _Asked | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._without_timings: dict[int, Sample] = {}
        self._n_timeouts = 0

    async def play(self, session: Session) -> None:
        """Replay a session from its first opening to the last answer.

        Raises ServerGone if the server ends, TimeoutError if it stays silent.
        """
        start_s = time.perf_counter()
        dues_s = [start_s + due_s for due_s in self._speed.due_s(session)]
        for n, step in enumerate(session.steps):
            await asyncio.sleep(max(0.0, dues_s[n] - time.perf_counter()))
            self._check()
            if isinstance(step, Opened):
                self.open(step)
                continue
            until_s = None
            if not self._speed.waits_for_answers and n + 1 < len(dues_s):
                until_s = dues_s[n + 1]
            await self._do(session.name, self._open[step.path], step.event, until_s)
        await self._drain()
        for trace, shown in zip(session.traces, self._shown, strict=True):
            await self._count_completed(trace, shown)
        for opened in self._open.values():
            self._client.close(opened.document.uri)
        self._open.clear()
        self._shown.clear()

    def open(self, opened: Opened) -> Document:
        """Open a document in the server, in place of what was open under its path."""
        uri = (self._root / opened.path).as_uri()
        if opened.path in self._open:
            self._overtake()
            self._client.close(uri)
        self._client.open(uri, opened.language_id, opened.text)
        document = Document(uri, opened.language_id, 0, opened.text, path=opened.path)
        self._open[opened.path] = _Open(document)
        self._shown.append(self._open[opened.path].shown)
        return document

    async def _do(self, trace: str, open_: _Open, event: Event, until_s: float | None) -> None:
        """One event with its request, up to when the next one is due (None: up to the answer)."""
        self._overtake()
        document = open_.document
        for change in event.changes:
            document.apply(change)
        changes = [_change_json(change) for change in event.changes]
        if changes and self._sends_whole_texts:
            changes = [{"text": document.text}]
        changed_s = time.perf_counter()
        if changes:
            self._client.change(document.uri, changes)
        if not event.request:
            self._on_event(None)
            return
        if self._delay_s:
            left_s = self._delay_s if until_s is None else until_s - changed_s
            await asyncio.sleep(max(0.0, min(self._delay_s, left_s)))
            if left_s < self._delay_s:
                self._run.n_unasked += 1
                self._on_event(None)
                return
        asked_s = time.perf_counter()
        pending = self._client.ask(document.uri, *event.cursor)
        sample = Sample(
            trace=trace,
            kind=event.kind,
            n_chars=document.n_chars,
            start_ms=1e3 * ((changed_s if changes else asked_s) - self._began_s),
            id=pending.id,
        )
        self._run.samples.append(sample)
        waited_ms = 1e3 * (asked_s - changed_s)
        asked = _Asked(sample, pending, document, document.revision, event)
        done = self._answered(asked, open_, waited_ms if changes else None)
        self._asked = asked
        asked.task = self._in_background(done)
        if until_s is None:
            await asyncio.wait([asked.task])
            self._check()
            if len(self._without_timings) >= ASK_TIMINGS_EVERY:
                await self._take_timings()
        elif len(self._without_timings) >= ASK_TIMINGS_EVERY:
            self._in_background(self._take_timings())

    async def _answered(self, asked: _Asked, open_: _Open, waited_ms: float | None) -> None:
        """Wait for an answer, and note it."""
        sample = asked.sample
        started_s = time.perf_counter()
        try:
            answer: Answer = await asyncio.wait_for(_result(asked.pending), self._timeout_s)
        except TimeoutError:
            asked.pending.cancel()
            self._n_timeouts += 1
            sample.outcome = "cancelled" if asked.is_overtaken else "timeout"
            sample.latency_ms = 1e3 * (time.perf_counter() - started_s)
        except ResponseError as error:
            self._n_timeouts = 0
            is_unwanted = asked.is_overtaken and error.code in UNWANTED_CODES
            sample.outcome = "cancelled" if is_unwanted else "error"
            sample.problem = None if is_unwanted else str(error)[:MAX_PROBLEM_CHARS]
            sample.latency_ms = 1e3 * (time.perf_counter() - started_s)
        else:
            self._n_timeouts = 0
            sample.latency_ms = answer.latency_ms
            if waited_ms is not None:
                sample.change_ms = waited_ms + answer.latency_ms
            if asked.is_overtaken:
                sample.outcome = "cancelled"
            else:
                self._look_at(answer.result, asked, open_)
            if self._is_ours:
                self._without_timings[sample.id] = sample
        finally:
            if self._asked is asked:
                self._asked = None
            self._on_event(sample)
        if self._run.start_to_suggestion_s is None and sample.suggested_chars:
            self._run.start_to_suggestion_s = time.perf_counter() - self._client.started_s

    def _look_at(self, result: Any, asked: _Asked, open_: _Open) -> None:
        """See what an answer has to show."""
        sample, event = asked.sample, asked.event
        assert asked.document.revision == asked.revision, "nothing has overtaken it"
        try:
            text = first_text(result, asked.document, event.cursor)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            sample.outcome = "error"
            sample.problem = f"the answer is not in the protocol's shape: {error!r}"
            return
        sample.outcome = "null" if result is None else "items" if text else "empty"
        sample.suggested_chars = len(text)
        open_.shown[asked.revision, event.cursor] = text
        if event.next:
            sample.first_line = is_first_line(text, event.next, asked.document, event.cursor)

    def _overtake(self) -> None:
        """Cancel the request under way, as an editor does whose user goes on."""
        if self._asked is not None:
            self._asked.is_overtaken = True
            self._asked.pending.cancel()
            self._asked = None

    async def _drain(self) -> None:
        """Wait for what is under way; every request ends by its timeout."""
        while self._tasks:
            await asyncio.wait(self._tasks)
            self._check()
        if self._is_ours:
            await self._take_timings()

    async def _take_timings(self) -> None:
        """Ask our own server what its answers took."""
        for answer in await asyncio.wait_for(self._client.last_timings(), self._timeout_s):
            sample = self._without_timings.pop(answer["id"], None)
            if sample is not None:
                sample.take(answer)
        # What it does not know of was superseded.
        if not self._tasks:
            self._without_timings.clear()

    async def _count_completed(self, trace: Trace, shown: dict[tuple[int, Position], str]) -> None:
        """Count what accepting the right suggestions would have spared."""

        async def ask(document: Document, position: Position) -> str:
            return shown.get((document.revision, position), "")

        counted = await completed_code(trace, ask)
        self._run.n_typed_chars += counted.n_typed_chars
        self._run.n_completed_chars += counted.n_completed_chars

    def _in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        return task

    def _check(self) -> None:
        """Raise what went wrong in the background, and end with a server that stays silent."""
        for task in [task for task in self._tasks if task.done()]:
            self._tasks.discard(task)
            task.result()
        if self._n_timeouts >= MAX_TIMEOUTS:
            raise TimeoutError(
                f"the server left {MAX_TIMEOUTS} requests in a row without an answer"
                f" for {self._timeout_s:g} s"
            )


async def _result(pending: Pending) -> Answer:
    answer: Answer = await pending
    return answer


def _change_json(change: Any) -> dict[str, Any]:
    if change.range is None:
        return {"text": change.text}
    start, end = change.range
    return {
        "range": {"start": start._asdict(), "end": end._asdict()},
        "text": change.text,
    }
