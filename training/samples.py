"""Cuts source files into the token sequences that the server will ask about.

A sample is one file's window in one of the prompt orders (suffix-first, prefix-first, plain), its
middle running straight on from its prefix: at inference a split token is healed, so a prompt never
ends inside one. Samples follow one another in endless streams; the trainer reads a stream piece by
piece and carries the recurrent state along, so that the model meets text longer than one piece.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from training.headers import Headers, outline, path_header

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.tokenizer import Tokenizer
    from training.corpus import Corpus
    from training.mixture import Mixture

# Shares of the orders; suffix-first is what nearly every request uses.
SUFFIX_FIRST, PREFIX_FIRST = 0.7, 0.12
# Of samples with the file's path in front; then, of those in Python, with an outline after it or
# snippets before it: the server asks with the path alone unless it is told otherwise.
HEADER_SHARE, OUTLINE_SHARE, SNIPPET_SHARE = 0.9, 0.2, 0.1
NO_SUFFIX_SHARE = 0.1
MAX_SUFFIX_CHARS = 900
REGION_CHARS = (120, 7000)


@dataclass
class Sampler:
    """Draws samples from a corpus; the same seed draws the same ones."""

    corpus: Corpus
    tokenizer: Tokenizer
    seed: int
    rng: np.random.Generator = field(init=False)
    headers: Headers = field(init=False)

    def __post_init__(self) -> None:
        """Seed the generator and weigh the files."""
        self.rng = np.random.default_rng(self.seed)
        self.headers = Headers(self.corpus)
        # A file of 100 kB is not worth 100 files of 1 kB: it repeats itself.
        weights = np.diff(self.corpus.offsets).astype(np.float64) ** 0.75
        self.cumulative = np.cumsum(weights / weights.sum())

    def sample(self) -> list[int]:
        """Give the token ids of one sample, `<s>` first."""
        index = min(int(np.searchsorted(self.cumulative, self.rng.random())), len(self.corpus) - 1)
        text = self.corpus[index]
        order = self.rng.random()
        start, cut = self.region(text)
        header = self.header(index, text, start, cut)
        encode, t = self.tokenizer.encode, self.tokenizer
        if order >= SUFFIX_FIRST + PREFIX_FIRST:
            at_end = [t.eos_id] if cut == len(text) else []
            return [t.bos_id, *encode(header + text[start:cut]), *at_end]
        suffix = self.suffix(text, cut)
        if order < SUFFIX_FIRST:
            region = encode(header + text[start:cut])
            return [t.bos_id, t.suffix_id, *encode(suffix), t.prefix_id, *region, t.eos_id]
        assert t.middle_id is not None
        split = self.split_point(text, start, cut)
        prefix = header + text[start:split]
        boundary = t.last_boundary(prefix)
        middle = prefix[boundary:] + text[split:cut]
        return [
            t.bos_id,
            *encode(prefix[:boundary]),
            t.suffix_id,
            *encode(suffix),
            t.middle_id,
            *encode(middle),
            t.eos_id,
        ]

    def header(self, index: int, text: str, start: int, cut: int) -> str:
        """Give what stands before the window: snippets, the path, an outline of what is above."""
        rng, window = self.rng, text[start:cut]
        if rng.random() >= HEADER_SHARE:
            return ""
        path = self.corpus.names[index]
        parts = [path_header(path)]
        if not path.endswith(".py"):
            return parts[0]
        if start and rng.random() < OUTLINE_SHARE:
            parts.append(outline(text, start, window))
        if rng.random() < SNIPPET_SHARE:
            parts.insert(0, self.headers.snippets(index, window, rng))
        return "".join(parts)

    def region(self, text: str) -> tuple[int, int]:
        """Choose where the window starts (a line's start) and where the middle ends."""
        rng = self.rng
        length = int(np.exp(rng.uniform(*np.log(REGION_CHARS))))
        if rng.random() < 0.2:
            start = 0
        else:
            start = int(rng.integers(0, max(len(text) - length // 2, 1)))
            start = text.rfind("\n", 0, start) + 1
        end = min(start + length, len(text))
        where = rng.random()
        if where < 0.55:
            # most middles end with their line; some at a statement further down
            newline = text.find("\n", end)
            end = len(text) if newline < 0 else newline
        elif where < 0.7:
            newline = text.find("\n", end)
            end = len(text) if newline < 0 else newline + 1
        return start, end

    def suffix(self, text: str, cut: int) -> str:
        """Choose how much of what follows the middle is seen: whole lines, mostly."""
        if self.rng.random() < NO_SUFFIX_SHARE:
            return ""
        length = int(np.exp(self.rng.uniform(np.log(40), np.log(MAX_SUFFIX_CHARS))))
        newline = text.rfind("\n", cut + 1, cut + length)
        return text[cut : cut + length] if newline < 0 else text[cut : newline + 1]

    def split_point(self, text: str, start: int, cut: int) -> int:
        """Choose a prefix-first sample's cursor: within the last lines before the cut."""
        back = int(np.exp(self.rng.uniform(0, np.log(400))))
        return max(start, cut - back)


def stream(
    sampler: Sampler | Mixture, length: int, restart_share: float
) -> Iterator[tuple[np.ndarray, bool]]:
    """Yield (tokens (length + 1,) int64, fresh) pieces; the last token is the next piece's first.

    `fresh` says that the piece begins a sample and the state before it must be zero.
    """
    buffer: list[int] = []
    fresh = True
    while True:
        if sampler.rng.random() < restart_share:
            buffer, fresh = [], True
        while len(buffer) < length + 1:
            buffer.extend(sampler.sample())
        yield np.asarray(buffer[: length + 1], dtype=np.int64), fresh
        buffer, fresh = buffer[length:], False
