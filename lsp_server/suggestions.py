"""From a document and a position to a suggestion: the way that server and command line share.

The one module of this package that imports the engine, and torch with it.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import time
from dataclasses import dataclass, field, replace
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import torch

from engine.budget import default_threads
from engine.engine import Engine
from engine.request import Completion, CompletionRequest
from engine.saved_files import forget_states
from lsp_server.context import (
    Window,
    WindowLimits,
    header_of,
    is_nearly_full,
    lacks_block,
    multiline_at,
    nearest_window,
    window_at,
)
from lsp_server.documents import with_unix_newlines
from lsp_server.private_files import has_states, states_folder
from lsp_server.process_memory import give_back_large_blocks, lasting
from lsp_server.showing import Shown, is_confident, shown
from lsp_server.surroundings import ContextSources, Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from engine.declaration import Declaration
    from lsp_server.documents import Document, Position
    from lsp_server.settings import Settings
    from lsp_server.surroundings import UnopenedFiles

logger = logging.getLogger(__name__)

# By the prompt format's name: how much text its models were trained to read. Codestral reads
# 256k tokens, so only the text below the cursor, whose every change costs a prefill, is cut.
WINDOW_LIMITS = {
    "keystate": WindowLimits(),
    "mistral-v3": WindowLimits(prefix_max_chars=None, suffix_max_chars=4000),
}
# The engine looks at its deadline after every pass; this is for a pass that hangs.
GRACE_MS = 250.0
# Places of a document whose windows are remembered, for jumps back.
MAX_WINDOWS = 8
# Added to a document's name for what is read ahead of need.
NEXT = "#next"
FRESH = "#fresh"
# Stop reasons that mean that nobody wants the answer any more.
UNWANTED = ("cancel", "superseded")
# Of what torch says against a device; some of it is a list of all its operations.
MAX_REASON_CHARS = 200


@dataclass(frozen=True, kw_only=True)
class Item:
    """Text to put in place of what lies between two positions."""

    insert_text: str
    start: Position
    end: Position
    log_prob: float
    """Of its first line, as a completion's."""


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """What fits at a position, and what it took; no items where nothing does."""

    items: tuple[Item, ...]
    completion: Completion
    timings_ms: dict[str, float] = field(default_factory=dict)
    hidden: str | None = None
    """Why nothing is shown of what there was: see `showing.Shown`."""

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
            "passes": {
                "model": completion.n_passes,
                "healing": completion.n_healing_passes,
                "alternatives": completion.n_alternative_passes,
            },
            "state_from": completion.source,
            "hidden": self.hidden,
        }

    @property
    def is_wanted(self) -> bool:
        return self.completion.stop not in UNWANTED


class Suggester:
    """An engine and the windows of the documents that it reads. For one event loop."""

    def __init__(
        self, engine: Engine, settings: Settings, context: ContextSources | None = None
    ) -> None:
        """`context`: what is used beside the windows; where left out, what helps the model."""
        self.engine = engine
        self.surroundings = Surroundings(context or sources_for(engine.declaration))
        self._next: dict[str, Window] = {}
        """Windows to move on to, read ahead of need."""
        self._fresh: dict[str, str] = {}
        """Headers that are read while the ones before them still answer."""
        self._settings = settings
        self._limits = WINDOW_LIMITS.get(engine.fim.name, WindowLimits())
        self._windows: dict[str, list[Window]] = {}

    @classmethod
    def load(
        cls, settings: Settings, on_progress: Callable[[str, float], None] | None = None
    ) -> Suggester:
        """Load the model and start its engine; takes seconds.

        `on_progress` is told, often, what is being done and the share of it that is.
        Raises ValueError: CheckpointError and TokenizerError name the remedy.
        """
        device = usable_device(settings.device)
        give_back_large_blocks()
        with lasting():
            engine = Engine.load(
                settings.model,
                device=device,
                n_threads=settings.threads or default_threads(),
                states_folder=_states_folder() if settings.save_states else None,
                quantize=settings.quantize,
                on_progress=on_progress,
            )
        engine.start()
        return cls(engine, settings)

    @property
    def name(self) -> str:
        return self.engine.name

    @property
    def device(self) -> str:
        return str(self.engine.model.device)

    @property
    def documents(self) -> Iterable[Document]:
        """The open documents, which context is taken from; looked through anew each time."""
        return self.surroundings.documents

    @documents.setter
    def documents(self, documents: Iterable[Document]) -> None:
        self.surroundings.documents = documents

    @property
    def files(self) -> UnopenedFiles | None:
        """Files that are not open, to copy from; None for a model that nothing is copied for."""
        return self.surroundings.files

    @files.setter
    def files(self, files: UnopenedFiles) -> None:
        if self.engine.copy_weights is not None:
            self.surroundings.files = files

    async def suggest(
        self,
        document: Document,
        position: Position,
        *,
        explicit: bool,
        deadline_ms: float | None,
        raw: bool = False,
        n_alternatives: int = 0,
    ) -> Suggestion:
        """What fits at a position of the document as it stands now.

        The item's range is empty and at the cursor: what already stands behind it was cut from
        the text, so no client can double a bracket, whatever it does with ranges.
        raw: the model's own continuation, untrimmed. n_alternatives: how many other items there
        may be, which takes as many more texts to write. Cancelling frees the engine.
        """
        started = time.monotonic()
        if not explicit and not self.engine.declaration.knows(document.language_id):
            unasked = Completion(text="", stop="eos", kind="none")
            timings_ms = {"total": 1e3 * (time.monotonic() - started)}
            return Suggestion(
                items=(), completion=unasked, timings_ms=timings_ms, hidden="language"
            )
        timings_ms = {}
        offset, revision = document.offset_at(position), document.revision
        # Parsed on first use; here, so that the time is known.
        _ = document.tree
        parsed = time.monotonic()
        window = self._touched(document, offset)
        sources = self.surroundings.sources(document, window)
        # A less probable line would not be shown.
        least = 0.0 if explicit else self._min_confidence
        request = replace(
            self._request_on(window, document, offset),
            sources=tuple(map(with_unix_newlines, sources)),
            deadline_ms=deadline_ms,
            explicit=explicit,
            raw=raw,
            n_alternatives=n_alternatives,
            search_above=math.log(least) if least else -math.inf,
        )
        timings_ms["parse"] = 1e3 * (parsed - started)
        timings_ms["context"] = 1e3 * (time.monotonic() - parsed)
        at = document.position_at(offset)

        asked = time.monotonic()
        completion = await self._complete(request)
        answered = time.monotonic()
        timings_ms |= completion.timings_ms
        engine_ms = sum(completion.timings_ms.values())
        # What the engine does not account for: the way there and back between the threads.
        timings_ms["handover"] = max(0.0, 1e3 * (answered - asked) - engine_ms)

        if document.revision != revision:
            # What it was computed for is gone.
            completion, fitting = replace(completion, stop="superseded"), [(-math.inf, Shown())]
        elif raw:
            fitting = [(completion.log_prob, Shown(text=completion.text))]
        else:
            fitting = self._fitting(document, offset, completion, explicit)
        finished = time.monotonic()
        timings_ms["trim"] = 1e3 * (finished - answered)
        timings_ms["total"] = 1e3 * (finished - started)
        texts: dict[str, float] = {}
        for log_prob, one in fitting:
            texts.setdefault(one.text, log_prob)
        items = tuple(
            Item(insert_text=text, start=at, end=at, log_prob=log_prob)
            for text, log_prob in texts.items()
            if text
        )
        hidden = None if items else fitting[0][1].hidden
        return Suggestion(items=items, completion=completion, timings_ms=timings_ms, hidden=hidden)

    def _fitting(
        self, document: Document, offset: int, completion: Completion, explicit: bool
    ) -> list[tuple[float, Shown]]:
        """What can be shown of a completion, the most probable first, with its log-probability.

        One at least, which may be empty.
        """
        if not explicit and not is_confident(completion.log_prob, self._min_confidence):
            hidden = "confidence" if completion.text.strip() else None
            return [(completion.log_prob, Shown(hidden=hidden))]
        # Token by token the best is not always the most probable line.
        ways = [(completion.log_prob, completion.text)]
        ways += [(other.log_prob, other.text) for other in completion.alternatives]
        ways.sort(key=lambda way: -way[0])
        return [(log_prob, shown(document, offset, text)) for log_prob, text in ways]

    def is_reading(self, document: Document) -> bool:
        """Whether the engine still reads what a request of this document would be answered from."""
        return self.engine.is_preparing(document.uri)

    def prepare(self, document: Document, offset: int) -> None:
        """Have the engine read a document up to where a request is likely; answers nothing.

        A prefix window that is nearly full has its successor read as well, so that the keystroke
        that moves it finds its states.
        """
        if not self.engine.declaration.knows(document.language_id):
            return
        window = self._touched(document, offset)
        self.engine.prepare(self._request_on(window, document, offset))
        if is_nearly_full(window, self._limits):
            # The same as long as it serves: its header comes first in what is read.
            moved = self._moved(document, offset, self._next.get(document.uri))
            self._next[document.uri] = moved
            request = self._request_on(moved, document, offset)
            self.engine.prepare(replace(request, document=document.uri + NEXT))

    def refresh(self, document: Document, offset: int) -> bool:
        """Move on to the header that the code has now; for when nothing is typed for a while.

        The first call that finds it changed has the engine read it, and gives True; the second
        has requests answered from it.
        """
        window = self._window(document, offset)
        header = self.surroundings.header(
            document, window.prefix_start, window.prefix, window.suffix
        )
        known = self._fresh.pop(document.uri, None)
        if header == window.header:
            return False
        moved = replace(window, header=header)
        if header == known:
            self._windows[document.uri][-1] = moved
            return False
        self._fresh[document.uri] = header
        request = self._request_on(moved, document, offset)
        self.engine.prepare(request, key=document.uri + FRESH)
        return True

    def forget(self, uri: str) -> None:
        """Drop what is kept of a document that was closed."""
        for kept in (self._windows, self._next, self._fresh):
            kept.pop(uri, None)
        self.surroundings.forget(uri)
        self.engine.forget(uri)
        self.engine.forget(uri + NEXT)

    def configure(self, settings: Settings) -> None:
        """Take changed settings; those that the engine was loaded with stand."""
        if settings.exclude != self._settings.exclude:
            # What was read of files that are excluded now is in headers too.
            for kept in (self._windows, self._next, self._fresh):
                kept.clear()
            self.surroundings.index.clear()
        self._settings = settings

    def close(self) -> None:
        self.surroundings.close()
        self.engine.close()
        # Else it would never be freed: its parts hold one another.
        gc.unfreeze()

    @property
    def _min_confidence(self) -> float:
        chosen = self._settings.min_confidence
        return self.engine.declaration.min_confidence if chosen is None else chosen

    def _touched(self, document: Document, offset: int) -> Window:
        """The windows at the cursor of a document that the user works on."""
        self.surroundings.touch(document)
        return self._window(document, offset)

    def _request_on(self, window: Window, document: Document, offset: int) -> CompletionRequest:
        """What is to be read at a cursor; who asks for an answer says more."""
        return CompletionRequest(
            document=document.uri,
            header=window.header,
            trunk_header=header_of(document),
            prefix=with_unix_newlines(window.prefix),
            suffix=with_unix_newlines(window.suffix),
            multiline=multiline_at(document, offset),
            with_block=lacks_block(document, offset),
            max_tokens=self._settings.max_tokens,
            deadline_ms=None,
            may_be_saved=not document.is_secret,
        )

    def _window(self, document: Document, offset: int) -> Window:
        """The windows at a cursor, with the edges of the last ones taken nearby if they serve."""
        windows = self._windows.setdefault(document.uri, [])
        near = nearest_window(document, offset, self._limits, windows)
        if document.is_draft:
            # Its revisions are not the document's.
            return self._moved(document, offset, near)
        if near is not None:
            windows.remove(near)
        elif document.uri in self._next:
            ahead = self._next.pop(document.uri)
            near = nearest_window(document, offset, self._limits, [ahead])
        windows.append(self._moved(document, offset, near))
        del windows[:-MAX_WINDOWS]
        return windows[-1]

    def _moved(self, document: Document, offset: int, window: Window | None) -> Window:
        return window_at(document, offset, self._limits, window, self.surroundings.header)

    async def _complete(self, request: CompletionRequest) -> Completion:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Completion] = loop.create_future()
        ticket = self.engine.submit(request, _into(future, loop))
        timeout_s = None
        if request.deadline_ms is not None:
            timeout_s = (request.deadline_ms + GRACE_MS) / 1e3
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            logger.warning("the engine did not answer in time")
            return Completion(text="", stop="deadline")
        finally:
            ticket.cancel()


def forget_saved_states() -> None:
    """Delete what earlier runs, with any model, have left on disk for the next start."""
    folder = _states_folder()
    if folder is not None:
        forget_states(folder)


def _states_folder() -> Path | None:
    """Where states are kept; None for nowhere, once logged if the user has no folder for them."""
    if not has_states():
        return None
    try:
        return states_folder()
    except OSError as error:
        logger.warning("states are not kept: %s", error)
        return None


def sources_for(declaration: Declaration) -> ContextSources:
    """All sources but those that a model gains nothing from."""
    return ContextSources(outline=declaration.header, snippets=declaration.header)


def usable_device(name: str) -> str | None:
    """The device, None for "auto"; ValueError for one that torch does not have here."""
    if name == "auto":
        return None
    try:
        is_computed = torch.empty(1, device=name).device.type != "meta"
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = shorten(str(error).strip().partition("\n")[0], MAX_REASON_CHARS, placeholder=" …")
        raise ValueError(f"device is {name!r}, expected one that works here: {reason}") from error
    if not is_computed:
        raise ValueError(f"device is {name!r}, expected one that computes")
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
