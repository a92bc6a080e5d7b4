"""Cuts completion cases out of source code: a cursor, the text around it, what stood there.

`python -m perf.cases SOURCE OUT` takes a file, a folder, or a packed corpus (`*.npz`, as
`training.corpus` writes it) and writes JSON lines that `keystate eval` reads. By default cursors
are uniform over the characters that have something but blanks behind them on their line, and the
rest of the line is taken out; with `--kinds` there are so many of each kind of cursor.
"""

from __future__ import annotations

import json
import random
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lsp_server.documents import Document
from lsp_server.syntax import language_id_of
from perf.case_kinds import KINDS, cut, line_cut
from perf.json_objects import field, read_objects
from perf.source_files import half_of, packed_files, read_sources
from perf.whole_file import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from perf.source_files import SourceFile

# Drawn besides what is asked for, so that enough is left when some stand in the training corpus.
SPARE_SHARE = 0.5
# Cursors tried for each case wanted: a small source may not have so many.
TRIES_PER_CASE = 400
# Shorter lines are alike in files that have nothing to do with one another.
MIN_TELLING_CHARS = 20


@dataclass(frozen=True, kw_only=True)
class Case:
    """A place in a file, and what stood there: the file was prefix + truth + blanks + suffix."""

    path: str
    language_id: str
    prefix: str
    suffix: str
    truth: str
    """Without blanks at its end."""
    kind: str = "any"
    """One of `KINDS`, or what others call theirs."""
    multiline: bool = False
    """Whether the truth goes to the end of a statement or block, not of the cursor's line."""

    def open(self, uri: str) -> Document:
        """The document in which a suggestion is asked for."""
        return Document(uri, self.language_id, 0, self.prefix + self.suffix, path=self.path)


def read_cases(path: Path, limit: int | None = None) -> list[Case]:
    """Read the first `limit` cases; raises ValueError that names the line for what is not one.

    Path, prefix, suffix and truth must be there; the rest is told from them where it is not.
    """
    cases = list(islice(read_objects(path, _case, "a case"), limit))
    if not cases:
        raise ValueError(f"{path} has no cases, expected one a line")
    return cases


def write_cases(cases: Iterable[Case], path: Path) -> None:
    """Write cases where `read_cases` finds them equal."""
    lines = [
        json.dumps(
            {
                "path": case.path,
                "languageId": case.language_id,
                "prefix": case.prefix,
                "suffix": case.suffix,
                "truth": case.truth,
                "kind": case.kind,
                "multiline": case.multiline,
            },
            ensure_ascii=False,
        )
        + "\n"
        for case in cases
    ]
    write_whole(path, "".join(lines))


def uniform_cases(sources: Sequence[SourceFile], n: int, seed: int) -> list[Case]:
    """Cases at cursors uniform over all characters with a rest of line; fewer if there are few.

    Truth is the rest of the line. The kind says what kind of cursor it happens to be.
    """
    dice = random.Random(seed)
    places = _Places(sources, dice)
    cases: list[Case] = []
    for _ in range(n * TRIES_PER_CASE if sources else 0):
        if len(cases) == n:
            break
        document, offset = places.draw()
        case = line_cut(document, offset)
        if case is not None and places.is_new(document, offset):
            cases.append(_cut_case(document, *case))
    return cases


def kind_cases(
    sources: Sequence[SourceFile], n: int, seed: int, kinds: Sequence[str] = KINDS
) -> list[Case]:
    """At most n cases of each kind, each from a file of its own choosing; fewer where few are."""
    cases: list[Case] = []
    for kind in kinds:
        # A seed for each kind: another's cases stay the same when one changes.
        dice = random.Random(f"{seed} {kind}")
        places = _Places(sources, dice)
        wanted = len(cases) + n
        for _ in range(n * TRIES_PER_CASE if sources else 0):
            if len(cases) == wanted:
                break
            document, offset = places.draw()
            case = cut(document, offset, kind)
            if case is not None and places.is_new(document, case[0]):
                cases.append(_cut_case(document, *case))
    return cases


def without_seen(cases: Sequence[Case], seen: Iterable[SourceFile]) -> list[Case]:
    """The cases whose line, with the two telling lines below it, stands in none of these files."""
    keys = {_key(case): False for case in cases}
    first_lines = {key[0] for key in keys}
    for source in seen:
        below, further = "", ""
        for line in reversed(source.text.split("\n")):
            line = line.strip()
            if line in first_lines and (key := (line, below, further)) in keys:
                keys[key] = True
            if len(line) > MIN_TELLING_CHARS:
                below, further = line, below
    return [case for case in cases if not keys[_key(case)]]


class _Places:
    """Draws cursors uniform over the characters of all files, no place twice."""

    def __init__(self, sources: Sequence[SourceFile], dice: random.Random) -> None:
        self._sources, self._dice = sources, dice
        self._ends = list(accumulate(len(source.text) for source in sources))
        self._documents: dict[int, Document] = {}
        self._taken: set[tuple[str, int]] = set()

    def draw(self) -> tuple[Document, int]:
        at = self._dice.randrange(self._ends[-1])
        index = bisect_right(self._ends, at)
        document = self._documents.get(index)
        if document is None:
            source = self._sources[index]
            document = Document(
                f"{index}", language_id_of(source.path), 0, source.text, path=source.path
            )
            self._documents[index] = document
        return document, at - (self._ends[index] - document.n_chars)

    def is_new(self, document: Document, offset: int) -> bool:
        place = (document.uri, offset)
        is_new = place not in self._taken
        self._taken.add(place)
        return is_new


def _cut_case(document: Document, start: int, end: int, kind: str, multiline: bool) -> Case:
    text = document.text
    return Case(
        path=document.path,
        language_id=document.language_id,
        prefix=text[:start],
        suffix=text[end:],
        truth=text[start:end].rstrip(),
        kind=kind,
        multiline=multiline,
    )


def _case(fields: dict[str, Any]) -> Case:
    texts = {key: field(fields, key, str) for key in ("path", "prefix", "suffix", "truth")}
    truth = texts["truth"].rstrip()
    if not truth:
        raise ValueError("truth is blank, expected what stood at the cursor")
    return Case(
        **(texts | {"truth": truth}),
        language_id=field(fields, "languageId", str, "") or language_id_of(texts["path"]),
        kind=field(fields, "kind", str, "any"),
        multiline=field(fields, "multiline", bool, "\n" in truth),
    )


def _key(case: Case) -> tuple[str, str, str]:
    """The cursor's line as it was, and the next two lines below it that tell something."""
    # An empty body's prefix ends with its own indentation, so this is its first line.
    text = case.prefix.rpartition("\n")[2] + case.truth + case.suffix
    line, _, rest = text.partition("\n")
    telling = (
        below for below in map(str.strip, rest.split("\n")) if len(below) > MIN_TELLING_CHARS
    )
    return line.strip(), next(telling, ""), next(telling, "")


@click.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--n", default=2000, show_default=True, help="How many; of each kind with --kinds.")
@click.option("--uniform/--kinds", default=True, help="Cursors over all characters, or by kind.")
@click.option("--seed", default=1, show_default=True)
@click.option(
    "--unlike",
    type=click.Path(path_type=Path, exists=True),
    help="Leave out what stands in this source: the corpus that a model was trained on.",
)
@click.option(
    "--half",
    type=click.Choice(["calibration", "results"]),
    help="Only the files of SOURCE that models are calibrated on, or that results come from.",
)
def main(
    source: Path,
    out: Path,
    n: int,
    uniform: bool,
    seed: int,
    unlike: Path | None,
    half: str | None,
) -> None:
    """Cut cases out of SOURCE into the file OUT."""
    sources = [each for each in read_sources(source) if half in (None, half_of(each.path))]
    n_drawn = n if unlike is None else n + int(n * SPARE_SHARE) + 1
    cases = (uniform_cases if uniform else kind_cases)(sources, n_drawn, seed)
    n_cut = len(cases)
    if unlike is not None:
        seen = packed_files(unlike) if unlike.suffix == ".npz" else read_sources(unlike)
        cases = without_seen(cases, seen)
    n_seen = n_cut - len(cases)
    by_kind: dict[str, list[Case]] = {}
    for case in cases:
        by_kind.setdefault("" if uniform else case.kind, []).append(case)
    kept = [case for each in by_kind.values() for case in each[:n]]
    if not kept:
        raise click.ClickException(f"no cases from {source}: expected source files")
    write_cases(kept, out)
    also = "" if unlike is None else f", {n_seen} of {n_cut} were left out: they stand in {unlike}"
    click.echo(f"{len(kept)} cases in {out}{also}")


if __name__ == "__main__":
    main()
