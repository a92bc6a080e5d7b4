"""One request's way through the model: read the prompt, cover the held-back text, write on.

Everything here is a generator that yields after each pass over the weights, so that the engine can
take turns, stop and be stepped by hand.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from engine.cache import SPACING_TOKENS, Checkpoint, StateCache
from engine.covering import Covering
from engine.mamba2 import Pass
from engine.slots import if_memory_allows
from engine.state import RecurrentState
from engine.trail import Trail
from engine.vocabulary_trie import VocabularyTrie
from engine.walk import Walk

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator
    from contextlib import ExitStack

    from numpy.typing import NDArray
    from torch import Tensor

    from engine.copying import Candidate, Copier, CopyWeights
    from engine.mamba2 import InputLog, Mamba2
    from engine.tokenizer import Tokenizer

Steps = Generator[None, None, None]
# A token that was not taken, and its log-probability.
Second = tuple[int, float]

_FIRST_LINE = re.compile(rb"\s*[^\s][^\r\n]*[\r\n]")

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


@dataclass(kw_only=True)
class Draft:
    """A completion being written. The last token may still have to be walked.

    `n_held` bytes of `text` were given; `copier` finds what its next tokens may be copied from.
    """

    walk: Walk
    copier: Copier | None = None
    n_held: int = 0
    token_ids: list[int] = field(default_factory=list)
    text: bytes = b""
    # For each token: where it ends in `text`, its log-probability, and the next best token then.
    ends: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    seconds: list[Second | None] = field(default_factory=list)
    # Tokens that stand before the walk's start.
    n_before: int = 0
    # Copied text whose first token is the last one: worth a pass over all of it.
    ahead: tuple[int, ...] = ()
    # Of the end-of-sequence token that ended it, if one did; it is in none of the lists.
    end: tuple[float, Second | None] | None = None

    @property
    def rows(self) -> list[Tensor] | None:
        """Give the logits that predicted each token, if they are kept."""
        if self.walk.rows is None:
            return None
        return [*self.walk.rows, self.walk.row][: len(self.token_ids)]

    @property
    def written(self) -> bytes:
        """Give what was written behind the held-back text."""
        return self.text[self.n_held :]

    def add(self, token_id: int, piece: bytes, log_prob: float, second: Second | None) -> None:
        """Append a token."""
        self.token_ids.append(token_id)
        self.text += piece
        self.ends.append(len(self.text))
        self.log_probs.append(log_prob)
        self.seconds.append(second)

    def n_first_line(self) -> int:
        """Give the number of tokens up to the end of the first line written.

        Its break counts to it; a line with nothing but blanks on it does not count.
        """
        found = _FIRST_LINE.match(self.written)
        if found is None:
            return len(self.token_ids)
        return bisect_left(self.ends, self.n_held + found.end()) + 1

    def log_prob(self) -> float:
        """Give the first line's joint log-probability, with that of the token that ended it."""
        n = self.n_first_line()
        total = sum(self.log_probs[:n], 0.0)
        if _FIRST_LINE.match(self.written) is None and self.end is not None:
            return total + self.end[0]
        return total if self.token_ids else -math.inf


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
        self.trie = VocabularyTrie(tokenizer.pieces)
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
        self.banned = torch.tensor(banned, dtype=torch.long, device=model.device)

    @property
    def trail_bytes(self) -> int:
        """Give the bytes of all trails."""
        # Of a copy, made at once: who counts may be on another thread than who decodes.
        return sum(trail.n_bytes for trail in list(self.trails.values()))

    def n_missing(self, ids: NDArray[np.int32], owner: Hashable) -> int:
        """Give how many of a prompt's tokens would have to be read."""
        trail = self.trails.get(owner)
        n_walked = 0 if trail is None else trail.common(ids)
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
        walk = Walk(self.model, at, work, keep_rows=keep_rows)
        known = self._walked(at, owner)
        if known is not None:
            walk.propose(*known)
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
            row = walk.row
            if not raw:
                row = row.index_fill(0, self.banned, -torch.inf)
            log_probs = torch.log_softmax(row, dim=-1)
            candidates = [] if copier is None else copier.candidates(draft.written)
            if copier is not None and not raw:
                log_probs = copier.mixed(log_probs, candidates)
            # In one piece: to read from a device is to wait for it.
            best = torch.stack([part.double() for part in log_probs.topk(2)]).tolist()
            log_prob, next_best = best[0]
            token_id, second_id = map(int, best[1])
            if token_id == self.tokenizer.eos_id:
                draft.end = log_prob, (second_id, next_best)
                return
            draft.ahead = ()
            if copier is not None:
                draft.ahead = _worth_reading(
                    copier, candidates, token_id, log_prob, written=draft.written
                )
            piece = (
                self.tokenizer.piece_bytes(token_id) if token_id < self.tokenizer.n_vocab else b""
            )
            draft.add(token_id, piece, log_prob, (second_id, next_best))
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
        with if_memory_allows("keep an answer's states"):
            walked = walk.run()
            if walked is not None:
                self._lay(walked, at, owner, leased=True)

    def forget(self, document: str) -> None:
        """Drop the trails of a document, whose owners are pairs that begin with it."""
        for owner in [key for key in self.trails if isinstance(key, tuple) and key[0] == document]:
            del self.trails[owner]

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
            hidden, log, n_before = result.hidden, result.log, 0
        else:
            n_before = next(n for n in (0, *lengths) if len(run) - n <= MAX_LOGGED_TOKENS)
            reading = self.model.read(tokens, found.state, lengths, n_before)
            states, hidden, log = reading.states, reading.hidden, reading.log
        reached = [
            Checkpoint(ids[: start + n], state, hidden[n - 1].clone())
            for n, state in zip(lengths, states, strict=True)
        ]
        if n_before < len(run):
            at, leased = (reached[lengths.index(n_before)], False) if n_before else (found, leased)
            read = (run[n_before:].tolist(), log, hidden[n_before:].clone())
            self._lay(read, at, owner, leased=leased, after=states[-1])
        return reached

    def _deepest(
        self, ids: NDArray[np.int32], owner: Hashable, stack: ExitStack
    ) -> tuple[Checkpoint, bool, str]:
        """Give the deepest state kept on the way to `ids`, whether it is leased, and its source."""
        trail = self.trails.get(owner)
        n_walked = 0 if trail is None else trail.common(ids)
        if not n_walked or self.cache.known(ids) > n_walked:
            lease = self.cache.longest_prefix(ids, owner)
            if lease is not None:
                return stack.enter_context(lease), True, f"tier{lease.tier}"
        if trail is not None and n_walked:
            with if_memory_allows("go back on a trail"):
                found = trail.at(n_walked)
                self.n_trail_hits += 1
                return found, False, "trail"
            del self.trails[owner]
            return self._deepest(ids, owner, stack)
        hidden = torch.empty(0, device=self.model.device)
        return Checkpoint(np.empty(0, np.int32), self.model.initial_state(), hidden), False, "none"

    def _walked(self, at: Checkpoint, owner: Hashable) -> tuple[list[int], Pass] | None:
        """Give what the owner's trail has behind a checkpoint, as a pass that was made already."""
        trail = self.trails.get(owner)
        if trail is None or not trail.passes(at.ids):
            return None
        with if_memory_allows("go on along a trail"):
            rest = trail.rest(len(at.ids))
            if rest is None:
                return None
            tokens, log, hidden = rest
            return tokens, Pass(self.model.logits(hidden), hidden, at.state, log, self.model.A)
        return None

    def _lay(
        self,
        run: tuple[list[int], InputLog, Tensor],
        at: Checkpoint,
        owner: Hashable,
        *,
        leased: bool,
        after: RecurrentState | None = None,
    ) -> None:
        """Lay tokens that were read after a checkpoint on the owner's trail; it begins there else.

        Asks for the trail anew each time: between passes, another request may have moved it.
        """
        tokens, log, hidden = run
        trail = self.trails.pop(owner, None)  # lost, if memory runs out half-way
        with if_memory_allows("lay a trail"):
            if trail is None or not trail.passes(at.ids):
                trail = self._begin_trail(at, leased=leased)
            end = np.append(at.ids, np.asarray(tokens, dtype=np.int32))
            # What an earlier answer wrote farther ahead stays.
            if not trail.passes(end):
                trail.cut(len(at.ids))
                trail.move_up()
                trail.extend(tokens, log, hidden)
            if after is not None:
                trail.remember(len(end), after)
            self.trails[owner] = trail
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
