"""Fill-in-the-middle prompts as token ids, and where they may be cut while someone types."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from engine.growing_ids import GrowingIds

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from engine.tokenizer import Tokenizer

MAX_HELD_TOKENS = 16


class PromptOrder(Enum):
    """What stands where in a prompt; the middle always follows its end."""

    SUFFIX_FIRST = "suffix-first"
    PREFIX_FIRST = "prefix-first"
    PLAIN = "plain"


@dataclass(frozen=True, kw_only=True)
class PrefixSplit:
    """Prefix text cut for decoding: `ids` are committed, `held` must start the output.

    `held` is in the tokenizer's normal form, and holds the prompt's dummy space when no text is
    committed yet, so its length is what to strip from the output and not the text's.
    """

    ids: NDArray[np.int32]
    held: bytes


@dataclass(frozen=True, kw_only=True)
class FimFormat:
    """How one family of models writes a fill-in-the-middle prompt.

    A prompt is `head + prefix_ids + tail`. Head and tail depend on the suffix alone, so that
    typing changes nothing but the end of `prefix_ids`.
    """

    name: str
    tokenizer: Tokenizer
    # None: the family never has it in a prompt, and knows no prefix-first order.
    middle_id: int | None
    _growing: GrowingIds = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Start with no text remembered."""
        object.__setattr__(self, "_growing", GrowingIds(self.tokenizer))

    def prompt(self, order: PromptOrder, prefix: str, suffix: str) -> list[int]:
        """Ids of the whole prompt; ValueError for an order the family was not trained in."""
        return [
            *self.head(order, suffix),
            *self.prefix_ids(prefix),
            *self.tail(order, suffix),
        ]

    def head(self, order: PromptOrder, suffix: str) -> list[int]:
        """Ids before the prefix text; ValueError for an order the family was not trained in."""
        self._check_order(order)
        tokenizer = self.tokenizer
        if order is PromptOrder.SUFFIX_FIRST:
            return [
                tokenizer.bos_id,
                tokenizer.suffix_id,
                *tokenizer.encode(suffix),
                tokenizer.prefix_id,
            ]
        return [tokenizer.bos_id]

    def prefix_ids(self, text: str) -> list[int]:
        """Ids of the prefix text, header included; only lines not seen lately are tokenized."""
        return self.tokenizer.encode_start(text)

    def tail(self, order: PromptOrder, suffix: str) -> list[int]:
        """Ids after the prefix text; ValueError for an order the family was not trained in."""
        self._check_order(order)
        if order is not PromptOrder.PREFIX_FIRST or self.middle_id is None:
            return []
        return [self.tokenizer.suffix_id, *self.tokenizer.encode(suffix), self.middle_id]

    def trunk_head(self) -> list[int]:
        """Ids before the prefix text in a prompt without suffix, in the order it was trained in."""
        plain = PromptOrder.PLAIN if self.middle_id is not None else PromptOrder.SUFFIX_FIRST
        return self.head(plain, "")

    def bridge(self, suffix: str) -> list[int]:
        """Ids that tell a plain prompt what follows it; none for a family that cannot be told."""
        if self.middle_id is None or not suffix:
            return []
        return self.tail(PromptOrder.PREFIX_FIRST, suffix)

    def split(self, text: str) -> PrefixSplit:
        """Cut prefix text into committed ids and held-back bytes.

        The cut is at the last boundary, where no continuation can change a committed token. If
        that leaves more than 16 tokens behind it, the last 16 are held: then a continuation may
        still change committed tokens, and the ids of the longer text say so.
        """
        # A tail that must have more tokens than that: no boundary before it is of use.
        tail = text[-(MAX_HELD_TOKENS * self.tokenizer.max_piece_chars + 1) :]
        start = len(text) - len(tail) + self.tokenizer.last_boundary(tail)
        rest = text[start:]
        n_held = len(self.tokenizer.encode(rest) if start else self.prefix_ids(rest))
        if n_held <= MAX_HELD_TOKENS:
            dummy = " " if self.tokenizer.dummy_prefix and not start else ""
            return PrefixSplit(
                ids=self._growing.encode(text[:start]), held=self.tokenizer.held_bytes(dummy + rest)
            )
        ids = self._growing.encode(text)
        held = b"".join(map(self.tokenizer.piece_bytes, ids[-MAX_HELD_TOKENS:].tolist()))
        return PrefixSplit(ids=ids[:-MAX_HELD_TOKENS], held=held)

    def _check_order(self, order: PromptOrder) -> None:
        if order is PromptOrder.PREFIX_FIRST and self.middle_id is None:
            raise ValueError(f"{self.name} knows no {order.value} prompts: use suffix-first")


def fim_format(tokenizer: Tokenizer) -> FimFormat:
    """The format of the family that a vocabulary belongs to."""
    # Mistral's vocabularies have a [MIDDLE] too, but its prompts do not: the middle follows the
    # prefix text, and [INST] tells the family.
    if tokenizer.is_control("[INST]"):
        return FimFormat(name="mistral-v3", tokenizer=tokenizer, middle_id=None)
    return FimFormat(name="keystate", tokenizer=tokenizer, middle_id=tokenizer.middle_id)
