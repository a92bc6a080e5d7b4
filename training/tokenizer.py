"""Trains the embedded model's tokenizer: SentencePiece BPE with pieces that suit editing.

`python -m training.tokenizer CORPUS OUT` writes OUT/tokenizer.model.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import sentencepiece

from training.corpus import Corpus

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTROL_PIECES = ["[PREFIX]", "[MIDDLE]", "[SUFFIX]"]


def lines(corpus: Corpus, n_bytes: int, seed: int) -> Iterator[str]:
    """Yield lines of randomly chosen files until `n_bytes` are given out.

    Lines with a tab are left out, and no line holds its newline: both stay byte pieces, so that no
    piece ever spans them and every line can be tokenized by itself.
    """
    given = 0
    for index in np.random.default_rng(seed).permutation(len(corpus)):
        for line in corpus[int(index)].split("\n"):
            if line and "\t" not in line:
                given += len(line)
                yield line
        if given > n_bytes:
            return


def train_tokenizer(corpus: Corpus, out: Path, *, vocab_size: int, n_bytes: int) -> None:
    """Write `out`/tokenizer.model."""
    with (out / "tokenizer.model").open("wb") as model:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines(corpus, n_bytes, seed=1),
            model_writer=model,
            vocab_size=vocab_size,
            model_type="bpe",
            character_coverage=0.9995,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            # Pieces do not cross from letters to punctuation: boundaries are never far away.
            split_by_unicode_script=True,
            byte_fallback=True,
            control_symbols=CONTROL_PIECES,
            max_sentence_length=8192,
            minloglevel=1,
            num_threads=2,
        )


@click.command()
@click.argument("corpus", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--vocab-size", default=8192, show_default=True)
@click.option("--sample-mb", default=40, show_default=True, help="Text to learn pieces from.")
def main(corpus: Path, out: Path, vocab_size: int, sample_mb: int) -> None:
    """Train on the folder CORPUS and write tokenizer.model to the folder OUT."""
    out.mkdir(parents=True, exist_ok=True)
    loaded = Corpus.load(corpus / "train.npz")
    train_tokenizer(loaded, out, vocab_size=vocab_size, n_bytes=sample_mb * 1_000_000)
    click.echo(f"wrote {out / 'tokenizer.model'}")


if __name__ == "__main__":
    main()
