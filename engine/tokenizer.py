"""Text to token ids and back, on a SentencePiece model, exact line by line."""

from __future__ import annotations

import codecs
import re
from functools import lru_cache
from io import StringIO
from typing import TYPE_CHECKING, NamedTuple

from sentencepiece import SentencePieceProcessor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

# SentencePiece writes a space as this character, and cannot tell the two apart in its input.
_SPACE_MARK = "▁"
_SURROGATE = re.compile("[\ud800-\udfff]")
# One character or run for each way in which a normalizer could change source code.
_NORMALIZER_PROBE = "a  b\t\r\nﬁ Ａ e\u0301 "

_CACHED_LINES = 32_768
_CACHED_WORDS = 4_096
# Longer lines (minified code) get a cache of few entries, so that they cannot fill the memory.
_LONG_LINE = 2_000
_CACHED_LONG_LINES = 8


class Piece(NamedTuple):
    """An entry of the vocabulary, as the SentencePiece model has it.

    `text` writes a space as `▁`; `score` orders the merges, the highest first; `kind` is normal,
    unknown, control, unused or byte.
    """

    text: str
    score: float
    kind: str


class TokenizerError(ValueError):
    """A tokenizer is missing, damaged, or of a kind that cannot be encoded line by line."""


def normal_form(text: str) -> str:
    """`text` as the tokenizer reads it, character for character: what its pieces decode to.

    `▁` becomes a space; a lone surrogate, which UTF-8 cannot hold, becomes U+FFFD.
    """
    if text.isascii():
        return text
    return _SURROGATE.sub("\ufffd", text).replace(_SPACE_MARK, " ")


class Tokenizer:
    """A SentencePiece vocabulary with fill-in-the-middle control pieces.

    `encode` gives the ids of text inside a document; `encode_start` those of text that opens a
    prompt, where a model trained with a dummy prefix space expects it (`dummy_prefix`). Control
    pieces spelled out in the text stay text. Safe to use from several threads.
    """

    def __init__(self, processor: SentencePieceProcessor, source: str) -> None:
        """Wrap a loaded `processor`; `source` names it in errors.

        Raises TokenizerError when text would be lost, changed, or encoded differently by lines.
        """
        self._processor = processor
        self._source = source
        self.n_vocab: int = processor.vocab_size()
        ids = list(range(self.n_vocab))
        self._pieces: list[str] = processor.id_to_piece(ids)
        self._is_byte: list[bool] = processor.is_byte(ids)
        self._is_text = [
            not (byte or control or unknown or unused)
            for byte, control, unknown, unused in zip(
                self._is_byte,
                processor.is_control(ids),
                processor.is_unknown(ids),
                processor.is_unused(ids),
                strict=True,
            )
        ]
        self._bytes = [self._bytes_of(token_id) for token_id in ids]

        self.bos_id = self._required_id("a begin-of-sequence piece", processor.bos_id())
        self.eos_id = self._required_id("an end-of-sequence piece", processor.eos_id())
        self.prefix_id = self._required_id("a control piece [PREFIX]", self._control("[PREFIX]"))
        self.suffix_id = self._required_id("a control piece [SUFFIX]", self._control("[SUFFIX]"))
        self.middle_id = self._control("[MIDDLE]")
        self.dummy_prefix = self._has_dummy_prefix()

        text_pieces = [
            normal_form(piece)
            for piece, is_text in zip(self._pieces, self._is_text, strict=True)
            if is_text
        ]
        self.max_piece_chars = max(map(len, text_pieces), default=1)
        self._inner_pairs = frozenset(
            piece[i : i + 2] for piece in text_pieces for i in range(len(piece) - 1)
        )
        self._extendable = frozenset(pair[0] for pair in self._inner_pairs)
        self._check_lossless()

        # What an encoded line break puts in front of the line: the dummy space and the break.
        self._n_guard = len(processor.encode("\n"))
        self._line = _cached_by_line(self._encode_line)
        self._start_line = _cached_by_line(self._encode_start_line)
        self._first = lru_cache(_CACHED_WORDS)(self._encode_first)

    @classmethod
    def load(cls, directory: Path) -> Tokenizer:
        """Load the `tokenizer.model` (or `tokenizer.model.v3` and the like) of a checkpoint.

        Raises TokenizerError when there is none or it cannot be used.
        """
        # `tokenizer.model` sorts before `tokenizer.model.v3`; of versions the newest is taken.
        found = sorted(path for path in directory.glob("tokenizer.model*") if path.is_file())
        if not found:
            raise TokenizerError(
                f"{directory} has no tokenizer: expected tokenizer.model or tokenizer.model.v3, "
                "the SentencePiece model that belongs to the weights; put it beside them"
            )
        path = found[0] if found[0].name == "tokenizer.model" else found[-1]
        try:
            processor = SentencePieceProcessor(model_file=str(path))
        except (RuntimeError, OSError, ValueError) as error:
            raise TokenizerError(f"{path} is not a SentencePiece model: {error}") from error
        return cls(processor, str(path))

    def encode(self, text: str) -> list[int]:
        """Ids of `text` inside a document: no dummy space, no begin-of-sequence.

        Only lines not seen lately are tokenized.
        """
        return self._extended([], _lines(text))

    def encode_start(self, text: str) -> list[int]:
        """Ids of `text` where it opens a prompt: with the dummy space, if the model has one."""
        if not text:
            return []
        lines = _lines(text)
        return self._extended(list(self._start_line(next(lines))), lines)

    def encode_part(self, text: str) -> list[int]:
        """Ids of `text`, a part of one line, as `encode` gives them, without remembering it."""
        return list(self._encode_line(text)) if text else []

    def first_of_part(self, text: str) -> int | None:
        """The first of the ids that `encode_part` gives; None where there are none."""
        return self._first(text[: self._first_boundary(text)])

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`, by piece, so a leading space stays.

        A character whose last bytes are missing is dropped; other invalid bytes are U+FFFD.
        """
        text = b"".join(self._bytes[token_id] for token_id in ids)
        return codecs.getincrementaldecoder("utf-8")("replace").decode(text)

    def piece_bytes(self, token_id: int) -> bytes:
        """UTF-8 bytes that a token stands for; none for control pieces."""
        return self._bytes[token_id]

    def held_bytes(self, text: str) -> bytes:
        """Bytes of `text` in the form that `piece_bytes` gives, to match pieces against it."""
        return normal_form(text).encode()

    @property
    def pieces(self) -> Sequence[bytes]:
        """`piece_bytes` of every id, in order."""
        return self._bytes

    def vocabulary(self) -> list[Piece]:
        """Every piece in the order of the ids, for other programs that tokenize."""
        processor = self._processor
        kinds = {
            "byte": processor.is_byte,
            "control": processor.is_control,
            "unknown": processor.is_unknown,
            "unused": processor.is_unused,
        }
        return [
            Piece(
                self._pieces[i],
                processor.get_score(i),
                next((kind for kind, is_kind in kinds.items() if is_kind(i)), "normal"),
            )
            for i in range(self.n_vocab)
        ]

    def check_fits(self, vocab_size: int) -> None:
        """Raise ValueError for a model whose vocabulary has not room for all pieces."""
        if self.n_vocab > vocab_size:
            raise ValueError(
                f"the tokenizer has {self.n_vocab} pieces and the model's vocabulary"
                f" {vocab_size}: expected a tokenizer that belongs to these weights"
            )

    def is_control(self, piece: str) -> bool:
        """Whether the vocabulary has `piece` as a control piece."""
        return self._control(piece) is not None

    def last_boundary(self, text: str) -> int:
        """Largest offset whose tokens to the left no continuation of `text` can change.

        That is the last position that lies between two characters which stand side by side in no
        piece: BPE merges never reach across it. The end of `text` is one only if no piece has
        the last character before another. Looks at no more than what it leaves behind it.
        """
        offset = len(text)
        if not text or normal_form(text[-1]) not in self._extendable:
            return offset
        offset -= 1
        while offset and normal_form(text[offset - 1 : offset + 1]) in self._inner_pairs:
            offset -= 1
        return offset

    def _first_boundary(self, text: str) -> int:
        """Smallest offset past 0 at which no merge reaches across, as in `last_boundary`."""
        pairs = self._inner_pairs
        text = normal_form(text)
        for offset in range(1, len(text)):
            if text[offset - 1 : offset + 1] not in pairs:
                return offset
        return len(text)

    def _extended(self, ids: list[int], lines: Iterator[str]) -> list[int]:
        # Adding tuple by tuple is 2.5x faster than chaining them (3,000 lines, 51,000 tokens).
        for line in lines:
            ids += self._line(line)
        return ids

    def _encode_line(self, line: str) -> tuple[int, ...]:
        line = normal_form(line)
        if not self.dummy_prefix:
            return tuple(self._processor.encode(line))
        return tuple(self._processor.encode("\n" + line)[self._n_guard :])

    def _encode_first(self, text: str) -> int | None:
        return next(iter(self._encode_line(text)), None) if text else None

    def _encode_start_line(self, line: str) -> tuple[int, ...]:
        return tuple(self._processor.encode(normal_form(line)))

    def _control(self, piece: str) -> int | None:
        token_id: int = self._processor.piece_to_id(piece)
        return token_id if self._processor.is_control(token_id) else None

    def _required_id(self, what: str, token_id: int | None) -> int:
        if token_id is None or token_id < 0:
            raise TokenizerError(
                f"{self._source} lacks {what}, which a fill-in-the-middle prompt needs"
            )
        return token_id

    def _bytes_of(self, token_id: int) -> bytes:
        piece = self._pieces[token_id]
        if self._is_byte[token_id]:
            return bytes([int(piece[3:5], 16)])  # "<0x0A>"
        return normal_form(piece).encode() if self._is_text[token_id] else b""

    def _has_dummy_prefix(self) -> bool:
        normalized = self._processor.normalize(_NORMALIZER_PROBE)
        expected = _NORMALIZER_PROBE.replace(" ", _SPACE_MARK)
        if normalized not in (expected, _SPACE_MARK + expected):
            raise TokenizerError(
                f"{self._source} normalizes text ({_NORMALIZER_PROBE!r} becomes {normalized!r}): "
                "expected the identity normalizer with extra whitespace kept"
            )
        return bool(normalized != expected)

    def _check_lossless(self) -> None:
        n_bytes = sum(self._is_byte)
        if n_bytes != 256:
            raise TokenizerError(
                f"{self._source} has {n_bytes} byte pieces: expected 256 (byte fallback), "
                "without them characters outside the vocabulary are lost"
            )
        if "\n" in self._extendable:
            spanning = next(piece for piece in self._pieces if "\n" in piece[:-1])
            raise TokenizerError(
                f"{self._source} has the piece {spanning!r}: expected none to span a line break, "
                "or text could not be encoded line by line"
            )


def _lines(text: str) -> Iterator[str]:
    """Lines with their `\\n`; unlike `splitlines`, no other character ends one."""
    return iter(StringIO(text, newline="\n"))


def _cached_by_line(
    encode: Callable[[str], tuple[int, ...]],
) -> Callable[[str], tuple[int, ...]]:
    short = lru_cache(_CACHED_LINES)(encode)
    long = lru_cache(_CACHED_LONG_LINES)(encode)
    return lambda line: short(line) if len(line) <= _LONG_LINE else long(line)
