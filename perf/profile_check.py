"""Whether typing costs more than it last did on this kind of machine.

`python -m perf.profile_check`. First the work, counted: the shipped traces are replayed with the
engine stepped by hand, so that tokens, passes and allocations are the same each time, and one more
is a failure (exit code 1). Then times, by `keystate profile`, as ratios to the recorded ones;
those fail nothing. `--record` makes this run the recorded one.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from engine.checkpoint import resolve_model
from lsp_server.settings import Settings
from perf.allocations import Allocations
from perf.cache_bench import Bench
from perf.profile import SHIPPED
from perf.profile_comparison import comparison, comparison_table
from perf.profile_run import Plan, profile
from perf.profile_speed import Speed
from perf.profile_summary import machine_of_times, summary
from perf.profile_table import tables
from perf.replay import Pace, replay_sitting
from perf.trace_format import read_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from engine.engine import Engine
    from perf.replay import MakeEngine
    from perf.trace_format import Session

    # By trace and name.
    Counts = Mapping[str, Mapping[str, int]]

RECORD = Path(__file__).parent / "results" / "profile.json"
SETTINGS = Settings(max_tokens=12, save_states=False)
# As in the server: read ahead, and ask a little later.
PACE = Pace(prepare=True, pass_ms=8.0, request_delay_ms=50.0)
# Of each trace.
COUNTED_EVENTS = 60
# What is compared of a request's sample.
COLUMNS = ("trace", "kind", "n_chars", "outcome", "latency_ms", "n_recomputed", "n_passes")


@dataclass(frozen=True, kw_only=True)
class Check:
    """What a comparison of counts came to."""

    lines: list[tuple[str, str, int, int]]
    """Trace, count, recorded, now; only those that differ."""

    @property
    def worse(self) -> list[str]:
        return [f"{trace}: {name}" for trace, name, before, now in self.lines if now > before]


def work_counts(
    sessions: Iterable[Session], make_engine: MakeEngine, *, max_events: int = COUNTED_EVENTS
) -> dict[str, dict[str, int]]:
    """Tokens, passes and allocations by trace: the same on every run.

    That is, with one model on one kind of machine, and for the same traces in the same order. At
    most so many events of a session; its files are replayed one after the other. Allocations are
    those of tensors in the engine's steps, background work included, the slots for states not:
    these are taken before. Nearly all are given back within the keystroke.
    """
    counts = {}
    for session in sessions:
        allocations = Allocations()
        n_events = max_events // len(session.traces)
        traces = [replace(trace, events=trace.events[:n_events]) for trace in session.traces]
        counted = _counted(make_engine, allocations)
        rows = replay_sitting(traces, counted, settings=SETTINGS, pace=PACE)
        counts[session.name] = {
            "requests": sum(row.asked for row in rows),
            "tokens_recomputed": sum(row.n_recomputed for row in rows),
            "tokens_in_background": sum(row.n_background for row in rows),
            "passes": sum(row.n_passes for row in rows),
            "healing_passes": sum(row.n_healing_passes for row in rows),
            "alternative_passes": sum(row.n_alternative_passes for row in rows),
            "allocations": allocations.n,
            "allocated_bytes": allocations.n_bytes,
        }
    return counts


def _counted(make_engine: MakeEngine, allocations: Allocations) -> MakeEngine:
    """The same, with what is allocated in the engine's steps counted."""

    def make(clock: Callable[[], float]) -> Engine:
        engine = make_engine(clock)
        step = engine.step

        def counted_step() -> bool:
            with allocations:
                return step()

        engine.step = counted_step  # type: ignore[method-assign]
        return engine

    return make


def allocation_line(counts: Counts) -> str:
    """What a keystroke with a request allocates, over all traces."""
    requests, times, n_bytes = (
        sum(of_trace[name] for of_trace in counts.values())
        for name in ("requests", "allocations", "allocated_bytes")
    )
    return (
        f"a keystroke allocates {times / requests:.1f} tensors,"
        f" {n_bytes / requests / 1e6:.2f} MB in all"
    )


def compared(before: Counts, now: Counts) -> Check:
    """Hold counts against the recorded ones."""
    return Check(
        lines=[
            (trace, name, before[trace][name], count)
            for trace, counts in now.items()
            for name, count in counts.items()
            if trace in before and before[trace].get(name, count) != count
        ]
    )


def kind_of_machine(model: Path) -> str:
    """What counts and times depend on besides the code."""
    weights = hashlib.blake2b(digest_size=4)
    for path in sorted(model.glob("*.safetensors")):
        weights.update(path.read_bytes())
    return f"{machine_of_times()}, torch {version('torch')}, model {weights.hexdigest()}"


def _times(sessions: list[Session]) -> dict[str, Any]:
    plan = Plan(sessions=sessions, speed=Speed(), speed_name="max")
    with Progress(console=Console(stderr=True), transient=True) as progress:
        n_events = sum(len(session.events) for session in sessions)
        task = progress.add_task("timing", total=n_events)
        run = asyncio.run(profile(plan, on_event=lambda _: progress.advance(task)))
    if run.problem:
        raise click.ClickException(run.problem)
    return summary(run)


def _kept(figures: dict[str, Any]) -> dict[str, Any]:
    """Of a profile's summary, what later ones are compared with."""
    samples = [{key: one[key] for key in COLUMNS if key in one} for one in figures["samples"]]
    dropped = ("samples", "memory", "command", "problem")
    return {key: value for key, value in figures.items() if key not in dropped} | {
        "samples": samples
    }


def _counts_table(check: Check) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("work that changed", "count"):
        table.add_column(name)
    for name in ("recorded", "now", "ratio"):
        table.add_column(name, justify="right")
    for trace, name, before, now in check.lines:
        ratio = f"{now / before:.3f}" if before else ""
        style = "bold red" if now > before else "green"
        table.add_row(trace, name, f"{before:,}", f"{now:,}", ratio, style=style)
    return table


def _bench() -> Bench:
    """The embedded model as the server runs it."""
    bench = Bench.load(None)
    bench.model.compile_passes(1)
    return bench


@click.command()
@click.option("--record", is_flag=True, help="Take this run as what later ones are compared with.")
def main(record: bool) -> None:
    """Compare what the shipped traces cost with what they last did on this kind of machine."""
    # Counts are the same each time, and hardly slower beside other work.
    torch.set_num_threads(1)
    console = Console(highlight=False)
    sessions = [read_session(path) for path in sorted(SHIPPED.glob("*.jsonl"))]
    bench = _bench()
    kind = kind_of_machine(resolve_model(None))
    counts: dict[str, dict[str, int]] = {}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for session in progress.track(sessions, description="counting"):
            counts |= work_counts([session], bench.this)
    figures = _times(sessions)
    recorded = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    before = recorded.get(kind)
    console.print(tables(figures))
    click.echo(allocation_line(counts))
    if record:
        recorded[kind] = {"work": counts, "profile": _kept(figures)}
        RECORD.write_text(json.dumps(recorded, separators=(",", ":")) + "\n")
        click.echo(f"recorded for {kind}")
        return
    if before is None:
        click.echo(f"nothing is recorded for {kind}; --record does that")
        return
    console.print(comparison_table(comparison(before["profile"], figures), ()))
    check = compared(before["work"], counts)
    if not check.lines:
        click.echo("the work is what it was, to the token and the byte")
        return
    # The work is what this is about: it comes last, where it is seen.
    console.print(_counts_table(check))
    if check.worse:
        raise click.ClickException(f"more work than recorded: {'; '.join(check.worse)}")
    click.echo("less work than recorded; --record takes it as the new measure")


if __name__ == "__main__":
    main()
