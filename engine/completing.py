"""One request's way from text to completion, pass by pass."""

from __future__ import annotations

import logging
import math
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch

from engine.copying import Copier
from engine.decode import Work
from engine.request import Alternative, Completion
from engine.slots import is_out_of_memory
from engine.stopping import StopRule

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from engine.cache import Checkpoint
    from engine.decode import Decoder
    from engine.draft import Draft, Second
    from engine.prompts import Prompts
    from engine.request import CompletionRequest

log = logging.getLogger(__name__)

T = TypeVar("T")

# Longer proposals are cut: past that, a pass over them costs more than it is likely to save.
MAX_PROPOSAL_TOKENS = 32
_ENDED = object()


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
    ) -> Generator[Completion | None, None, None]:
        """Complete a request submitted at that time, yielding after each pass over the weights.

        The last thing yielded is the answer, all before it None. What is left to do then is to
        keep what was computed, which nobody waits for.

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

        def text() -> str:
            return "" if draft is None else _shown(draft)

        def answer(stop: str, text: str) -> Completion:
            return Completion(
                text=text,
                stop=stop,
                kind=prompt.kind,
                prompt=prompt.whole,
                token_ids=() if draft is None else tuple(draft.token_ids),
                log_probs=() if draft is None else tuple(draft.log_probs),
                log_prob=-math.inf if draft is None else draft.log_prob(),
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

        def completed() -> Generator[None, None, Completion]:
            nonlocal checkpoint, draft
            try:
                looked_up = partial(lap, "lookup")
                reading = decoder.read(prompt.ids, prompt.owner, cost, stack, looked_up)
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
                    copier=self._copier(request),
                )
                draft = yield from timed(covering, "heal")
                completion = None
                for _ in timed(decoder.write(draft, raw=request.raw, work=cost), "decode"):
                    completion = finished()
                    if completion is not None:
                        break
                    yield
                completion = completion or answer("eos", text())
                if not request.n_alternatives or request.raw:
                    return completion
                others: list[Alternative] = []
                try:
                    branches = self._alternatives(
                        request, draft, rule, completion.text, others, cost
                    )
                    yield from timed(branches, "alternatives")
                except _OutOfTimeError:
                    pass
                return replace(
                    completion,
                    alternatives=tuple(others),
                    n_alternative_passes=cost.n_alternative_passes,
                    timings_ms=dict(times),
                )
            except _OutOfTimeError:
                shown = text() if request.raw else rule.unfinished(text())
                # The last pass may have been all that was missing.
                return finished() or answer("deadline", shown)

        try:
            try:
                completion = yield from completed()
            except (MemoryError, RuntimeError) as error:
                # The trail makes its states when a pass needs them: without it there is room, and
                # the cache has others.
                if not is_out_of_memory(error) or decoder.trails.pop(prompt.owner, None) is None:
                    raise
                log.warning("no memory to go on along a trail: %s", error)
                stack.close()
                checkpoint = draft = None
                completion = yield from completed()
            yield completion
        finally:
            with stack:
                if draft is not None and checkpoint is not None and not len(prompt.tail):
                    decoder.keep(checkpoint, prompt.owner, draft.walk)

    def _alternatives(
        self,
        request: CompletionRequest,
        draft: Draft,
        rule: StopRule,
        shown: str,
        others: list[Alternative],
        cost: Work,
    ) -> Generator[None, None, None]:
        """Write other continuations into `others`, yielding after each pass.

        They leave the answer at a token of its first line, where the second best was the most
        probable, and go on from the state there: nothing is read again.
        """
        seen = {shown}
        for n, second in _branch_points(draft)[: 2 * request.n_alternatives]:
            if len(others) == request.n_alternatives:
                return
            work = Work()
            other = self.decoder.branch(draft, n, second, work)
            writing = self.decoder.write(other, raw=False, work=work)
            stop, end = "", rule.end(_shown(other))
            while not stop and end is None:
                n_passes = work.n_passes
                if other.end is not None or next(writing, _ENDED) is _ENDED:
                    stop = "eos"
                elif len(other.token_ids) - n > request.max_tokens:
                    stop = "limit"
                end = rule.end(_shown(other))
                cost.n_alternative_passes += work.n_passes - n_passes
                yield
            text = _shown(other)[:end]
            if end is not None:
                stop = "block" if request.multiline else "line"
            if text not in seen:
                seen.add(text)
                others.append(Alternative(text=text, log_prob=other.log_prob(), stop=stop))

    def _copier(self, request: CompletionRequest) -> Copier:
        """Give what the answer may be copied from: the texts around the cursor and elsewhere."""
        return Copier(
            self.decoder.tokenizer,
            request.header + request.prefix,
            (request.suffix, *request.sources),
            weights=None if request.raw else self.decoder.copy_weights,
        )

    def _proposal(self, request: CompletionRequest, held: bytes) -> tuple[int, ...]:
        """Give a proposed continuation as tokens, the held-back text first."""
        if not request.proposal:
            return ()
        text = held.decode("utf-8", errors="ignore") + request.proposal
        return tuple(self.decoder.tokenizer.encode(text)[:MAX_PROPOSAL_TOKENS])


def _shown(draft: Draft) -> str:
    # A character may be cut in the middle of its bytes while tokens are still to come.
    return draft.written.decode("utf-8", errors="ignore")


def _branch_points(draft: Draft) -> list[tuple[int, Second]]:
    """Give where the first line could have gone on otherwise, the most probable other first."""
    n = draft.n_first_line()
    points = [(i, second) for i, second in enumerate(draft.seconds[:n]) if second is not None]
    if draft.end is not None and draft.end[1] is not None and n == len(draft.token_ids):
        points.append((n, draft.end[1]))
    return sorted(points, key=lambda point: -point[1][1])


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
