"""Replays keystroke traces in this process, the engine stepped by hand, and counts what it does.

The clock follows the trace, so the counts are exact and the same each time; only `*_ms` of the
engine's work are measured, on this machine.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from lsp_server.settings import Settings
from lsp_server.suggestions import UNWANTED, Suggester

if TYPE_CHECKING:
    from engine.engine import Engine
    from engine.request import Completion, CompletionRequest
    from engine.ticket import OnDone, Ticket
    from lsp_server.documents import Document
    from perf.trace_format import Event, Trace

MakeEngine = Callable[[Callable[[], float]], "Engine"]
"""Makes an engine, not started, on a clock that gives seconds."""
Observe = Callable[["Event", "Completion"], None]

# Where an idle engine is looked in on: between events, and after the last one.
IDLE_TICK_MS = 50.0
LAST_IDLE_MS = 3000.0
# While a request waits for something else than the engine's steps.
WAIT_TICK_MS = 1.0
MAX_WAIT_MS = 10_000.0
# Turns of the event loop in which an answer comes back through the suggester.
HANDOVER_TURNS = 8


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How time passes in a replay, and how the editor asks."""

    pass_ms: float = 0.0
    """What each step of the engine takes."""
    request_delay_ms: float = 0.0
    """From an event to its request; one that a newer event overtakes is not sent."""
    prepare: bool = False
    """Whether the engine reads ahead once the text or the cursor has changed, as in the server."""
    deadline_ms: float | None = None
    """Of each request; None lets all come to their end."""
    explicit: bool = False
    """Whether the user asks for each suggestion: then all answers are exact, whatever is cached."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one event took: its request, and background work from it to the next event."""

    path: str
    t_ms: int
    kind: str
    asked: bool
    """Whether there was a request; without one its figures are zero."""
    stop: str = ""
    prompt_kind: str = ""
    source: str = ""
    """Where the answer's state came from."""
    n_prompt: int = 0
    n_recomputed: int = 0
    n_generated: int = 0
    n_passes: int = 0
    n_healing_passes: int = 0
    n_alternative_passes: int = 0
    n_background: int = 0
    """Tokens read in the background."""
    engine_ms: float = 0.0
    """Measured, of the steps that worked on the request."""
    background_ms: float = 0.0
    """Measured, of the other steps."""
    latency_ms: float = 0.0
    """By the replay's clock."""
    prompt_digest: str = ""
    """Of the prompt's ids."""
    answer_digest: str = ""
    """Of the prompt's and the answer's ids."""

    @property
    def was_answered(self) -> bool:
        return self.stop not in ("", *UNWANTED, "error")


class ReplayClock:
    """Seconds that pass when the replay says so."""

    def __init__(self) -> None:
        self.ms = 0.0

    def __call__(self) -> float:
        return self.ms / 1e3


def replay(
    trace: Trace,
    make_engine: MakeEngine,
    *,
    settings: Settings | None = None,
    pace: Pace | None = None,
    observe: Observe | None = None,
) -> list[Row]:
    """Apply a trace's events to a document, ask as an editor would, and give a row for each.

    `observe` sees each answer, before the next event.
    """
    return replay_sitting((trace,), make_engine, settings=settings, pace=pace, observe=observe)


def replay_sitting(
    traces: Sequence[Trace],
    make_engine: MakeEngine,
    *,
    settings: Settings | None = None,
    pace: Pace | None = None,
    observe: Observe | None = None,
) -> list[Row]:
    """Replay traces one after the other with one engine: each file is closed before the next.

    Rows and `observe` are those of `replay`; a row's `t_ms` counts from when its file was opened.
    """
    clock = ReplayClock()
    suggester = Suggester(make_engine(clock), settings or Settings())
    player = _Player(suggester, clock, pace or Pace())
    # As the engine's own thread does: vanishing decays would cost many times as much.
    torch.set_flush_denormal(True)
    try:
        with asyncio.Runner(loop_factory=lambda: _ReplayLoop(clock)) as runner:
            return [row for trace in traces for row in runner.run(player.play(trace, observe))]
    finally:
        torch.set_flush_denormal(False)
        suggester.close()


class _ReplayLoop(asyncio.SelectorEventLoop):
    """An event loop whose timers go by the replay's clock."""

    def __init__(self, clock: ReplayClock) -> None:
        super().__init__()
        self._replay_clock = clock

    def time(self) -> float:
        return self._replay_clock()


@dataclass(kw_only=True)
class _Played:
    """An event, and what came of it so far: a superseded request ends after the next event."""

    event: Event
    asked: bool = False
    stop: str = ""
    completions: list[Completion] = field(default_factory=list)
    n_background: int = 0
    engine_ms: float = 0.0
    background_ms: float = 0.0
    latency_ms: float = 0.0


class _Player:
    """Plays traces: the editor's part, the server's and the engine thread's in one."""

    _document: Document
    # When the document was opened.
    _start_ms: float

    def __init__(self, suggester: Suggester, clock: ReplayClock, pace: Pace) -> None:
        self._suggester = suggester
        self._engine = suggester.engine
        self._clock = clock
        self._pace = pace
        self._now: _Played | None = None
        self._listen()

    async def play(self, trace: Trace, observe: Observe | None) -> list[Row]:
        events = trace.events
        self._document, self._start_ms = trace.open(), self._clock.ms
        ends_ms = [*(self._start_ms + event.t_ms for event in events[1:]), None]
        all_played = []
        for event, end_ms in zip(events, ends_ms, strict=True):
            self._now = played = _Played(event=event)
            all_played.append(played)
            await self._play(played, end_ms)
            if observe is not None:
                for completion in played.completions:
                    observe(event, completion)
        self._suggester.forget(self._document.uri)
        return [_row(trace.path, played) for played in all_played]

    async def _play(self, played: _Played, end_ms: float | None) -> None:
        """One event and the time up to the next; `end_ms` is None for the last."""
        event = played.event
        for change in event.changes:
            self._document.apply(change)
        if self._pace.prepare:
            self._suggester.prepare(self._document, self._document.offset_at(event.cursor))
        ask_ms = self._start_ms + event.t_ms + self._pace.request_delay_ms
        if event.request and (end_ms is None or ask_ms < end_ms):
            self._idle(ask_ms)
            played.asked = True
            await self._ask(played, end_ms)
            played.latency_ms = self._clock.ms - ask_ms
        self._idle(self._clock.ms + LAST_IDLE_MS if end_ms is None else end_ms)

    async def _ask(self, played: _Played, end_ms: float | None) -> None:
        suggest = self._suggester.suggest(
            self._document,
            played.event.cursor,
            explicit=self._pace.explicit,
            deadline_ms=self._pace.deadline_ms,
        )
        task = asyncio.ensure_future(suggest)
        given_up_ms = self._clock.ms + MAX_WAIT_MS
        while not await _ended(task):
            if end_ms is not None and self._clock.ms >= end_ms:
                task.cancel()
                await asyncio.wait([task])
                return
            if not self._step():
                self._clock.ms += WAIT_TICK_MS
            if self._clock.ms > given_up_ms:
                raise RuntimeError(f"no answer after {MAX_WAIT_MS:.0f} ms of the replay's clock")
        # Raises what `suggest` raised.
        played.stop = task.result().completion.stop

    def _idle(self, until_ms: float) -> None:
        """Let the engine do what it has to do in the background."""
        # Steps that take no time are all done at once.
        while self._clock.ms < until_ms or not self._pace.pass_ms:
            if not self._step():
                if self._clock.ms >= until_ms:
                    return
                self._clock.ms = min(until_ms, self._clock.ms + IDLE_TICK_MS)

    def _step(self) -> bool:
        """Run one step of the engine, if there is one, and note what it took."""
        assert self._now is not None, "the engine works within an event"
        before = self._engine.counters()
        started_s = time.perf_counter()
        if not self._engine.step():
            return False
        ms = 1e3 * (time.perf_counter() - started_s)
        self._clock.ms += self._pace.pass_ms
        after = self._engine.counters()
        self._now.n_background += after["background_tokens"] - before["background_tokens"]
        if after["background_passes"] > before["background_passes"]:
            self._now.background_ms += ms
        else:
            self._now.engine_ms += ms
        return True

    def _listen(self) -> None:
        """Hear the engine's answers, those too that the suggester no longer waits for."""
        submit = self._engine.submit

        def listened(request: CompletionRequest, on_done: OnDone) -> Ticket:
            assert self._now is not None, "requests are sent within an event"
            heard = self._now.completions

            def done(completion: Completion) -> None:
                heard.append(completion)
                on_done(completion)

            return submit(request, done)

        self._engine.submit = listened  # type: ignore[method-assign]


async def _ended(task: asyncio.Task[Any]) -> bool:
    """Whether a task has ended, once all that the loop has ready has run."""
    for _ in range(HANDOVER_TURNS):
        if task.done():
            return True
        await asyncio.sleep(0)
    return task.done()


def _row(path: str, played: _Played) -> Row:
    row = Row(
        path=path,
        t_ms=played.event.t_ms,
        kind=played.event.kind,
        asked=played.asked,
        stop=played.stop,
        n_background=played.n_background,
        engine_ms=played.engine_ms,
        background_ms=played.background_ms,
        latency_ms=played.latency_ms,
    )
    if not played.completions:
        return row
    last = played.completions[-1]
    return replace(
        row,
        stop=last.stop,
        prompt_kind=last.kind,
        source=last.source,
        n_prompt=last.n_prompt,
        n_recomputed=sum(each.n_recomputed for each in played.completions),
        n_generated=sum(each.n_generated for each in played.completions),
        n_passes=sum(each.n_passes for each in played.completions),
        n_healing_passes=sum(each.n_healing_passes for each in played.completions),
        n_alternative_passes=sum(each.n_alternative_passes for each in played.completions),
        prompt_digest=_digest(last.prompt_ids),
        answer_digest=_digest([*last.prompt_ids, *last.token_ids]),
    )


def _digest(ids: Iterable[int]) -> str:
    return hashlib.blake2b(array("i", ids).tobytes(), digest_size=8).hexdigest()
