"""Which vocabulary pieces can stand where some bytes are already given."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class VocabularyTrie:
    """The pieces of a vocabulary by their bytes, for decoding under a byte-prefix constraint.

    A trie flattened into sorted order: the pieces under a node are a slice. Ids are positions in
    the sequence given; empty pieces (control pieces) are left out.
    """

    def __init__(self, pieces: Sequence[bytes], device: torch.device | None = None) -> None:
        """Sort the pieces; ids are given out on `device`."""
        order = sorted(
            (token_id for token_id, piece in enumerate(pieces) if piece),
            key=pieces.__getitem__,
        )
        self._sorted = [pieces[token_id] for token_id in order]
        self._order = order
        self._ids = torch.tensor(order, dtype=torch.long, device=device)
        self._max_bytes = max(map(len, self._sorted), default=0)

    def covering(self, held: bytes) -> tuple[list[tuple[int, int]], Tensor]:
        """Pieces that agree with `held`, as (partial, complete).

        partial: (id, n_bytes) of each piece that ends before `held` does, shortest first.
        complete: ids of the pieces that start with all of `held`, int64, shared: not to be changed;
        every piece when nothing is held.
        """
        partial = []
        for n_bytes in range(1, min(len(held) - 1, self._max_bytes) + 1):
            node = held[:n_bytes]
            first = bisect_left(self._sorted, node)
            last = first
            # Several ids may share their bytes: a character and its byte piece.
            while last < len(self._sorted) and self._sorted[last] == node:
                last += 1
            partial += [(token_id, n_bytes) for token_id in self._order[first:last]]
        return partial, self._ids[self._under(held)]

    def _under(self, node: bytes) -> slice:
        first = bisect_left(self._sorted, node)
        # The next bytes in order that do not start with `node`: its last byte below 0xff, plus 1.
        stem = node.rstrip(b"\xff")
        if not stem:
            return slice(first, None)
        after = stem[:-1] + bytes([stem[-1] + 1])
        return slice(first, bisect_left(self._sorted, after))
