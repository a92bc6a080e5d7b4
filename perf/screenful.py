"""`python -m perf.screenful SOURCE`: suggestions at random cursors, as an editor would show them.

Each cursor's line is given with the suggestion between ‹ and ›; where something else stood in the
file, that follows behind a #. Cursors without a suggestion are counted, not shown.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lsp_server.settings import Settings
from perf.case_answers import Way, shown_text, suggester_that_shows_all, suggestions_at
from perf.cases import uniform_cases
from perf.source_files import half_of, read_sources

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lsp_server.suggestions import Suggester
    from perf.cases import Case

WIDTH = 100


async def asked(
    cases: Sequence[Case], suggester: Suggester, threshold: float
) -> list[tuple[Case, str]]:
    """Give the cases in which something is shown, each with the first line of it."""
    shown = []
    async for case, _, suggestion in suggestions_at(cases, suggester, Way(explicit=False)):
        text = shown_text(suggestion, threshold).partition("\n")[0]
        if text:
            shown.append((case, text))
    return shown


def line_of(case: Case, text: str) -> str:
    """Give the cursor's line with what is suggested, and what stood there if it was another."""
    before = case.prefix.rpartition("\n")[2].lstrip()
    line = f"{before}‹{text}›"
    if not is_right(case, text):
        line = f"{line}  # {_truth(case).strip()}"
    return line if len(line) <= WIDTH else f"…{line[-WIDTH + 1 :]}"


def is_right(case: Case, text: str) -> bool:
    """Whether this is what stood there up to the line's end."""
    return text.rstrip() == _truth(case)


def _truth(case: Case) -> str:
    return case.truth.partition("\n")[0].rstrip()


@click.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.option("--n", default=60, show_default=True, help="Cursors.")
@click.option("--seed", default=1, show_default=True)
@click.option("--half", default="results", show_default=True, help="Of the files; see perf.cases.")
def main(source: Path, n: int, seed: int, half: str) -> None:
    """Ask at N cursors in the files of SOURCE."""
    sources = [file for file in read_sources(source) if half_of(file.path) == half]
    cases = uniform_cases(sources, n, seed)
    suggester = suggester_that_shows_all(Settings(save_states=False))
    try:
        threshold = suggester.engine.declaration.min_confidence
        shown = asyncio.run(asked(cases, suggester, threshold))
    finally:
        suggester.close()
    for case, text in shown:
        click.echo(line_of(case, text))
    n_right = sum(is_right(case, text) for case, text in shown)
    click.echo(f"{n} cursors, {len(shown)} suggestions shown, {n_right} of them right")


if __name__ == "__main__":
    main()
