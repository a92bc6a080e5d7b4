"""One request's way through the model: read the prompt, cover the held-back text, write on.

Everything here is a generator that yields after each pass over the weights, so that the engine can
take turns, stop and be stepped by hand.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from engine.cache import SPACING_TOKENS, Checkpoint, StateCache
from engine.mamba2 import Pass
from engine.slots import if_memory_allows
from engine.state import RecurrentState
from engine.trail import Trail
from engine.vocabulary_trie import VocabularyTrie
from engine.walk import Walk

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator
    from contextlib import ExitStack

    from numpy.typing import NDArray
    from torch import Tensor

    from engine.mamba2 import InputLog, Mamba2
    from engine.tokenizer import Tokenizer

Steps = Generator[None, None, None]

# Longest run that goes through pass and commit; longer ones are prefilled in chunks.
MAX_PASS_TOKENS = 16
MAX_COVER_PASSES = 32
MAX_TRAILS = 64


@dataclass(kw_only=True)
class Work:
    """What one request cost, in tokens and passes over the weights."""

    n_recomputed: int = 0
    n_passes: int = 0
    n_healing_passes: int = 0
    n_generated: int = 0
    # Where the state came from: "trail", "tier0", "tier1" or "none".
    source: str = "none"


@dataclass(kw_only=True)
class Draft:
    """A completion being written. The last token may still have to be walked."""

    walk: Walk
    token_ids: list[int] = field(default_factory=list)
    text: bytes = b""

    @property
    def rows(self) -> list[Tensor] | None:
        """Give the logits that predicted each token, if they are kept."""
        if self.walk.rows is None:
            return None
        return [*self.walk.rows, self.walk.row][: len(self.token_ids)]


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
    ) -> None:
        """Index the vocabulary."""
        self.model, self.tokenizer, self.cache = model, tokenizer, cache
        self.trie = VocabularyTrie(tokenizer.pieces)
        self.trails: OrderedDict[Hashable, Trail] = OrderedDict()
        self.trail_budget_bytes = trail_budget_bytes
        # Measured at warm-up, so that a pass takes about 25 ms.
        self.chunk_tokens = 64
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
        return sum(trail.n_bytes for trail in self.trails.values())

    def n_missing(self, ids: NDArray[np.int32], owner: Hashable) -> int:
        """Give how many of a prompt's tokens would have to be read."""
        trail = self.trails.get(owner)
        n_walked = 0 if trail is None else trail.common(ids)
        return len(ids) - max(n_walked, self.cache.known(ids))

    def read(
        self, ids: NDArray[np.int32], owner: Hashable, work: Work, stack: ExitStack
    ) -> Generator[None, None, Checkpoint]:
        """Bring the model to the end of `ids` from the deepest state kept; give that state.

        Yields after every pass. A prompt that is kept whole costs none. The state given may be a
        view into the cache: it is valid until `stack` is closed.
        """
        found, leased, work.source = self._deepest(ids, owner, stack)
        cuts = self.cuts(len(found.ids), len(ids))
        while len(found.ids) < len(ids):
            start, end = len(found.ids), next(cuts)
            found = self._read_on(found, ids[:end], owner, leased=leased)
            work.n_recomputed += end - start
            work.n_passes += 1
            # Nothing reads what the pass began from any more: its room may be needed.
            stack.close()
            self.cache.add(found, owner)
            leased = False
            yield
            if self.n_missing(ids, owner) < len(ids) - end:
                # Another request of the same owner has read on meanwhile.
                deeper, deeper_leased, _ = self._deepest(ids, owner, stack)
                if len(deeper.ids) > end:
                    found, leased = deeper, deeper_leased
                    cuts = self.cuts(len(found.ids), len(ids))
        return found

    def cuts(self, start: int, end: int) -> Iterator[int]:
        """Yield where the passes over tokens start to end stop.

        Chunk by chunk, and where checkpoints will be wanted for going back: closer together
        towards the end (a short run needs none: its log does for that).
        """
        wanted = set()
        distance = 0
        while end - start > MAX_PASS_TOKENS and start < end - distance:
            wanted.add(end - distance)
            distance = 2 * distance + SPACING_TOKENS
        while start < end:
            limit = min(start + max(self.chunk_tokens, MAX_PASS_TOKENS), end)
            start = min((p for p in wanted if start < p <= limit), default=limit)
            yield start

    def extend(
        self, at: Checkpoint, tokens: NDArray[np.int32], work: Work
    ) -> Generator[None, None, Checkpoint]:
        """Read more tokens after a checkpoint without keeping anything of them."""
        for start in range(0, len(tokens), self.chunk_tokens):
            run = tokens[start : start + self.chunk_tokens]
            rows, state = self.model.prefill(
                torch.from_numpy(run.astype(np.int64))[None].to(self.model.device), at.state
            )
            at = Checkpoint(np.append(at.ids, run), state, rows[0, -1])
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
    ) -> Generator[None, None, Draft]:
        """Write the held-back bytes again, on the token path of highest joint probability.

        The path is the most probable among all token sequences whose bytes start with `held` and
        whose last token is the one that reaches its end. Best-first search: paths are expanded in
        the order of their probability, so the first whole one is the best; an expansion is one
        read-only pass. Yields after every pass. A `proposal` (tokens that may follow) is checked
        in one pass, the held-back text with it; tokens that the owner's trail has walked already
        are proposed without a pass. Neither changes the answer.
        """
        walk = Walk(self.model, at, work, keep_rows=keep_rows)
        known = self._walked(at, owner)
        if known is not None:
            walk.propose(*known)
        elif proposal:
            walk.propose(proposal)
            yield
        draft = Draft(walk=walk)
        if held:
            path = yield from self._best_path(held, walk, work)
            if walk.follow(path):
                # Counted apart from the passes that advance the prompt.
                work.n_passes -= 1
                work.n_healing_passes += 1
                yield
            draft.token_ids = list(path)
            draft.text = b"".join(map(self.tokenizer.piece_bytes, path))
        return draft

    def write(self, draft: Draft, *, raw: bool, work: Work) -> Steps:
        """Add the most probable token to `draft` again and again; yield after each.

        Ends by itself only at the end-of-sequence token, which is not added. Unless `raw`, control
        pieces are never chosen.
        """
        while True:
            row = draft.walk.row
            if not raw:
                row = row.index_fill(0, self.banned, -torch.inf)
            token_id = int(row.argmax())
            if token_id == self.tokenizer.eos_id:
                return
            draft.token_ids.append(token_id)
            if token_id < self.tokenizer.n_vocab:
                draft.text += self.tokenizer.piece_bytes(token_id)
            work.n_generated += 1
            yield
            # Only once the caller wants more: the last token of an answer needs no pass.
            draft.walk.follow((token_id,))

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
        owner: Hashable,
        *,
        leased: bool,
    ) -> Checkpoint:
        """Read up to the end of `ids` in one pass; a short one goes on the owner's trail."""
        run = ids[len(found.ids) :]
        tokens = torch.from_numpy(run.astype(np.int64)).to(self.model.device)
        if len(run) > MAX_PASS_TOKENS:
            rows, state = self.model.prefill(tokens[None], found.state)
            return Checkpoint(ids, state, rows[0, -1].clone())
        result = self.model(tokens, found.state)
        after = Checkpoint(ids, result.commit(len(run)), result.hidden[-1].clone())
        read = (run.tolist(), result.log, result.hidden)
        self._lay(read, found, owner, leased=leased, after=after.state)
        return after

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
                return trail.at(n_walked), False, "trail"
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

    def _best_path(
        self, held: bytes, walk: Walk, work: Work
    ) -> Generator[None, None, tuple[int, ...]]:
        # (-log probability, path, bytes of `held` left); a whole path has none left.
        frontier: list[tuple[float, tuple[int, ...], bytes]] = []

        def expand(cost: float, path: tuple[int, ...], left: bytes, row: Tensor) -> None:
            log_probs = torch.log_softmax(row, dim=-1)
            partial, complete = self.trie.covering(left)
            if len(complete):
                candidates = torch.tensor(complete, device=row.device)
                best = int(candidates[log_probs[candidates].argmax()])
                heapq.heappush(frontier, (cost - float(log_probs[best]), (*path, best), b""))
            values = log_probs[[token_id for token_id, _ in partial]].tolist() if partial else []
            for (token_id, n_bytes), value in zip(partial, values, strict=True):
                heapq.heappush(frontier, (cost - value, (*path, token_id), left[n_bytes:]))

        expand(0.0, (), held, walk.row)
        for _ in range(MAX_COVER_PASSES):
            cost, path, left = heapq.heappop(frontier)
            if not left:
                return path
            row, took_pass = walk.row_after(path)
            expand(cost, path, left, row)
            if took_pass:
                work.n_healing_passes += 1
                yield
        # The search was given up: any covering path will do.
        whole = [entry for entry in frontier if not entry[2]]
        if whole:
            return min(whole)[1]
        cost, path, left = min(frontier)
        return (*path, *self._spelled(left))

    def _spelled(self, text: bytes) -> Iterator[int]:
        """Yield pieces for exactly these bytes, the longest each time; single bytes always fit."""
        while text:
            # One byte more, so that pieces of all of `text` count as partial.
            token_id, n_bytes = self.trie.covering(text + b"\0")[0][-1]
            yield token_id
            text = text[n_bytes:]
