"""From a document and a position to a suggestion: the way that server and command line share.

The one module of this package that imports the engine, and torch with it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from engine.engine import Engine
from engine.request import Completion, CompletionRequest
from lsp_server.context import (
    Window,
    WindowLimits,
    is_nearly_full,
    multiline_at,
    nearest_window,
    window_at,
)
from lsp_server.private_files import is_secret, states_folder
from lsp_server.trimming import trim

if TYPE_CHECKING:
    from collections.abc import Callable

    from lsp_server.documents import Document, Position
    from lsp_server.settings import Settings

logger = logging.getLogger(__name__)

# By the prompt format's name: how much text its models were trained to read. Codestral reads
# 256k tokens, so only the text below the cursor, whose every change costs a prefill, is cut.
WINDOW_LIMITS = {
    "keystate": WindowLimits(),
    "mistral-v3": WindowLimits(prefix_max_chars=None, suffix_max_chars=4000),
}
# Text below the cursor that a suggestion is compared with.
TRIM_CHARS = 2000
# The engine looks at its deadline after every pass; this is for a pass that hangs.
GRACE_MS = 250.0
# Places of a document whose windows are remembered, for jumps back.
MAX_WINDOWS = 8
# Added to a document's name for what is read ahead of need.
NEXT = "#next"
# Stop reasons that mean that nobody wants the answer any more.
UNWANTED = ("cancel", "superseded")


@dataclass(frozen=True, kw_only=True)
class Item:
    """Text to put in place of what lies between two positions."""

    insert_text: str
    start: Position
    end: Position


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """What fits at a position, and what it took; no items where nothing does."""

    items: tuple[Item, ...]
    completion: Completion
    timings_ms: dict[str, float] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, Any]:
        """What it took, as `keystate complete --json` and `keystate/lastTimings` give it."""
        completion = self.completion
        return {
            "prompt_kind": completion.kind,
            "stop": completion.stop,
            "tokens": {
                "prompt": completion.n_prompt,
                "recomputed": completion.n_recomputed,
                "generated": completion.n_generated,
            },
            "passes": {"model": completion.n_passes, "healing": completion.n_healing_passes},
            "state_from": completion.source,
        }

    @property
    def is_wanted(self) -> bool:
        return self.completion.stop not in UNWANTED


class Suggester:
    """An engine and the windows of the documents that it reads. For one event loop."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine = engine
        self._settings = settings
        self._limits = WINDOW_LIMITS.get(engine.fim.name, WindowLimits())
        self._windows: dict[str, list[Window]] = {}

    @classmethod
    def load(cls, settings: Settings) -> Suggester:
        """Load the model and start its engine; takes seconds.

        Raises ValueError: CheckpointError and TokenizerError name the remedy.
        """
        device = usable_device(settings.device)
        engine = Engine.load(
            settings.model,
            device=device,
            # Half the cores, so that the editor stays smooth.
            n_threads=settings.threads or max(1, (os.cpu_count() or 1) // 2),
            states_folder=states_folder() if settings.save_states else None,
        )
        engine.start()
        return cls(engine, settings)

    @property
    def name(self) -> str:
        return self.engine.name

    @property
    def device(self) -> str:
        return str(self.engine.model.device)

    async def suggest(
        self,
        document: Document,
        position: Position,
        *,
        explicit: bool,
        deadline_ms: float | None,
        raw: bool = False,
    ) -> Suggestion:
        """What fits at a position of the document as it stands now.

        The item's range is empty and at the cursor: what already stands behind it was cut from
        the text, so no client can double a bracket, whatever it does with ranges.
        raw: the model's own continuation, untrimmed. Cancelling frees the engine.
        """
        started = time.monotonic()
        timings_ms: dict[str, float] = {}
        offset = document.offset_at(position)
        request = self._request(document, offset, explicit, deadline_ms, raw, timings_ms)
        before = document.slice(document.line_start(document.line_of(offset)), offset)
        after = document.slice(offset, min(offset + TRIM_CHARS, document.n_chars))
        newline = document.newline
        at = document.position_at(offset)

        asked = time.monotonic()
        completion = await self._complete(request)
        answered = time.monotonic()
        timings_ms |= completion.timings_ms
        engine_ms = sum(completion.timings_ms.values())
        # What the engine does not account for: the way there and back between the threads.
        timings_ms["handover"] = max(0.0, 1e3 * (answered - asked) - engine_ms)

        text = completion.text
        if not raw:
            text = trim(before, text, after, newline)
        finished = time.monotonic()
        timings_ms["trim"] = 1e3 * (finished - answered)
        timings_ms["total"] = 1e3 * (finished - started)
        items = (Item(insert_text=text, start=at, end=at),) if text else ()
        return Suggestion(items=items, completion=completion, timings_ms=timings_ms)

    def prepare(self, document: Document, offset: int) -> None:
        """Have the engine read a document up to where a request is likely; answers nothing.

        A prefix window that is nearly full has its successor read as well, so that the keystroke
        that moves it finds its states.
        """
        self.engine.prepare(self._request(document, offset, False, None, False, {}))
        window = self._windows[document.uri][-1]
        if is_nearly_full(window, self._limits):
            moved = window_at(document, offset, self._limits)
            request = self._request_on(moved, document, offset, False, None, False)
            self.engine.prepare(replace(request, document=document.uri + NEXT))

    def forget(self, uri: str) -> None:
        """Drop what is kept of a document that was closed."""
        self._windows.pop(uri, None)
        self.engine.forget(uri)
        self.engine.forget(uri + NEXT)

    def close(self) -> None:
        self.engine.close()

    def _request(
        self,
        document: Document,
        offset: int,
        explicit: bool,
        deadline_ms: float | None,
        raw: bool,
        timings_ms: dict[str, float],
    ) -> CompletionRequest:
        started = time.monotonic()
        # Parsed on first use; here, so that the time is known.
        _ = document.tree
        parsed = time.monotonic()
        window = self._window(document, offset)
        request = self._request_on(window, document, offset, explicit, deadline_ms, raw)
        timings_ms["parse"] = 1e3 * (parsed - started)
        timings_ms["context"] = 1e3 * (time.monotonic() - parsed)
        return request

    def _request_on(
        self,
        window: Window,
        document: Document,
        offset: int,
        explicit: bool,
        deadline_ms: float | None,
        raw: bool,
    ) -> CompletionRequest:
        return CompletionRequest(
            document=document.uri,
            header=window.header,
            prefix=_unix(window.prefix),
            suffix=_unix(window.suffix),
            multiline=multiline_at(document, offset),
            max_tokens=self._settings.max_tokens,
            deadline_ms=deadline_ms,
            explicit=explicit,
            raw=raw,
            may_be_saved=not is_secret(document.path),
        )

    def _window(self, document: Document, offset: int) -> Window:
        """The windows at a cursor, with the edges of the last ones taken nearby if they serve."""
        windows = self._windows.setdefault(document.uri, [])
        near = nearest_window(document, offset, self._limits, windows)
        if near is not None:
            windows.remove(near)
        windows.append(window_at(document, offset, self._limits, near))
        del windows[:-MAX_WINDOWS]
        return windows[-1]

    async def _complete(self, request: CompletionRequest) -> Completion:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Completion] = loop.create_future()
        ticket = self.engine.submit(request, _into(future, loop))
        timeout_s = None
        if request.deadline_ms is not None:
            timeout_s = (request.deadline_ms + GRACE_MS) / 1e3
        try:
            return await asyncio.wait_for(future, timeout_s)
        except TimeoutError:
            logger.warning("the engine did not answer in time")
            return Completion(text="", stop="deadline")
        finally:
            ticket.cancel()


def usable_device(name: str) -> str | None:
    """The device, None for "auto"; ValueError for one that torch does not have here."""
    if name == "auto":
        return None
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"device is {name!r}, expected one that works here: {reason}") from error
    return name


def _into(
    future: asyncio.Future[Completion], loop: asyncio.AbstractEventLoop
) -> Callable[[Completion], None]:
    """A callback for the engine's thread that sets a future of the loop's."""

    def resolve(completion: Completion) -> None:
        if not future.done():
            future.set_result(completion)

    def on_done(completion: Completion) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(resolve, completion)

    return on_done


def _unix(text: str) -> str:
    """Text with the line ends that models are trained on; `trim` puts the document's back."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
