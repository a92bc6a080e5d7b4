"""Fits how far copying is trusted beside a model: what followed the same text elsewhere.

`python -m training.calibrate CORPUS MODEL` takes holes of a line or a few out of CORPUS's held-out
files that no result is computed on, of each language its share, lets the model read each true text
in one pass, and writes MODEL/copying.json: the weights that make the true tokens most probable.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import torch
from rich.progress import track

from engine.checkpoint import load_model
from engine.copying import FEATURES, Copier, CopyWeights
from engine.fim import PromptOrder, fim_format
from engine.text_index import TextIndex
from engine.tokenizer import Tokenizer
from engine.vocabulary_trie import VocabularyTrie
from kernels.token_choice import distribution
from training.corpus import Corpus, calibration_half, load_languages
from training.headers import path_header
from training.mixture import SHARES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from engine.mamba2 import Mamba2

# The windows that the server cuts for the embedded model.
PREFIX_CHARS, SUFFIX_CHARS = 3000, 900
# At least so much is taken out behind the cursor, up to a line's end, in every third hole; in the
# others the rest of the line: most of what is asked for.
HOLE_CHARS, LONG_EVERY = 100, 3
# Keeps weights small that the data say little about.
PENALTY = 1e-4


@dataclass(frozen=True, kw_only=True)
class Hole:
    """A place in a file, and what stood there."""

    header: str
    before: str
    text: str
    after: str
    # What other files of the project say: passages that may be copied from.
    passages: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Step:
    """One true token, as it could be foreseen.

    features (k, n_features) and own (k,) of the k candidates, own under the model; `rest` and
    `true` are log-probabilities, of everything else together and of the true token;
    `index` is the true token's among the candidates, else -1.
    """

    features: Tensor
    own: Tensor
    rest: float
    true: float
    index: int


def holes(corpus: Corpus, n: int, seed: int) -> Iterator[Hole]:
    """Yield n holes, uniform over the characters of the files to calibrate on."""
    rng = np.random.default_rng(seed)
    sizes = np.diff(corpus.offsets) * np.array([calibration_half(name) for name in corpus.names])
    projects = _Projects(corpus)
    while n:
        index = int(rng.choice(len(corpus), p=sizes / sizes.sum()))
        text = corpus[index]
        cursor = int(rng.integers(len(text)))
        line_end = text.find("\n", cursor)
        if not text[cursor:line_end].strip():
            continue
        n -= 1
        if n % LONG_EVERY and line_end >= 0:
            # With its break, which stands behind the cursor too.
            end, last = line_end, "\n"
        else:
            end, last = text.find("\n", cursor + HOLE_CHARS) + 1 or len(text), ""
        before, after = text[:cursor], text[end:]
        yield Hole(
            header=path_header(corpus.names[index]),
            before=before,
            text=text[cursor:end] + last,
            after=after,
            passages=projects.passages(index, before, after),
        )


class _Projects:
    """A corpus's files by their top folders, and what they say to one another."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._tops = [name.partition("/")[0] for name in corpus.names]
        self._indexes: dict[str, TextIndex] = {}

    def passages(self, index: int, before: str, after: str) -> tuple[str, ...]:
        """Give passages of other files for a cursor in one."""
        top = self._tops[index]
        files = [i for i, other in enumerate(self._tops) if other == top]
        if top not in self._indexes:
            self._indexes[top] = TextIndex([self._corpus[i] for i in files])
        own = files.index(index)
        return self._indexes[top].passages(before, after, near=own, without=(own,))


class Reader:
    """A model that reads holes with what truly stood in them."""

    def __init__(self, model: Mamba2, tokenizer: Tokenizer) -> None:
        """Index the vocabulary."""
        self.model, self.tokenizer = model, tokenizer
        self.fim, self.trie = fim_format(tokenizer), VocabularyTrie(tokenizer.pieces)
        self._text_ids = torch.tensor([i for i, piece in enumerate(tokenizer.pieces) if piece])

    def steps(self, hole: Hole) -> Iterator[Step]:
        """Yield a step for every token that spells the hole's text, held-back text first."""
        window = hole.before[-PREFIX_CHARS:]
        if len(window) < len(hole.before):
            window = window[window.find("\n") + 1 :]
        near, far = hole.after[:SUFFIX_CHARS], hole.after[SUFFIX_CHARS:]
        above = hole.before[: len(hole.before) - len(window)]
        split = self.fim.split(hole.header + window)
        held = split.held
        head = self.fim.head(PromptOrder.SUFFIX_FIRST, near)
        true = self.tokenizer.encode(held.decode("utf-8", errors="ignore") + hole.text)
        hidden, _ = self.model.prefill(torch.tensor([[*head, *split.ids.tolist(), *true[:-1]]]))
        rows = self.model.logits(hidden[0, -len(true) :])
        others = (near, above[-(2**14) :], far, *hole.passages)
        copier = Copier(self.tokenizer, hole.header + window, others, below=near)
        spelled = b""
        for token_id, row in zip(true, rows, strict=True):
            left = held[len(spelled) :]
            yield self._step(token_id, row, copier, spelled[len(held) :], left)
            spelled += self.tokenizer.piece_bytes(token_id)

    def _step(
        self, token_id: int, row: Tensor, copier: Copier, written: bytes, left: bytes
    ) -> Step:
        ids = self._text_ids
        if left:
            partial, complete = self.trie.covering(left)
            ids = torch.tensor([*complete.tolist(), *(i for i, _ in partial)])
        log_probs, _ = distribution(row, ids)
        candidates = copier.candidates(written, left)
        candidates = [c for c in candidates if log_probs[c.token_id] > -torch.inf]
        found = [c.token_id for c in candidates]
        rest = log_probs.index_fill(0, torch.tensor(found, dtype=torch.long), -torch.inf)
        return Step(
            features=torch.tensor([c.features for c in candidates], dtype=torch.float64),
            own=log_probs[found],
            rest=float(rest.logsumexp(0).clamp(min=-60)),
            true=float(log_probs[token_id]),
            index=found.index(token_id) if token_id in found else -1,
        )


class Table:
    """Steps as padded tensors, so that all are weighed at once."""

    def __init__(self, steps: list[Step]) -> None:
        """Pad to the largest number of candidates."""
        n, k = len(steps), max(len(step.own) for step in steps)
        self.features = torch.zeros(n, k, len(FEATURES), dtype=torch.float64)
        self.own = torch.full((n, k), -torch.inf, dtype=torch.float64)
        for i, step in enumerate(steps):
            if len(step.own):
                self.features[i, : len(step.own)] = step.features
                self.own[i, : len(step.own)] = step.own
        self.rest = torch.tensor([step.rest for step in steps], dtype=torch.float64)
        self.true = torch.tensor([step.true for step in steps], dtype=torch.float64)
        self.index = torch.tensor([step.index for step in steps])

    def loss(self, bias: Tensor, slope: Tensor) -> Tensor:
        """Give the mean negative log-probability of the true tokens."""
        is_candidate = self.own > -torch.inf
        own = self.own.masked_fill(~is_candidate, 0)
        odds = self.features @ bias + (1 + self.features @ slope).clamp(min=0) * own
        odds = odds.masked_fill(~is_candidate, -torch.inf)
        total = torch.cat((odds, self.rest[:, None]), dim=1).logsumexp(1)
        chosen = odds.gather(1, self.index.clamp(min=0)[:, None])[:, 0]
        return (total - torch.where(self.index >= 0, chosen, self.true)).mean()


def fitted(table: Table) -> CopyWeights:
    """Give the weights that make the true tokens most probable."""
    bias = torch.zeros(len(FEATURES), dtype=torch.float64, requires_grad=True)
    slope = torch.zeros(len(FEATURES), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([bias, slope], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        loss = table.loss(bias, slope) + PENALTY * (bias.square().sum() + slope.square().sum())
        loss.backward()
        return float(loss.detach())

    optimizer.step(closure)
    return CopyWeights(
        bias=tuple(round(value, 4) for value in bias.tolist()),
        slope=tuple(round(value, 4) for value in slope.tolist()),
    )


@click.command()
@click.argument("corpus", type=click.Path(path_type=Path, exists=True))
@click.argument("model", type=click.Path(path_type=Path, exists=True))
@click.option("--n", default=300, show_default=True, help="Holes, of all languages together.")
@click.option("--seed", default=0, show_default=True)
@click.option("--threads", default=1, show_default=True)
def main(corpus: Path, model: Path, n: int, seed: int, threads: int) -> None:
    """Write MODEL/copying.json, fitted on held-out files of the folder CORPUS."""
    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)
    weights = load_model(model, device="cpu", dtype=torch.float32)
    reader = Reader(weights, Tokenizer.load(model))
    steps = {}
    with torch.inference_mode():
        for language, heldout in load_languages(corpus, "heldout").items():
            drawn = list(holes(heldout, max(round(n * SHARES[language]), 1), seed))
            read = track(drawn, description=f"reading {language}")
            steps[language] = [step for hole in read for step in reader.steps(hole)]
    copying = fitted(Table([step for each in steps.values() for step in each]))
    copying.save(model)
    tables = {language: Table(each) for language, each in steps.items()}
    click.echo(json.dumps({name: losses(t, copying) for name, t in tables.items()}, indent=1))


def losses(table: Table, copying: CopyWeights) -> dict[str, float]:
    """Give the loss in nats a token, alone and with copying; how often copying has the token."""
    bias, slope = (
        torch.tensor(side, dtype=torch.float64) for side in (copying.bias, copying.slope)
    )
    return {
        "n_tokens": len(table.true),
        "loss_alone": -float(table.true.mean()),
        "loss_with_copying": float(table.loss(bias, slope)),
        "share_found": float((table.index >= 0).double().mean()),
    }


if __name__ == "__main__":
    main()
