"""One request's way through the model: read the prompt, cover the held-back text, write on.

Everything here is a generator that yields after each pass over the weights, so that the engine can
take turns, stop and be stepped by hand.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from engine.cache import SPACING_TOKENS, Checkpoint, StateCache
from engine.covering import Covering
from engine.draft import Draft
from engine.run import Run, between
from engine.slots import if_memory_allows
from engine.state import RecurrentState
from engine.trail import Trail
from engine.vocabulary_trie import VocabularyTrie
from engine.walk import Walk
from kernels.token_choice import choose

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator
    from contextlib import ExitStack

    from numpy.typing import NDArray

    from engine.copying import Candidate, Copier, CopyWeights
    from engine.draft import Second
    from engine.mamba2 import Mamba2
    from engine.tokenizer import Tokenizer

Steps = Generator[None, None, None]

# Longest run that goes through pass and commit; longer ones are prefilled in chunks.
MAX_PASS_TOKENS = 16
# Of a longer run, so much of its end at most goes on the owner's trail.
MAX_LOGGED_TOKENS = MAX_PASS_TOKENS + SPACING_TOKENS
# States that one pass may give besides the last: each is as large as the last.
MAX_PLACES_BYTES = 2**30
MAX_TRAILS = 64
# Copied text is read ahead once its first token has that probability and so long a match.
MIN_DRAFT_PROBABILITY, MIN_DRAFT_MATCH_BYTES = 0.5, 6


@dataclass(kw_only=True)
class Work:
    """What one request cost, in tokens and passes over the weights."""

    n_recomputed: int = 0
    n_passes: int = 0
    n_healing_passes: int = 0
    n_generated: int = 0
    n_alternative_passes: int = 0
    # Where the state came from: "trail", "tier0", "tier1" or "none".
    source: str = "none"


class Decoder:
    """The model with its vocabulary and its kept states. Used by the engine's thread alone.

    An `owner` is whose prompts grow out of each other: one epoch, or one trunk, of a document.
    """

    def __init__(
        self,
        model: Mamba2,
        tokenizer: Tokenizer,
        cache: StateCache,
        *,
        trail_budget_bytes: int = 2**28,
        copy_weights: CopyWeights | None = None,
    ) -> None:
        """Index the vocabulary; `copy_weights` are for copiers that mix."""
        self.model, self.tokenizer, self.cache = model, tokenizer, cache
        self.trie = VocabularyTrie(tokenizer.pieces, model.device)
        self.trails: OrderedDict[Hashable, Trail] = OrderedDict()
        self.trail_budget_bytes = trail_budget_bytes
        self.copy_weights = copy_weights
        # Prompts read on from a trail: none of them asks the cache.
        self.n_trail_hits = 0
        # Measured at warm-up, so that a pass takes about 25 ms.
        self.chunk_tokens = 64
        self.max_places = 1 + MAX_PLACES_BYTES // model.config.state_bytes(model.dtype)
        banned = [
            token_id
            for token_id, piece in enumerate(tokenizer.pieces)
            if not piece and token_id != tokenizer.eos_id
        ]
        # The model's vocabulary may be padded past the tokenizer's.
        banned += range(tokenizer.n_vocab, model.config.vocab_size)
        self.any_ids, self.banned = (
            torch.tensor(ids, dtype=torch.long, device=model.device)
            for ids in (range(model.config.vocab_size), banned)
        )
        # What may be written: pieces of text, and the end of the sequence.
        self.text_ids = self.any_ids[~torch.isin(self.any_ids, self.banned)]

    @property
    def trail_bytes(self) -> int:
        """Give the bytes of all trails."""
        # Of a copy, made at once: who counts may be on another thread than who decodes.
        return sum(trail.n_bytes for trail in list(self.trails.values()))

    def n_missing(self, ids: NDArray[np.int32], owner: Hashable) -> int:
        """Give how many of a prompt's tokens would have to be read."""
        trail = self.trails.get(owner)
        n_walked = 0 if trail is None else trail.common(ids)
        if n_walked == len(ids):
            return 0
        return len(ids) - max(n_walked, self.cache.known(ids))

    def read(
        self,
        ids: NDArray[np.int32],
        owner: Hashable,
        work: Work,
        stack: ExitStack,
        on_found: Callable[[], None] = lambda: None,
    ) -> Generator[None, None, Checkpoint]:
        """Bring the model to the end of `ids` from the deepest state kept; give that state.

        Yields after every pass. A prompt that is kept whole costs none. The state given may be a
        view into the cache: it is valid until `stack` is closed. `on_found` is called once the
        deepest state is found, before the first pass.
        """
        found, leased, work.source = self._deepest(ids, owner, stack)
        on_found()
        passes = self.passes(len(found.ids), len(ids))
        while len(found.ids) < len(ids):
            start, places = len(found.ids), next(passes)
            reached = self._read_on(found, ids, places, owner, leased=leased)
            found, end = reached[-1], places[-1]
            work.n_recomputed += end - start
            work.n_passes += 1
            # Nothing reads what the pass began from any more: its room may be needed.
            stack.close()
            for checkpoint in reached:
                self.cache.add(checkpoint, owner)
            leased = False
            yield
            if self.n_missing(ids, owner) < len(ids) - end:
                # Another request of the same owner has read on meanwhile.
                deeper, deeper_leased, _ = self._deepest(ids, owner, stack)
                if len(deeper.ids) > end:
                    found, leased = deeper, deeper_leased
                    passes = self.passes(len(found.ids), len(ids))
        return found

    def passes(self, start: int, end: int) -> Iterator[list[int]]:
        """Yield the places of each pass over tokens start to end; the last one is where it stops.

        A place is where a checkpoint is left: at the end of each pass, and where it will be wanted
        for going back, closer together towards the end (a short run needs none: its log does for
        that).
        """
        wanted = []
        distance = 0
        while end - start > MAX_PASS_TOKENS and start < end - distance:
            wanted.append(end - distance)
            distance = 2 * distance + SPACING_TOKENS
        while start < end:
            limit = min(start + max(self.chunk_tokens, MAX_PASS_TOKENS), end)
            places = [place for place in reversed(wanted) if start < place < limit]
            places = [*places, limit][: self.max_places]
            yield places
            start = places[-1]

    def extend(
        self, at: Checkpoint, tokens: NDArray[np.int32], work: Work
    ) -> Generator[None, None, Checkpoint]:
        """Read more tokens after a checkpoint without keeping anything of them."""
        for start in range(0, len(tokens), self.chunk_tokens):
            run = tokens[start : start + self.chunk_tokens]
            read = torch.from_numpy(run.astype(np.int64)).to(self.model.device)
            reading = self.model.read(read, at.state, (len(run),), len(run))
            at = Checkpoint(np.append(at.ids, run), reading.states[0], reading.hidden[-1])
            work.n_recomputed += len(run)
            work.n_passes += 1
            yield
        return at

    def cover(
        self,
        held: bytes,
        at: Checkpoint,
        owner: Hashable,
        work: Work,
        *,
        keep_rows: bool = False,
        proposal: tuple[int, ...] = (),
        copier: Copier | None = None,
    ) -> Generator[None, None, Draft]:
        """Write the held-back bytes again, on the token path of highest joint probability.

        The path is the most probable among all token sequences whose bytes start with `held` and
        whose last token is the one that reaches its end; `copier` has its share in what is
        probable. Yields after every pass. A `proposal` (tokens that may follow) is checked in one
        pass, the held-back text with it; tokens that the owner's trail has walked already are
        proposed without a pass. Neither changes the answer.
        """
        covering = self._covering(held, at, owner, work, keep_rows, proposal, copier)
        while True:
            try:
                next(covering)
            except StopIteration as stop:
                draft: Draft = stop.value
                return draft
            finally:
                # What was tried is kept on the trail.
                self._hold_budget()
            yield

    def write(self, draft: Draft, *, raw: bool, work: Work) -> Steps:
        """Add the most probable token to `draft` again and again; yield after each.

        Ends by itself only at the end-of-sequence token, which is not added. Unless `raw`, control
        pieces are never chosen, and the draft's copier has its share in what is probable.
        """
        copier, walk = draft.copier, draft.walk
        while True:
            # Only now that the caller wants more: the last token of an answer needs no pass.
            left = draft.token_ids[draft.n_before + len(walk.tokens) :]
            if left:
                if draft.ahead and not walk.knows(left[0]):
                    walk.propose(draft.ahead)
                walk.follow(left)
            candidates = [] if copier is None else copier.candidates(draft.written)
            copied = [] if copier is None or raw else copier.odds(candidates)
            choice = choose(walk.row, self.any_ids if raw else self.text_ids, copied=copied)
            (token_id, log_prob), second = choice.best
            if token_id == self.tokenizer.eos_id:
                draft.end = log_prob, second
                return
            draft.ahead = ()
            if copier is not None:
                draft.ahead = _worth_reading(
                    copier, candidates, token_id, log_prob, written=draft.written
                )
            piece = (
                self.tokenizer.piece_bytes(token_id) if token_id < self.tokenizer.n_vocab else b""
            )
            draft.add(token_id, piece, log_prob, second)
            work.n_generated += 1
            yield

    def branch(self, draft: Draft, n: int, second: Second, work: Work) -> Draft:
        """Begin another draft that leaves this one after n tokens; takes no pass."""
        token_id, log_prob = second
        end = draft.ends[n - 1] if n else 0
        other = Draft(
            walk=draft.walk.fork(n, work),
            copier=draft.copier,
            n_held=draft.n_held,
            token_ids=draft.token_ids[:n],
            text=draft.text[:end],
            ends=draft.ends[:n],
            log_probs=draft.log_probs[:n],
            seconds=draft.seconds[:n],
            n_before=n,
        )
        if token_id == self.tokenizer.eos_id:
            other.end = log_prob, None
        else:
            other.add(token_id, self.tokenizer.piece_bytes(token_id), log_prob, None)
        return other

    def keep(self, at: Checkpoint, owner: Hashable, walk: Walk) -> None:
        """Lay an answer's tokens behind the prompt on the owner's trail, for whoever accepts it."""
        if not walk.tokens:
            return
        trail = self.trails.get(owner)
        if trail is not None and trail.passes(np.append(at.ids, np.array(walk.tokens, np.int32))):
            self.trails.move_to_end(owner)
            return
        with if_memory_allows("keep an answer's states"):
            self._lay(walk.runs(), at, owner, leased=True)

    def forget(self, document: str) -> None:
        """Drop the trails of a document, whose owners are pairs that begin with it."""
        for owner in [key for key in self.trails if isinstance(key, tuple) and key[0] == document]:
            del self.trails[owner]

    def _covering(
        self,
        held: bytes,
        at: Checkpoint,
        owner: Hashable,
        work: Work,
        keep_rows: bool,
        proposal: tuple[int, ...],
        copier: Copier | None,
    ) -> Generator[None, None, Draft]:
        """Do what `cover` says."""
        trail = self.trails.get(owner)
        if trail is not None and not trail.passes(at.ids):
            trail = None
        n = len(at.ids)
        known = None if trail is None else trail.rows(n)
        walk = Walk(self.model, at, work, keep_rows=keep_rows, known=known)
        walked = None if trail is None else trail.rest(n)
        if walked is not None:
            walk.lay_ahead(walked)
        elif proposal:
            walk.propose(proposal)
            yield
        draft = Draft(walk=walk, copier=copier, n_held=len(held))
        if not held:
            return draft
        covering = Covering(self.trie, copier, walk.row, held)
        if copier is not None and not walk.knows(covering.first.token_id):
            ahead = _worth_reading(
                copier, covering.candidates, covering.first.token_id, covering.first.log_prob, held
            )
            if ahead:
                walk.propose(ahead)
                yield
        path = yield from covering.search(walk, work)
        token_ids = [step.token_id for step in path]
        if walk.follow(token_ids):
            # Counted apart from the passes that advance the prompt.
            work.n_passes -= 1
            work.n_healing_passes += 1
            yield
        for step in path:
            piece = self.tokenizer.piece_bytes(step.token_id)
            draft.add(step.token_id, piece, step.log_prob, step.second)
        return draft

    def _read_on(
        self,
        found: Checkpoint,
        ids: NDArray[np.int32],
        places: list[int],
        owner: Hashable,
        *,
        leased: bool,
    ) -> list[Checkpoint]:
        """Read up to the last of `places` in one pass; give the checkpoints at all of them.

        The end of what is read goes on the owner's trail: all of a short run.
        """
        start, end = len(found.ids), places[-1]
        run = ids[start:end]
        tokens = torch.from_numpy(run.astype(np.int64)).to(self.model.device)
        lengths = [place - start for place in places]
        if len(run) <= MAX_PASS_TOKENS:
            result = self.model(tokens, found.state)
            states = tuple(result.commit(n) for n in lengths)
            hidden, n_before = result.hidden, 0
            read = Run(run.tolist(), result.log, hidden, result.logits)
        else:
            n_before = next(n for n in (0, *lengths) if len(run) - n <= MAX_LOGGED_TOKENS)
            reading = self.model.read(tokens, found.state, lengths, n_before)
            states, hidden = reading.states, reading.hidden
            read = Run(run[n_before:].tolist(), reading.log, hidden[n_before:].clone())
        reached = [
            Checkpoint(ids[: start + n], state, hidden[n - 1].clone())
            for n, state in zip(lengths, states, strict=True)
        ]
        reached[-1].row = read.row(len(read) - 1) if len(read) else None
        if n_before < len(run):
            at, leased = (reached[lengths.index(n_before)], False) if n_before else (found, leased)
            self._lay([read], at, owner, leased=leased, after=states[-1])
        return reached

    def _deepest(
        self, ids: NDArray[np.int32], owner: Hashable, stack: ExitStack
    ) -> tuple[Checkpoint, bool, str]:
        """Give the deepest state kept on the way to `ids`, whether it is leased, and its source."""
        trail = self.trails.get(owner)
        n_walked = 0 if trail is None else trail.common(ids)
        if not n_walked or (n_walked < len(ids) and self.cache.known(ids) > n_walked):
            lease = self.cache.longest_prefix(ids, owner)
            if lease is not None:
                return stack.enter_context(lease), True, f"tier{lease.tier}"
        if trail is not None and n_walked:
            with if_memory_allows("go back on a trail"):
                found = trail.at(n_walked)
                if n_walked < len(ids):
                    # Here, where it may fail.
                    _ = found.state
                self.n_trail_hits += 1
                return found, False, "trail"
            del self.trails[owner]
            return self._deepest(ids, owner, stack)
        hidden = torch.empty(0, device=self.model.device)
        return Checkpoint(np.empty(0, np.int32), self.model.initial_state(), hidden), False, "none"

    def _lay(
        self,
        runs: list[Run],
        at: Checkpoint,
        owner: Hashable,
        *,
        leased: bool,
        after: RecurrentState | None = None,
    ) -> None:
        """Lay tokens that were read after a checkpoint on the owner's trail; it begins there else.

        Asks for the trail anew each time: between passes, another request may have moved it.
        """
        n, tokens = len(at.ids), [token_id for run in runs for token_id in run.tokens]
        trail = self.trails.pop(owner, None)  # lost, if memory runs out half-way
        with if_memory_allows("lay a trail"):
            if trail is None or not trail.passes(at.ids):
                trail = self._begin_trail(at, leased=leased)
            end = np.append(at.ids, np.array(tokens, np.int32))
            # What an earlier answer wrote farther ahead stays.
            if not trail.passes(end):
                n_known = trail.common(end)
                trail.cut(n_known)
                trail.move_up()
                for run in between(runs, n_known - n, len(tokens)):
                    trail.extend(run)
            if after is not None:
                trail.remember(len(end), after)
            self.trails[owner] = trail
        self._hold_budget()

    def _hold_budget(self) -> None:
        """Drop the trails that were laid longest ago, as long as there are too many."""
        while self.trails and (
            len(self.trails) > MAX_TRAILS or self.trail_bytes > self.trail_budget_bytes
        ):
            self.trails.popitem(last=False)

    def _begin_trail(self, at: Checkpoint, *, leased: bool) -> Trail:
        state = at.state
        if leased:
            # The cache may give the slot away; the trail must not notice.
            state = RecurrentState(state.conv_state.clone(), state.ssm_state.clone())
        return Trail(Checkpoint(at.ids.copy(), state, at.hidden), self.model.A)


def _worth_reading(
    copier: Copier,
    candidates: list[Candidate],
    token_id: int,
    log_prob: float,
    left: bytes = b"",
    written: bytes = b"",
) -> tuple[int, ...]:
    """Give copied text that begins with a token, where it is likely to go on; else nothing."""
    if log_prob < math.log(MIN_DRAFT_PROBABILITY):
        return ()
    for candidate in candidates:
        if candidate.token_id == token_id and candidate.n_matched >= MIN_DRAFT_MATCH_BYTES:
            run = copier.draft(candidate, written, left)
            # A single token is read without reading ahead.
            return tuple(run) if len(run) > 1 and run[0] == token_id else ()
    return ()
