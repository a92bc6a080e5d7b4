"""Makes keystroke traces of a git history, or of source files that have none.

`python -m perf.traces REPO OUT` takes modified files of random commits and has somebody type what
changed; with `--generate` it takes parts out of random files and has them written again.
"""

from __future__ import annotations

import random
import re
import subprocess
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from lsp_server.syntax import language_id_of
from perf.source_files import MAX_FILE_BYTES, source_paths
from perf.trace_format import write_trace
from perf.typing_model import type_changes
from perf.unwriting import MIN_LINES, n_filled_lines, unwritten

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from perf.trace_format import Trace
    from perf.typed_run import Habits

_MODIFIED = re.compile(rb":\d+ \d+ ([0-9a-f]+) ([0-9a-f]+) M\0([^\0]+)\0")


class Modified(NamedTuple):
    """A file that a commit changed, as git names its contents."""

    old_blob: str
    new_blob: str
    path: str


def history_traces(
    repository: Path,
    *,
    seed: int,
    habits: Habits | None = None,
    max_events: int | None = None,
) -> Iterator[Trace]:
    """A trace for each modified file of each commit, the files in an order of the seed's.

    Files that no editor would take for source code are left out. Raises OSError or
    CalledProcessError where git does not find a history.
    """
    modified = sorted(_modified_files(repository))
    random.Random(seed).shuffle(modified)
    for file in modified:
        old = _as_source(_git(repository, "cat-file", "blob", file.old_blob))
        new = _as_source(_git(repository, "cat-file", "blob", file.new_blob))
        if old is None or new is None:
            continue
        trace = type_changes(
            old,
            new,
            random.Random(f"{seed} {file.old_blob} {file.new_blob}"),
            path=file.path,
            language_id=language_id_of(file.path),
            habits=habits,
            max_events=max_events,
        )
        if trace.events:
            yield trace


def generated_traces(
    directory: Path,
    *,
    seed: int,
    habits: Habits | None = None,
    max_events: int | None = None,
) -> Iterator[Trace]:
    """Made-up traces of a source tree's files, without end; none for a tree without sources."""
    sources = [
        (path, text) for path in source_paths(directory) if (text := _as_source(path.read_bytes()))
    ]
    sources = [(path, text) for path, text in sources if n_filled_lines(text) >= MIN_LINES]
    for number in count() if sources else ():
        dice = random.Random(f"{seed} {number}")
        path, text = dice.choice(sources)
        name = path.relative_to(directory).as_posix()
        trace = type_changes(
            unwritten(text, dice),
            text,
            dice,
            path=name,
            language_id=language_id_of(name),
            habits=habits,
            in_order=False,
            max_events=max_events,
        )
        if trace.events:
            yield trace


def sittings(traces: Iterable[Trace], n_events: int) -> Iterator[tuple[Trace, ...]]:
    """Join traces into sittings of so many events: files edited one after the other.

    The last one of each is left midway. What is left over at the end makes no sitting.
    """
    if n_events < 1:
        raise ValueError(f"n_events is {n_events}, expected 1 or more")
    joined: list[Trace] = []
    n_left = n_events
    for trace in traces:
        joined.append(replace(trace, events=trace.events[:n_left]))
        n_left -= len(joined[-1].events)
        if not n_left:
            yield tuple(joined)
            joined, n_left = [], n_events


def _modified_files(repository: Path) -> Iterator[Modified]:
    log = _git(
        repository,
        *("log", "--no-merges", "--no-renames", "--diff-filter=M"),
        *("--raw", "--no-abbrev", "-z", "--format="),
    )
    for match in _MODIFIED.finditer(log):
        path = match[3].decode("utf-8", errors="replace")
        if language_id_of(path) != "plaintext":
            yield Modified(match[1].decode(), match[2].decode(), path)


def _git(repository: Path, *arguments: str) -> bytes:
    command = ["git", "-C", str(repository), *arguments]
    return subprocess.run(command, check=True, capture_output=True).stdout


def _as_source(content: bytes) -> str | None:
    """The text of a file that somebody may have typed; None for any other."""
    if len(content) > MAX_FILE_BYTES or b"\0" in content or b"\r" in content:
        return None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _file_name(number: int, path: str) -> str:
    words = re.sub(r"[^\w.]+", "-", path).strip("-.")
    return f"{number:03d}-{words}.jsonl"


@click.command()
@click.argument("repository", metavar="REPO", type=click.Path(path_type=Path, exists=True))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path, file_okay=False))
@click.option("--n", "n_traces", default=20, show_default=True, help="How many traces.")
@click.option("--seed", default=1, show_default=True)
@click.option("--max-events", type=click.IntRange(min=1), help="Cut longer traces short.")
@click.option("--generate", is_flag=True, help="Make sessions up; REPO needs no history.")
def main(
    repository: Path, out: Path, n_traces: int, seed: int, max_events: int | None, generate: bool
) -> None:
    """Write keystroke traces of a repository's history into a folder."""
    make = generated_traces if generate else history_traces
    n_written = n_events = 0
    try:
        for trace in make(repository, seed=seed, max_events=max_events):
            if n_written == n_traces:
                break
            out.mkdir(parents=True, exist_ok=True)
            n_written += 1
            n_events += len(trace.events)
            write_trace(trace, out / _file_name(n_written, trace.path))
    except subprocess.CalledProcessError as error:
        raise click.ClickException(error.stderr.decode(errors="replace").strip()) from error
    if n_written == 0:
        raise click.ClickException(
            f"no traces from {repository}: expected modified source files in its history,"
            " or source files with --generate"
        )
    click.echo(f"{n_written} traces, {n_events} events in {out}")


if __name__ == "__main__":
    main()
