"""What a prompt must be, as a function of text, cursor and epoch alone.

Written from the design and not from the engine, whose ids are held against it: whole texts are
tokenized at once, by the vocabulary itself, and boundaries are looked for in its pieces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

MAX_HELD_TOKENS = 16
MAX_EPOCHS = 8
MAX_CLOSERS = 64
# Closing brackets, quotes, the end of a statement and white space.
CLOSERS = set(")]}>") | set("'\"`") | set(";") | set(" \t\r\n")
BRIDGE_CHARS = 160


class EpochLedger:
    """The suffixes that a document's prompts were frozen with, the newest last."""

    def __init__(self) -> None:
        self._frozen: dict[str, list[tuple[str, str]]] = {}

    def suffix(self, document: str, header: str, after_cursor: str) -> str:
        """Give the suffix of the newest epoch that holds, else begin one; it is the newest now."""
        known = self._frozen.setdefault(document, [])
        holding = [
            (old_header, frozen)
            for old_header, frozen in known
            if old_header == header and holds(frozen, after_cursor)
        ]
        epoch = holding[-1] if holding else (header, after_cursor)
        self._frozen[document] = [*(old for old in known if old != epoch), epoch][-MAX_EPOCHS:]
        return epoch[1]

    def forget(self, document: str) -> None:
        """Know nothing of a document any more."""
        self._frozen.pop(document, None)


def holds(frozen: str, after_cursor: str) -> bool:
    """Tell whether a text is what an editor makes of a frozen suffix by itself: C + S."""
    extra = after_cursor.removesuffix(frozen)
    return len(extra) == len(after_cursor) - len(frozen) <= MAX_CLOSERS and set(extra) <= CLOSERS


class PurePrompts:
    """The prompts of one vocabulary."""

    def __init__(self, processor: SentencePieceProcessor) -> None:
        """Look at every piece."""
        self._processor = processor
        self._bytes = {}
        self._pairs = set()
        for token_id in range(processor.vocab_size()):
            piece = processor.id_to_piece(token_id).replace("▁", " ")
            if processor.is_byte(token_id):
                self._bytes[token_id] = bytes([int(piece[1:-1], 16)])
            elif not (processor.is_control(token_id) or processor.is_unknown(token_id)):
                self._bytes[token_id] = piece.encode()
                self._pairs |= {piece[i : i + 2] for i in range(len(piece) - 1)}
        self._has_dummy = processor.normalize("a") != "a"
        self._n_guard = len(processor.encode("\n"))

    def __call__(
        self, kind: str, *, before_cursor: str, after_cursor: str, frozen: str
    ) -> tuple[tuple[int, ...], bytes]:
        """Give the ids of a prompt of a kind, and the bytes that an answer must start with.

        `before_cursor` has the header in front; `frozen` is the epoch's suffix. Raises ValueError
        for a kind that the family does not know here.
        """
        processor = self._processor
        bos = processor.bos_id()
        first, last, middle = map(processor.piece_to_id, ("[SUFFIX]", "[PREFIX]", "[MIDDLE]"))
        knows_middle = processor.is_control(middle)
        committed, held = self.split(before_cursor)
        if kind == "epoch":
            return (bos, first, *self._inside(frozen), last, *committed), held
        if kind == "bridge" and knows_middle and after_cursor:
            near = self._inside(bridged(after_cursor))
            return (bos, *committed, first, *near, middle), held
        if kind == "trunk" and not knows_middle:
            return (bos, first, last, *committed), held
        if kind == "trunk" and not after_cursor:
            return (bos, *committed), held
        raise ValueError(f"no {kind} prompts here: has a middle: {knows_middle}")

    def split(self, text: str) -> tuple[list[int], bytes]:
        """Give the ids that no continuation of a text changes, and the bytes of the rest.

        At most 16 tokens are held back. Raises AssertionError where the text's own tokens do not
        begin with those of its part before the boundary.
        """
        whole = self._processor.encode(normal(text))
        committed = self._processor.encode(normal(text[: self._boundary(normal(text))]))
        assert whole[: len(committed)] == committed, "a boundary inside a piece"
        if len(whole) - len(committed) > MAX_HELD_TOKENS:
            committed = whole[:-MAX_HELD_TOKENS]
        return committed, self.text_of(whole[len(committed) :])

    def text_of(self, ids: list[int]) -> bytes:
        """Give the bytes that ids stand for; none for those that are no text."""
        return b"".join(self._bytes.get(token_id, b"") for token_id in ids)

    def _inside(self, text: str) -> list[int]:
        """Give the ids of text that does not open a prompt."""
        if not self._has_dummy:
            return list(self._processor.encode(normal(text)))
        # Behind a line break, where no piece reaches across, there is no dummy space.
        return list(self._processor.encode("\n" + normal(text))[self._n_guard :])

    def _boundary(self, text: str) -> int:
        """Give the last offset that no piece spans, whatever follows the text."""
        if not text or not any(pair[0] == text[-1] for pair in self._pairs):
            return len(text)
        inside = (k for k in range(len(text) - 1, 0, -1) if text[k - 1 : k + 1] not in self._pairs)
        return next(inside, 0)


def bridged(after_cursor: str) -> str:
    """Give the next 160 characters, cut behind their last line break if there is more."""
    near = after_cursor[:BRIDGE_CHARS]
    if len(near) < len(after_cursor) and "\n" in near[1:]:
        near = near[: near.rindex("\n") + 1]
    return near


def normal(text: str) -> str:
    """Give a text as the vocabulary sees it, character for character."""
    return "".join(
        "\ufffd" if 0xD800 <= ord(char) <= 0xDFFF else " " if char == "▁" else char for char in text
    )
