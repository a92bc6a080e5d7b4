"""Learns a vocabulary of the kind the engine relies on: SentencePiece BPE that suits editing.

Every line can be tokenized by itself, text is taken as it is, and any byte has a piece.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sentencepiece

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

CONTROL_PIECES = ("[PREFIX]", "[MIDDLE]", "[SUFFIX]")


def learnable_lines(texts: Iterable[str]) -> Iterator[str]:
    """Yield the lines of texts that pieces are learned from.

    Lines with a tab are left out, and no line holds its newline: both stay byte pieces, so that no
    piece ever spans them and every line can be tokenized by itself.
    """
    for text in texts:
        for line in text.split("\n"):
            if line and "\t" not in line:
                yield line


def train_tokenizer(
    lines: Iterable[str],
    directory: Path,
    *,
    vocab_size: int,
    character_coverage: float = 0.9995,
    control_pieces: Sequence[str] = CONTROL_PIECES,
    dummy_prefix: bool = False,
    n_threads: int = 1,
) -> None:
    """Write `directory`/tokenizer.model, learned from lines without tabs and newlines.

    Characters beyond `character_coverage` (a fraction of the text) stay byte pieces.
    `dummy_prefix` puts a space before every text, as Codestral's vocabulary does.
    """
    with (directory / "tokenizer.model").open("wb") as model:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            vocab_size=vocab_size,
            model_type="bpe",
            character_coverage=character_coverage,
            normalization_rule_name="identity",
            add_dummy_prefix=dummy_prefix,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            # Pieces do not cross from letters to punctuation: boundaries are never far away.
            split_by_unicode_script=True,
            byte_fallback=True,
            control_symbols=list(control_pieces),
            max_sentence_length=8192,
            minloglevel=2,
            num_threads=n_threads,
        )
