"""How often a model finishes a line right, on source that it was not trained on.

`python -m training.evaluate CORPUS MODEL` draws cursors from CORPUS/heldout.npz, uniform over the
characters that have something but blanks behind them on their line, asks the engine for the rest
of the line, and compares. Beside it stands plain copying: what followed the longest earlier match
of 3 to 60 characters before the cursor.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
from rich.progress import track

from engine.engine import Engine
from engine.request import CompletionRequest
from training.corpus import Corpus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.request import Completion

# The windows that the server cuts for the embedded model.
PREFIX_CHARS, SUFFIX_CHARS = 3000, 900
COPY_CHARS = (3, 60)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A place in a file, and what stands there up to the line's end."""

    name: str
    prefix: str
    suffix: str
    truth: str


def cases(corpus: Corpus, n: int, seed: int) -> Iterator[Case]:
    """Yield n cases; the rest of the cursor's line is taken out, what is below it stays."""
    rng = np.random.default_rng(seed)
    sizes = np.diff(corpus.offsets)
    while n:
        index = int(rng.choice(len(corpus), p=sizes / sizes.sum()))
        text = corpus[index]
        cursor = int(rng.integers(len(text)))
        end = text.find("\n", cursor)
        truth = text[cursor : end if end >= 0 else len(text)]
        if truth.strip():
            yield Case(
                name=corpus.names[index],
                prefix=text[:cursor],
                suffix=text[cursor + len(truth) :],
                truth=truth.rstrip(),
            )
            n -= 1


def copied(prefix: str) -> str:
    """Give the rest of the line that followed the longest earlier match, "" where none is."""
    shortest, longest = COPY_CHARS
    for length in range(longest, shortest - 1, -1):
        found = prefix[:-1].rfind(prefix[-length:]) if len(prefix) > length else -1
        if found >= 0:
            return prefix[found + length :].split("\n", 1)[0].rstrip()
    return ""


def completed(engine: Engine, case: Case, document: str) -> str:
    """Ask an engine, stepped by hand, for the rest of a case's line."""
    answers: list[Completion] = []
    window = case.prefix[-PREFIX_CHARS:]
    if len(window) < len(case.prefix):
        window = window[window.find("\n") + 1 :]
    request = CompletionRequest(
        document=document,
        header=f"# {case.name}\n",
        prefix=window,
        suffix=case.suffix[:SUFFIX_CHARS],
        explicit=True,
        deadline_ms=None,
    )
    engine.submit(request, answers.append)
    while engine.step():
        pass
    engine.forget(document)
    return answers[0].text.rstrip()


@click.command()
@click.argument("corpus", type=click.Path(path_type=Path, exists=True))
@click.argument("model", type=click.Path(path_type=Path, exists=True))
@click.option("--n", default=400, show_default=True, help="Cursors.")
@click.option("--seed", default=1, show_default=True)
@click.option("--examples", default=0, help="Print so many cases.")
def main(corpus: Path, model: Path, n: int, seed: int, examples: int) -> None:
    """Evaluate MODEL on the held-out part of the folder CORPUS."""
    engine = Engine.load(str(model))
    heldout = Corpus.load(corpus / "heldout.npz")
    right = {"model": 0, "copy": 0, "model where copying fails": 0}
    n_copy_fails = 0
    for i, case in enumerate(track(list(cases(heldout, n, seed)), description="asking")):
        text, copy = completed(engine, case, f"case {i}"), copied(case.prefix)
        copy_right = copy == case.truth
        right["model"] += text == case.truth
        right["copy"] += copy_right
        n_copy_fails += not copy_right
        right["model where copying fails"] += text == case.truth and not copy_right
        if i < examples:
            line = case.prefix.rpartition("\n")[2]
            click.echo(f"{line!r} | {text!r} | {case.truth!r}")
    shares = {
        "n": n,
        "exact_match": right["model"] / n,
        "standard_error": (right["model"] / n * (1 - right["model"] / n) / n) ** 0.5,
        "copy_exact_match": right["copy"] / n,
        "exact_match_where_copying_fails": right["model where copying fails"] / n_copy_fails,
    }
    click.echo(json.dumps(shares, indent=1))


if __name__ == "__main__":
    main()
