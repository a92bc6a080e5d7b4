"""Measures up to which length a model's loss is flat.

`python -m training.length_loss CORPUS MODEL` reads long held-out files, path first, in the plain
order, and compares the loss of the same tokens read in two ways: from the file's start, and from
nothing half a training length or more before them. As long as the first is no larger than the
second, a longer text does not harm. It prints the table and writes MODEL/length.json and
MODEL/length.svg.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import torch
from rich.progress import track
from torch.nn import functional as F

from engine.checkpoint import load_model
from engine.tokenizer import Tokenizer
from training.corpus import Corpus
from training.headers import path_header

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from engine.mamba2 import Mamba2

# Where the ranges of positions end that the loss is told for.
ENDS = (512, 1024, 2048, 4096, 8192)
# Tokens read before the ones that count, and tokens that count, when a text is read afresh.
AFRESH = 512


@dataclass(frozen=True, kw_only=True)
class Range:
    """The loss, in nats a token, of the tokens at positions `start` to `end` of all files.

    `afresh` is of the same tokens with 512 to 1,023 before them; `error` is the standard error of
    the difference, over files.
    """

    start: int
    end: int
    from_start: float
    afresh: float
    error: float


def long_texts(
    corpus: Corpus, tokenizer: Tokenizer, n_tokens: int, n_files: int
) -> Iterator[list[int]]:
    """Yield the first tokens of at most so many files that have enough, `<s>` and path first."""
    for index, name in enumerate(corpus.names):
        if not n_files:
            return
        # No token of source is longer on average than this.
        if corpus.offsets[index + 1] - corpus.offsets[index] < 2 * n_tokens:
            continue
        ids = [tokenizer.bos_id, *tokenizer.encode(path_header(name) + corpus[index])]
        if len(ids) > n_tokens:
            yield ids[: n_tokens + 1]
            n_files -= 1


@torch.inference_mode()
def losses(model: Mamba2, ids: Tensor) -> Tensor:
    """Give the loss of each token but the first, ids (n, l) to (n, l - 1), read from nothing."""
    hidden, _ = model.prefill(ids[:, :-1])
    parts = zip(hidden.split(AFRESH, dim=1), ids[:, 1:].split(AFRESH, dim=1), strict=True)
    return torch.cat(
        [
            F.cross_entropy(model.logits(h).transpose(1, 2), targets, reduction="none")
            for h, targets in parts
        ],
        dim=1,
    )


def losses_afresh(model: Mamba2, ids: list[int]) -> Tensor:
    """Give the loss of each token but the first, read from nothing and little before it: (l - 1,).

    The first `AFRESH` tokens have all that is before them; the length must be a multiple.
    """
    text = torch.tensor(ids)
    # Each window but the first has <s> in the place of what was before it.
    windows = text.unfold(0, 2 * AFRESH + 1, AFRESH).clone()
    windows[:, 0] = ids[0]
    read = losses(model, windows)
    return torch.cat((read[0, :AFRESH], read[:, AFRESH:].flatten()))


def by_length(model: Mamba2, texts: list[list[int]]) -> list[Range]:
    """Give the loss by ranges of positions; all texts are of one length, one of `ENDS` plus one."""
    whole = torch.stack([losses(model, torch.tensor([ids]))[0] for ids in _tracked(texts, "whole")])
    afresh = torch.stack([losses_afresh(model, ids) for ids in _tracked(texts, "afresh")])
    ranges = []
    for start, end in zip((0, *ENDS), ENDS, strict=False):
        if end <= whole.shape[1]:
            one, other = whole[:, start:end].mean(1), afresh[:, start:end].mean(1)
            ranges.append(
                Range(
                    start=start,
                    end=end,
                    from_start=float(one.mean()),
                    afresh=float(other.mean()),
                    error=float((one - other).std() / len(texts) ** 0.5),
                )
            )
    return ranges


def flat_up_to(ranges: list[Range]) -> int:
    """Give the length up to which reading from the start is not worse, but for chance."""
    flat = 0
    for each in ranges:
        if each.from_start > each.afresh + 2 * each.error:
            break
        flat = each.end
    return flat


def plot(ranges: list[Range], path: Path) -> None:
    """Draw the loss over the position, read in both ways."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = "keystate"
    figure, axes = plt.subplots(figsize=(7, 4))
    edges = [each.start for each in ranges] + [ranges[-1].end]
    axes.stairs([each.from_start for each in ranges], edges, label="from the file's start")
    axes.stairs([each.afresh for each in ranges], edges, label="from 512 to 1,023 tokens before")
    axes.set_xlabel("tokens before the one that is foreseen")
    axes.set_ylabel("loss, nats per token")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _tracked(texts: list[list[int]], description: str) -> Iterator[list[int]]:
    yield from track(texts, description=description)


@click.command()
@click.argument("corpus", type=click.Path(path_type=Path, exists=True))
@click.argument("model", type=click.Path(path_type=Path, exists=True))
@click.option("--files", default=24, show_default=True, help="Files to read, at most.")
@click.option("--length", type=click.Choice(list(map(str, ENDS[1:]))), default=str(ENDS[-1]))
@click.option("--threads", default=1, show_default=True)
def main(corpus: Path, model: Path, files: int, length: str, threads: int) -> None:
    """Tell up to which length MODEL's loss is flat on the held-out Python of CORPUS."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    tokenizer = Tokenizer.load(model)
    texts = list(long_texts(Corpus.load(corpus / "heldout.npz"), tokenizer, int(length), files))
    if not texts:
        raise click.ClickException(f"no held-out file has {length} tokens")
    weights = load_model(model, device="cpu", dtype=torch.float32)
    ranges = by_length(weights, texts)
    result = {
        "n_files": len(texts),
        "flat_up_to": flat_up_to(ranges),
        "ranges": [asdict(each) for each in ranges],
    }
    (model / "length.json").write_text(json.dumps(result, indent=1) + "\n")
    plot(ranges, model / "length.svg")
    click.echo(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
