"""One request's way from text to completion, pass by pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from engine.fim import FimFormat, PromptOrder
from engine.request import Completion, CompletionRequest
from engine.stopping import StopRule

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from engine.decode import Decoder, Draft, Work
    from engine.epochs import Epochs

T = TypeVar("T")


class _OutOfTimeError(Exception):
    """The request's deadline has passed."""


class Completer:
    """Turns requests into completions on one decoder. Used by the engine's thread alone."""

    def __init__(
        self, decoder: Decoder, fim: FimFormat, epochs: Epochs, clock: Callable[[], float]
    ) -> None:
        """Hold what all requests share; `clock` gives seconds."""
        self.decoder, self.fim, self.epochs, self._clock = decoder, fim, epochs, clock

    def work(
        self,
        request: CompletionRequest,
        *,
        submitted: float,
        times: dict[str, float],
        cost: Work,
        only_read: bool = False,
    ) -> Generator[None, None, Completion]:
        """Complete a request submitted at that time, yielding after each pass over the weights.

        Stage times in ms are added to `times`, with the time between passes under "queue"; what
        it costs is added to `cost` as it is spent. `only_read` brings the state to the end of the
        prompt and stops there. When the deadline passes, the answer is what can be shown by then;
        the states computed so far stay in the cache.
        """
        lap = Lap(self._clock, times)
        epoch = self.epochs.at(request.document, header=request.header, after_cursor=request.suffix)
        split = self.fim.split(request.header + request.prefix)
        head = self.fim.head(PromptOrder.SUFFIX_FIRST, epoch.suffix)
        ids = np.array([*head, *split.ids], dtype=np.int32)
        lap("tokenize")
        draft: Draft | None = None
        n_held = len(split.held)

        def text() -> str:
            # A character may be cut in the middle of its bytes while tokens are still to come.
            return "" if draft is None else draft.text[n_held:].decode("utf-8", errors="ignore")

        def answer(stop: str, text: str) -> Completion:
            return Completion(
                text=text,
                stop=stop,
                prompt_ids=tuple(ids.tolist()),
                token_ids=() if draft is None else tuple(draft.token_ids),
                n_recomputed=cost.n_recomputed,
                n_generated=cost.n_generated,
                n_passes=cost.n_passes,
                n_healing_passes=cost.n_healing_passes,
                timings_ms=dict(times),
                logits=torch.stack(draft.rows) if draft is not None and draft.rows else None,
            )

        def finished() -> Completion | None:
            end = None if request.raw else rule.end(text())
            if end is not None:
                return answer("block" if request.multiline else "line", text()[:end])
            return answer("limit", text()) if cost.n_generated >= request.max_tokens else None

        def timed(steps: Generator[None, None, T], stage: str) -> Generator[None, None, T]:
            while True:
                try:
                    next(steps)
                except StopIteration as stop:
                    lap(stage)
                    result: T = stop.value
                    return result
                lap(stage)
                if request.deadline_ms is not None and not only_read:
                    spent_ms = 1e3 * (self._clock() - submitted)
                    if spent_ms >= request.deadline_ms:
                        raise _OutOfTimeError
                yield
                lap("queue")

        rule = StopRule(multiline=request.multiline, line_before=request.prefix.rpartition("\n")[2])
        try:
            checkpoint = yield from timed(self.decoder.read(ids, cost), "prefill")
            if only_read:
                return answer("limit", "")
            draft = yield from timed(
                self.decoder.cover(split.held, checkpoint, cost, request.keep_logits), "heal"
            )
            steps = self.decoder.write(draft, request.raw, request.keep_logits, cost)
            for _ in timed(steps, "decode"):
                completion = finished()
                if completion is not None:
                    return completion
                yield
        except _OutOfTimeError:
            shown = text() if request.raw else rule.unfinished(text())
            # The last pass may have been all that was missing.
            return finished() or answer("deadline", shown)
        return answer("eos", text())


class Lap:
    """Adds the time since the last call to a stage."""

    def __init__(self, clock: Callable[[], float], times: dict[str, float]) -> None:
        """Start now; `clock` gives seconds, `times` gets milliseconds."""
        self._clock, self._times, self._last = clock, times, clock()

    def __call__(self, stage: str) -> None:
        """End a stretch of `stage`."""
        now = self._clock()
        self._times[stage] = self._times.get(stage, 0.0) + 1e3 * (now - self._last)
        self._last = now
