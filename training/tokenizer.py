"""Trains the embedded model's tokenizer: SentencePiece BPE with pieces that suit editing.

`python -m training.tokenizer CORPUS OUT` writes OUT/tokenizer.model.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from engine.tokenizer_training import learnable_lines, train_tokenizer
from training.corpus import Corpus

if TYPE_CHECKING:
    from collections.abc import Iterator


def sample(corpus: Corpus, n_bytes: int, seed: int) -> Iterator[str]:
    """Yield lines of randomly chosen files until `n_bytes` are given out."""
    given = 0
    for index in np.random.default_rng(seed).permutation(len(corpus)):
        for line in learnable_lines([corpus[int(index)]]):
            given += len(line)
            yield line
        if given > n_bytes:
            return


@click.command()
@click.argument("corpus", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--vocab-size", default=8192, show_default=True)
@click.option("--sample-mb", default=40, show_default=True, help="Text to learn pieces from.")
def main(corpus: Path, out: Path, vocab_size: int, sample_mb: int) -> None:
    """Train on the folder CORPUS and write tokenizer.model to the folder OUT."""
    out.mkdir(parents=True, exist_ok=True)
    lines = sample(Corpus.load(corpus / "train.npz"), sample_mb * 1_000_000, seed=1)
    train_tokenizer(lines, out, vocab_size=vocab_size, n_threads=2)
    click.echo(f"wrote {out / 'tokenizer.model'}")


if __name__ == "__main__":
    main()
