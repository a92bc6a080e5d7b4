"""One request's way from text to completion, pass by pass."""

from __future__ import annotations

import logging
import math
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch

from engine.alternatives import write_alternatives, write_likelier
from engine.copying import Copier
from engine.request import Alternative, Completion
from engine.slots import if_memory_allows, is_out_of_memory
from engine.stopping import StopRule

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from engine.cache import Checkpoint
    from engine.decode import Decoder, Work
    from engine.draft import Draft
    from engine.prompts import Prompt, Prompts
    from engine.request import CompletionRequest

log = logging.getLogger(__name__)

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
        way = _Way(
            decoder=self.decoder,
            request=request,
            prompt=prompt,
            cost=cost,
            lap=lap,
            submitted=submitted,
            only_read=only_read,
        )
        try:
            try:
                completion = yield from way.completion()
            except (MemoryError, RuntimeError) as error:
                # The trail makes its states when a pass needs them: without it there is room, and
                # the cache has others.
                if not is_out_of_memory(error) or not way.leave_trail():
                    raise
                log.warning("no memory to go on along a trail: %s", error)
                completion = yield from way.completion()
            yield completion
        finally:
            way.end()


@dataclass(eq=False, kw_only=True)
class _Way:
    """The way of one request, and how far it has come. Its generators yield after each pass."""

    decoder: Decoder
    request: CompletionRequest
    prompt: Prompt
    cost: Work
    lap: Lap
    submitted: float
    only_read: bool
    # Holds the leases of what the way stands on.
    stack: ExitStack = field(default_factory=ExitStack)
    # At the end of the prompt's ids, without its tail.
    checkpoint: Checkpoint | None = None
    draft: Draft | None = None

    def __post_init__(self) -> None:
        request = self.request
        self.rule = StopRule(
            multiline=request.multiline,
            line_before=request.prefix.rpartition("\n")[2],
            nearby=(request.prefix, request.suffix, *request.sources),
            with_block=request.with_block,
        )

    def completion(self) -> Generator[None, None, Completion]:
        """Go all the way to the answer, or as far as there is time."""
        try:
            at = yield from self._read()
            if self.only_read:
                return self._answer("limit", "")
            draft = yield from self._cover(at)
            completion = yield from self._write(draft)
            if self.request.raw:
                return completion
            if self.request.n_alternatives:
                return (yield from self._with_alternatives(completion, draft))
            if self.request.search_above is None or completion.stop == "limit":
                return completion
            floor = max(self.request.search_above, completion.log_prob)
            return (yield from self._likeliest(completion, draft, floor))
        except _OutOfTimeError:
            text = self._text()
            shown = text if self.request.raw else self.rule.unfinished(text)
            # The last pass may have been all that was missing.
            return self._finished() or self._answer("deadline", shown)

    def leave_trail(self) -> bool:
        """Drop the document's trail, and go back to the start; False if it has none."""
        if self.decoder.trails.pop(self.prompt.owner, None) is None:
            return False
        self.stack.close()
        self.checkpoint = self.draft = None
        # They are generated anew.
        self.cost.n_generated = 0
        return True

    def end(self) -> None:
        """Keep what was computed, and hand back what was leased."""
        with self.stack:
            if self.draft is not None and self.checkpoint is not None and not len(self.prompt.tail):
                self.decoder.keep(self.checkpoint, self.prompt.owner, self.draft.walk)

    def _read(self) -> Generator[None, None, Checkpoint]:
        """Bring the state to the end of the prompt."""
        looked_up = partial(self.lap, "lookup")
        reading = self.decoder.read(
            self.prompt.ids, self.prompt.owner, self.cost, self.stack, looked_up
        )
        self.checkpoint = yield from self._timed(reading, "prefill")
        if not len(self.prompt.tail):
            return self.checkpoint
        extending = self.decoder.extend(self.checkpoint, self.prompt.tail, self.cost)
        return (yield from self._timed(extending, "prefill"))

    def _cover(self, at: Checkpoint) -> Generator[None, None, Draft]:
        """Begin the draft: the held-back text on its best token path, and one token more."""
        covering = self.decoder.cover(
            self.prompt.held,
            at,
            # What is laid on a trunk for one answer leaves nothing on its trail.
            None if len(self.prompt.tail) else self.prompt.owner,
            self.cost,
            keep_rows=self.request.keep_logits,
            proposal=self._proposal(),
            copier=self._copier(),
        )
        self.draft = yield from self._timed(covering, "heal")
        return self.draft

    def _write(self, draft: Draft) -> Generator[None, None, Completion]:
        """Write on until the answer ends."""
        writing = self.decoder.write(draft, raw=self.request.raw, work=self.cost)
        for _ in self._timed(writing, "decode"):
            completion = self._finished()
            if completion is not None:
                return completion
            yield
        return self._answer("eos", self._text())

    def _with_alternatives(
        self, completion: Completion, draft: Draft
    ) -> Generator[None, None, Completion]:
        """Add other continuations to a completion, as many as there is time for."""
        others: list[Alternative] = []
        writing = write_alternatives(
            self.decoder, draft, self.request, self.rule, completion.text, others, self.cost
        )
        with suppress(_OutOfTimeError), if_memory_allows("write alternatives"):
            yield from self._timed(writing, "alternatives")
        return replace(
            completion,
            alternatives=tuple(others),
            n_alternative_passes=self.cost.n_alternative_passes,
            timings_ms=dict(self.lap.times),
        )

    def _likeliest(
        self, completion: Completion, draft: Draft, floor: float
    ) -> Generator[None, None, Completion]:
        """Give a completion, or one whose first line is more probable, if there is time for it."""
        branch = None
        n_given = len(draft.token_ids) - completion.n_generated
        limit = n_given + self.request.max_tokens
        writing = write_likelier(self.decoder, draft, self.rule, self.cost, limit, floor)
        with suppress(_OutOfTimeError), if_memory_allows("try another line"):
            branch = yield from self._timed(writing, "alternatives")
        if branch is not None:
            completion = replace(
                self._answer(branch.stop, branch.text, branch.draft),
                n_generated=len(branch.draft.token_ids) - n_given,
            )
        return replace(
            completion,
            n_alternative_passes=self.cost.n_alternative_passes,
            timings_ms=dict(self.lap.times),
        )

    def _timed(self, steps: Generator[None, None, T], stage: str) -> Generator[None, None, T]:
        """Run steps of a stage, one after the other, for as long as there is time."""
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                self.lap(stage)
                result: T = stop.value
                return result
            self.lap(stage)
            if self._is_late():
                raise _OutOfTimeError
            yield
            self.lap("queue")

    def _is_late(self) -> bool:
        deadline_ms = self.request.deadline_ms
        if deadline_ms is None or self.only_read:
            return False
        return 1e3 * (self.lap.clock() - self.submitted) >= deadline_ms

    def _finished(self) -> Completion | None:
        """Give the answer if the draft has reached its end."""
        text = self._text()
        is_full = self.cost.n_generated >= self.request.max_tokens
        if self.request.raw:
            return self._answer("limit", text) if is_full else None
        end = self.rule.end(text)
        if end is not None:
            return self._answer("block" if self.rule.is_block(text) else "line", text[:end])
        if is_full or self.rule.is_loop(text):
            return self._answer("limit", self.rule.unfinished(text))
        return None

    def _text(self) -> str:
        return "" if self.draft is None else self.draft.shown

    def _answer(self, stop: str, text: str, branch: Draft | None = None) -> Completion:
        draft, cost = branch or self.draft, self.cost
        return Completion(
            text=text,
            stop=stop,
            kind=self.prompt.kind,
            prompt=self.prompt.whole,
            token_ids=() if draft is None else tuple(draft.token_ids),
            log_probs=() if draft is None else tuple(draft.log_probs),
            log_prob=-math.inf if draft is None else draft.log_prob(),
            n_recomputed=cost.n_recomputed,
            n_generated=cost.n_generated,
            n_passes=cost.n_passes,
            n_healing_passes=cost.n_healing_passes,
            source=cost.source,
            timings_ms=dict(self.lap.times),
            logits=torch.stack(draft.rows) if draft is not None and draft.rows else None,
        )

    def _copier(self) -> Copier:
        """Give what the answer may be copied from: the texts around the cursor and elsewhere."""
        return Copier(
            self.decoder.tokenizer,
            self.request.header + self.request.prefix,
            (self.request.suffix, *self.request.sources),
            weights=None if self.request.raw else self.decoder.copy_weights,
            below=self.request.suffix,
        )

    def _proposal(self) -> tuple[int, ...]:
        """Give a proposed continuation as tokens, the held-back text first."""
        if not self.request.proposal:
            return ()
        text = self.prompt.held.decode("utf-8", errors="ignore") + self.request.proposal
        return tuple(self.decoder.tokenizer.encode(text)[:MAX_PROPOSAL_TOKENS])


class Lap:
    """Adds the time since the last call to a stage."""

    def __init__(self, clock: Callable[[], float], times: dict[str, float]) -> None:
        """Start now; `clock` gives seconds, `times` gets milliseconds."""
        self.clock, self.times, self._last = clock, times, clock()

    def __call__(self, stage: str) -> None:
        """End a stretch of `stage`."""
        now = self.clock()
        self.times[stage] = self.times.get(stage, 0.0) + 1e3 * (now - self._last)
        self._last = now
