"""Which prompt a request is answered from: the exact epoch, or what is at hand until then."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from engine.fim import PromptOrder

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import NDArray

    from engine.decode import Decoder
    from engine.epochs import Epochs
    from engine.fim import FimFormat
    from engine.request import CompletionRequest

# An epoch that lacks no more than this is read on the spot: about what a bridge costs.
READY_TOKENS = 64
# Prompts' beginnings that are remembered.
MAX_HEADS = 32
# The text after the cursor that a bridge lays on the trunk.
BRIDGE_SUFFIX_CHARS = 160


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt's ids in two parts: `ids`, whose states are kept for `owner`, and a `tail` laid on
    top for one answer; `held` is the text the answer must start with, in bytes."""

    kind: str
    owner: Hashable
    ids: NDArray[np.int32]
    tail: NDArray[np.int32]
    held: bytes

    @property
    def whole(self) -> NDArray[np.int32]:
        """Give all ids."""
        return np.concatenate((self.ids, self.tail)) if len(self.tail) else self.ids


class Prompts:
    """Builds prompts, and chooses among them by what the decoder has at hand."""

    def __init__(self, fim: FimFormat, epochs: Epochs, decoder: Decoder) -> None:
        """Hold what prompts are made from."""
        self.fim, self.epochs, self.decoder = fim, epochs, decoder
        # The same at every keystroke of an epoch.
        self._head = lru_cache(MAX_HEADS)(
            lambda suffix: _ids(fim.head(PromptOrder.SUFFIX_FIRST, suffix))
        )

    def choose(self, request: CompletionRequest, *, exact: bool) -> Prompt:
        """Give the prompt to answer a request from.

        The epoch's, when `exact` is asked for or little of it is missing. Else the trunk's, if it
        costs less than half of that now; with a bridge to the suffix, where the model knows that
        order.
        """
        split = self.fim.split(request.header + request.prefix)
        epoch = self.epochs.at(request.document, header=request.header, after_cursor=request.suffix)
        head = self._head(epoch.suffix)
        owner = (request.document, epoch)
        epoch_prompt = Prompt(
            kind="epoch", owner=owner, ids=_ids(head, split.ids), tail=_ids(), held=split.held
        )
        if exact:
            return epoch_prompt
        n_missing = self.decoder.n_missing(epoch_prompt.ids, owner)
        if n_missing <= READY_TOKENS:
            return epoch_prompt
        # The epoch's header changes from place to place; the trunk is for all of them.
        if request.trunk_header is not None:
            split = self.fim.split(request.trunk_header + request.prefix)
        tail = self.fim.bridge(bridge_suffix(request.suffix))
        trunk_prompt = Prompt(
            kind="bridge" if tail else "trunk",
            owner=(request.document, "trunk"),
            ids=_ids(self.fim.trunk_head(), split.ids),
            tail=_ids(tail),
            held=split.held,
        )
        n_trunk = self.decoder.n_missing(trunk_prompt.ids, trunk_prompt.owner) + len(tail)
        return trunk_prompt if 2 * n_trunk < n_missing else epoch_prompt


def bridge_suffix(after_cursor: str) -> str:
    """Give the start of the text after the cursor, whole lines where there are any."""
    text = after_cursor[:BRIDGE_SUFFIX_CHARS]
    end = text.rfind("\n", 1) + 1
    return text if len(text) == len(after_cursor) or not end else text[:end]


def _ids(*parts: Sequence[int] | NDArray[np.int32]) -> NDArray[np.int32]:
    if not parts:
        return np.empty(0, np.int32)
    return np.concatenate([np.asarray(part, dtype=np.int32) for part in parts])
