"""Makes the traces that `keystate profile` comes with, out of this project's own history.

`python -m perf.shipped_traces perf/samples` writes them again, byte for byte, in a clone with its
history. Each is what somebody typed, at human speed, to get from one commit's text to the next.
"""

from __future__ import annotations

import random
import subprocess
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lsp_server.syntax import language_id_of
from perf.trace_format import Done, Opened, Session, write_session
from perf.typed_run import Habits
from perf.typing_model import type_changes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perf.trace_format import Trace

ROOT = Path(__file__).parents[1]
# The commit whose sources, one after the other, make a long file.
LONG_AT, LONG_FOLDER = "7e0126e", "lsp_server"
# From one file to another: what is done before coming back.
EVENTS_IN_A_ROW = 20
CHANGING_FILES_MS = 900


@dataclass(frozen=True)
class Source:
    """What a commit changed in a file; the seed is that of who types it."""

    commit: str
    path: str
    seed: int = 1


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """A trace to make: changes of files, typed by somebody of these habits."""

    name: str
    sources: tuple[Source, ...]
    habits: Habits = field(default_factory=Habits)
    max_events: int = 100
    """In each file."""
    in_long_file: bool = False
    in_turns: bool = False
    """The files are gone back to; else it is one after the other."""


SHIPPED = (
    Shipped(name="short", sources=(Source("4090f26", "perf/demo_view.py"),)),
    Shipped(
        name="long_file", sources=(Source("0159998", "lsp_server/trimming.py"),), in_long_file=True
    ),
    Shipped(
        name="deleting",
        sources=(Source("276b5e3", "lsp_server/features/inline_completion.py"),),
        habits=Habits(slip=0.25, undo=0.04),
    ),
    Shipped(
        name="jumps",
        sources=(Source("0159998", "lsp_server/protocol.py"),),
        habits=Habits(look_away=0.15, interrupt=0.9),
    ),
    # A paste at the beginning of each.
    Shipped(
        name="paste",
        sources=(
            Source("0159998", "lsp_server/features/inline_completion.py"),
            Source("b257e18", "engine/stopping.py", 3),
            Source("f164c93", "engine/trail.py", 2),
            Source("0159998", "tests/lsp_server/test_settings.py", 3),
            Source("0159998", "lsp_server/trimming.py", 7),
        ),
        habits=Habits(paste=1.0),
        max_events=22,
    ),
    Shipped(
        name="brackets",
        sources=(Source("b257e18", "engine/stopping.py", 2),),
        habits=Habits(slip=0.03),
    ),
    Shipped(
        name="two_files",
        sources=(
            Source("0159998", "lsp_server/stdio.py"),
            Source("0159998", "lsp_server/context.py"),
        ),
        max_events=50,
        in_turns=True,
    ),
)


def shipped_session(one: Shipped) -> Session:
    """Make a session; CalledProcessError where the history is not at hand."""
    traces = []
    for source in one.sources:
        path = source.path
        old, new = (_text(f"{commit}:{path}") for commit in (f"{source.commit}^", source.commit))
        if one.in_long_file:
            before, after = _around(path)
            old, new, path = before + old + after, before + new + after, "long_file.py"
        trace = type_changes(
            old,
            new,
            random.Random(f"{source.seed} {one.name} {source.path}"),
            path=path,
            language_id=language_id_of(path),
            habits=one.habits,
            max_events=one.max_events,
        )
        traces.append(trace)
    if one.in_turns:
        return Session(name=one.name, steps=tuple(in_turns(traces)))
    return Session.of(one.name, *traces)


def in_turns(traces: list[Trace], n_in_a_row: int = EVENTS_IN_A_ROW) -> Iterator[Opened | Done]:
    """Some events in one file, then some in the next; all are opened when they are come to."""
    now_ms = 0
    left = [(trace, list(trace.events)) for trace in traces]
    for turn in range(max(-(-len(trace.events) // n_in_a_row) for trace in traces)):
        for trace, events in left:
            if turn == 0:
                opened = Opened(path=trace.path, language_id=trace.language_id, text=trace.text)
                yield replace(opened, t_ms=now_ms)
            own, events[:n_in_a_row] = events[:n_in_a_row], []
            start_ms = own[0].t_ms if own else 0
            now_ms += CHANGING_FILES_MS
            for event in own:
                moved = replace(event, t_ms=now_ms + event.t_ms - start_ms)
                yield Done(path=trace.path, event=moved)
            now_ms += own[-1].t_ms - start_ms if own else 0


def _around(path: str) -> tuple[str, str]:
    """The sources that come before and after a file in its folder, as one text each."""
    listed = _git("ls-tree", "--name-only", LONG_AT, f"{LONG_FOLDER}/").splitlines()
    paths = [one for one in listed if one.endswith(".py")]
    at = paths.index(path)
    return tuple(
        "".join(_text(f"{LONG_AT}:{one}") for one in some) for some in (paths[:at], paths[at + 1 :])
    )  # type: ignore[return-value]


def _text(name: str) -> str:
    return _git("show", name)


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True).stdout.decode("utf-8")


@click.command()
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path, file_okay=False))
def main(out: Path) -> None:
    """Write the shipped traces into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    for one in SHIPPED:
        session = shipped_session(one)
        path = out / f"{one.name}.jsonl"
        write_session(session, path)
        kinds = Counter(event.kind for event in session.events)
        counts = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
        changes = chain.from_iterable(event.changes for event in session.events)
        n_pairs = sum(change.text in ("()", "[]", "{}", '""', "''") for change in changes)
        click.echo(f"{path}: {path.stat().st_size:,} bytes; {counts}; {n_pairs} pairs")


if __name__ == "__main__":
    main()
