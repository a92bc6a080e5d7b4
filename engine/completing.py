"""One request's way from text to completion, pass by pass."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, TypeVar

import torch

from engine.request import Completion
from engine.stopping import StopRule

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from engine.cache import Checkpoint
    from engine.decode import Decoder, Draft, Work
    from engine.prompts import Prompts
    from engine.request import CompletionRequest

T = TypeVar("T")

# Longer proposals are cut: past that, a pass over them costs more than it is likely to save.
MAX_PROPOSAL_TOKENS = 32


class _OutOfTimeError(Exception):
    """The request's deadline has passed."""


class Completer:
    """Turns requests into completions on one decoder. Used by the engine's thread alone."""

    def __init__(self, decoder: Decoder, prompts: Prompts, clock: Callable[[], float]) -> None:
        """Hold what all requests share; `clock` gives seconds."""
        self.decoder, self.prompts, self._clock = decoder, prompts, clock

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
        exact = only_read or request.explicit or request.raw
        prompt = self.prompts.choose(request, exact=exact)
        lap("tokenize")
        checkpoint: Checkpoint | None = None
        draft: Draft | None = None
        n_held = len(prompt.held)

        def text() -> str:
            # A character may be cut in the middle of its bytes while tokens are still to come.
            return "" if draft is None else draft.text[n_held:].decode("utf-8", errors="ignore")

        def answer(stop: str, text: str) -> Completion:
            return Completion(
                text=text,
                stop=stop,
                kind=prompt.kind,
                prompt=prompt.whole,
                token_ids=() if draft is None else tuple(draft.token_ids),
                n_recomputed=cost.n_recomputed,
                n_generated=cost.n_generated,
                n_passes=cost.n_passes,
                n_healing_passes=cost.n_healing_passes,
                source=cost.source,
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
        decoder = self.decoder
        stack = ExitStack()
        try:
            reading = decoder.read(prompt.ids, prompt.owner, cost, stack)
            checkpoint = yield from timed(reading, "prefill")
            if only_read:
                return answer("limit", "")
            at = checkpoint
            if len(prompt.tail):
                at = yield from timed(decoder.extend(at, prompt.tail, cost), "prefill")
            covering = decoder.cover(
                prompt.held,
                at,
                # What is laid on a trunk for one answer leaves nothing on its trail.
                None if len(prompt.tail) else prompt.owner,
                cost,
                keep_rows=request.keep_logits,
                proposal=self._proposal(request, prompt.held),
            )
            draft = yield from timed(covering, "heal")
            for _ in timed(decoder.write(draft, raw=request.raw, work=cost), "decode"):
                completion = finished()
                if completion is not None:
                    return completion
                yield
        except _OutOfTimeError:
            shown = text() if request.raw else rule.unfinished(text())
            # The last pass may have been all that was missing.
            return finished() or answer("deadline", shown)
        finally:
            if draft is not None and checkpoint is not None and not len(prompt.tail):
                decoder.keep(checkpoint, prompt.owner, draft.walk)
            stack.close()
        return answer("eos", text())

    def _proposal(self, request: CompletionRequest, held: bytes) -> tuple[int, ...]:
        """Give a proposed continuation as tokens, the held-back text first."""
        if not request.proposal:
            return ()
        text = held.decode("utf-8", errors="ignore") + request.proposal
        return tuple(self.decoder.tokenizer.encode(text)[:MAX_PROPOSAL_TOKENS])


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
