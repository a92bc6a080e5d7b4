"""Token ids of long texts that grow at their end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engine.tokenizer import Tokenizer

# Texts remembered: windows of documents that are being typed in.
MAX_TEXTS = 16


class GrowingIds:
    """Encodes prompt texts; of one that goes on from an earlier one, only the new lines.

    What is kept ends with a line, whose tokens nothing that follows can change.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Start with nothing kept."""
        self._tokenizer = tokenizer
        # Newest last.
        self._kept: list[tuple[str, NDArray[np.int32]]] = []

    def encode(self, text: str) -> NDArray[np.int32]:
        """Give what `Tokenizer.encode_start` gives, as int32."""
        known, ids = max(
            (kept for kept in self._kept if text.startswith(kept[0])),
            key=lambda kept: len(kept[0]),
            default=("", np.empty(0, np.int32)),
        )
        n_lines = text.rfind("\n", len(known)) + 1
        if n_lines > len(known):
            ids = np.concatenate((ids, self._encode(text[len(known) : n_lines], not known)))
            self._kept = [kept for kept in self._kept if kept[0] is not known]
            self._kept.append((text[:n_lines], ids))
            del self._kept[:-MAX_TEXTS]
        else:
            n_lines = len(known)
        rest = text[n_lines:]
        return np.concatenate((ids, self._encode(rest, not n_lines))) if rest else ids

    def _encode(self, text: str, opens: bool) -> NDArray[np.int32]:
        encode = self._tokenizer.encode_start if opens else self._tokenizer.encode
        return np.array(encode(text), dtype=np.int32)
