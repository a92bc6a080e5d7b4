"""One request's way through the model: read the prompt, cover the held-back text, write on.

Everything here is a generator that yields after each pass over the weights, so that the engine can
take turns, stop and be stepped by hand.
"""

from __future__ import annotations

import heapq
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from engine.cache import Checkpoint, StateCache
from engine.vocabulary_trie import VocabularyTrie

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from engine.mamba2 import Mamba2
    from engine.state import RecurrentState
    from engine.tokenizer import Tokenizer

Steps = Generator[None, None, None]

# Longest run that goes through pass and commit; longer ones are prefilled in chunks.
MAX_PASS_TOKENS = 16
# Distances from the prompt's end at which a long prefill leaves checkpoints besides its chunks':
# each at most 3 times the one before plus 11, so that going back d tokens costs at most 2d + 8.
CHECKPOINT_DISTANCES = (8, 32, 96, 288, 864, 2592, 7776, 23328, 69984)
MAX_COVER_PASSES = 32


@dataclass(kw_only=True)
class Work:
    """What one request cost, in tokens and passes over the weights."""

    n_recomputed: int = 0
    n_passes: int = 0
    n_healing_passes: int = 0
    n_generated: int = 0


@dataclass(kw_only=True)
class Draft:
    """A completion being written: tokens, their text in bytes, and the model's view after them."""

    state: RecurrentState
    logits: Tensor
    token_ids: list[int] = field(default_factory=list)
    text: bytes = b""
    # Row i predicted token i; kept on request alone.
    rows: list[Tensor] = field(default_factory=list)


class Decoder:
    """The model with its vocabulary and its cached states. Used by the engine's thread alone."""

    def __init__(self, model: Mamba2, tokenizer: Tokenizer, cache: StateCache) -> None:
        """Index the vocabulary."""
        self.model, self.tokenizer, self.cache = model, tokenizer, cache
        self.trie = VocabularyTrie(tokenizer.pieces)
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

    def read(self, ids: NDArray[np.int32], work: Work) -> Generator[None, None, Checkpoint]:
        """Bring the model to the end of `ids` from the longest cached prefix; give that state.

        Yields after every pass. A prompt that is cached whole costs none.
        """
        found = self.cache.longest_prefix(ids)
        if found is None:
            empty = np.empty(0, dtype=np.int32)
            hidden = torch.empty(0, device=self.model.device)
            found = Checkpoint(empty, self.model.initial_state(), hidden)
        for end in self.cuts(len(found.ids), len(ids)):
            start = len(found.ids)
            tokens = torch.from_numpy(ids[start:end].astype(np.int64)).to(self.model.device)
            if len(tokens) <= MAX_PASS_TOKENS:
                result = self.model(tokens, found.state)
                state, hidden = result.commit(len(tokens)), result.hidden[-1].clone()
            else:
                rows, state = self.model.prefill(tokens[None], found.state)
                hidden = rows[0, -1].clone()
            work.n_recomputed += len(tokens)
            work.n_passes += 1
            # Copied, or each checkpoint would keep the ids of the whole prompt alive.
            found = Checkpoint(ids[:end].copy(), state, hidden)
            self.cache.add(found)
            yield
        return found

    def cuts(self, start: int, end: int) -> Iterator[int]:
        """Yield where the passes over tokens start to end stop: chunk by chunk, and near the end
        at the distances that going back will want."""
        wanted = sorted(p for d in CHECKPOINT_DISTANCES if start < (p := end - d))
        while start < end:
            limit = min(start + max(self.chunk_tokens, MAX_PASS_TOKENS), end)
            start = next((p for p in wanted if start < p <= limit), limit)
            yield start

    def cover(
        self, held: bytes, at: Checkpoint, work: Work, keep_rows: bool
    ) -> Generator[None, None, Draft]:
        """Write the held-back bytes again, on the token path of highest joint probability.

        The path is the most probable among all token sequences whose bytes start with `held` and
        whose last token is the one that reaches its end. Best-first search: paths are expanded in
        the order of their probability, so the first whole one is the best; each expansion is one
        read-only pass. Yields after every pass.
        """
        row = self.model.logits(at.hidden)
        if not held:
            return Draft(state=at.state, logits=row)
        path = yield from self._best_path(held, row, at.state, work)
        result = self.model(self._tensor(path), at.state)
        work.n_healing_passes += 1
        draft = Draft(
            state=result.commit(len(path)),
            logits=result.logits[-1],
            token_ids=list(path),
            text=b"".join(map(self.tokenizer.piece_bytes, path)),
        )
        if keep_rows:
            draft.rows = [row, *result.logits[:-1]]
        yield
        return draft

    def write(self, draft: Draft, raw: bool, keep_rows: bool, work: Work) -> Steps:
        """Add the most probable token to `draft` again and again; yield after each.

        Ends by itself only at the end-of-sequence token, which is not added. Unless `raw`, control
        pieces are never chosen.
        """
        while True:
            logits = draft.logits
            if not raw:
                logits = logits.index_fill(0, self.banned, -torch.inf)
            token_id = int(logits.argmax())
            if token_id == self.tokenizer.eos_id:
                return
            if keep_rows:
                draft.rows.append(draft.logits)
            draft.token_ids.append(token_id)
            if token_id < self.tokenizer.n_vocab:
                draft.text += self.tokenizer.piece_bytes(token_id)
            work.n_generated += 1
            yield
            # Only once the caller wants more: the last token of an answer needs no pass.
            result = self.model(self._tensor((token_id,)), draft.state)
            draft.state, draft.logits = result.commit(1), result.logits[-1]
            work.n_passes += 1

    def _best_path(
        self, held: bytes, row: Tensor, base: RecurrentState, work: Work
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

        expand(0.0, (), held, row)
        for _ in range(MAX_COVER_PASSES):
            cost, path, left = heapq.heappop(frontier)
            if not left:
                return path
            expand(cost, path, left, self.model(self._tensor(path), base).logits[-1])
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

    def _tensor(self, ids: tuple[int, ...]) -> Tensor:
        return torch.tensor(ids, dtype=torch.long, device=self.model.device)
