"""An hour of typing into one server: whether it grows, slows down, or errs.

`python -m perf.endurance` starts the server over stdio and replays the shipped traces in turn as
fast as they were typed; their pauses are those of people, see `keyboard.py`. Each round has its
files in another folder, so that prompts are new, and is played twice, so that files are opened
again as well. A warm-up at four times the speed comes first: it fills the room for states, which
is taken once and then kept.

Writes OUT.json and OUT.svg. Exit code 1 if memory grew by more than the bound, or anything failed.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import Progress

from lsp_server.commands.options import FiniteRange
from perf.endurance_figures import figures, plays_of
from perf.profile import SHIPPED
from perf.profile_run import OPTIONS, Plan, profile
from perf.profile_speed import Speed
from perf.profile_summary import machine_of_times
from perf.svg_plot import Plot, Scale
from perf.svg_sheet import sheet
from perf.trace_format import Done, Opened, Session, read_session
from perf.whole_file import check_place, with_ending, write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from perf.profile_sample import Run

OUT = Path(__file__).parent / "results" / "endurance"
WARM_UP_FACTOR = 4.0
WARM_UP = "warm-up"
# Each folder's files are opened so often.
N_OPENINGS = 2
# VS Code's, from a key to the request.
DELAY_S = 0.05


def rounds(sessions: Sequence[Session], minutes: float, name: str, factor: float) -> list[Session]:
    """The sessions in turn, so many times as fast, until the time is over.

    They are called `name/folder/opening/session`.
    """
    found: list[Session] = []
    left_ms = 60e3 * minutes
    for folder, opening in ((n, k) for n in count() for k in range(N_OPENINGS)):
        for session in sessions:
            if left_ms <= 0:
                return found
            one = _moved(session, f"{name}/{folder:03}", opening, factor)
            found.append(one)
            left_ms -= max(_times_ms(one), default=0)
    raise AssertionError("it counts without end")


def _moved(session: Session, folder: str, opening: int, factor: float) -> Session:
    """A session in a folder, so many times as fast."""
    steps: list[Opened | Done] = []
    for step in session.steps:
        path = f"{folder}/{step.path}"
        if isinstance(step, Opened):
            steps.append(replace(step, path=path, t_ms=round(step.t_ms / factor)))
        else:
            event = replace(step.event, t_ms=round(step.event.t_ms / factor))
            steps.append(replace(step, path=path, event=event))
    return Session(name=f"{folder}/{opening}/{session.name}", steps=tuple(steps))


def _times_ms(session: Session) -> Iterator[int]:
    return (step.t_ms if isinstance(step, Opened) else step.event.t_ms for step in session.steps)


def name_without_number(session_name: str) -> str:
    """What a session is called in each folder; opened again is another thing than opened."""
    _, _, opening, name = session_name.split("/")
    return f"{name} {opening}"


def report_of(run: Run, sessions: Sequence[Session]) -> dict[str, Any]:
    """The figures of a run of these sessions, with what they were measured on."""
    n_opened = {one.name: len(one.traces) for one in sessions}
    plays = plays_of(run, name_without_number)
    measured = [play for play in plays if not play.samples[0].trace.startswith(WARM_UP)]
    if not measured:
        raise ValueError(f"the replay ended in its warm-up: {run.problem}")
    return {
        "machine": machine_of_times(),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "server": run.server,
        "model": run.model,
        "sessions": len(measured),
        "documents": sum(n_opened[play.samples[0].trace] for play in measured),
        **figures(run, measured),
    }


def picture(report: dict[str, Any]) -> str:
    """Memory and latency over the hour, as SVG."""
    minutes = max(report["seconds"] / 60, 1e-9)
    mib = [(at_s / 60, n_bytes / 2**20) for at_s, n_bytes in report["rss_bytes"]]
    memory = Plot(
        Scale(0, minutes), Scale(0, 1.1 * max(y for _, y in mib)), x_title="minutes", y_title="MiB"
    )
    memory.line(mib, css="c0")
    highest = max(one["p95"] for one in report["slices"])
    latency = Plot(Scale(0, minutes), Scale(0, 1.1 * highest), x_title="minutes", y_title="ms")
    for css, name in (("c0", "p50"), ("c1", "p95")):
        points = [(one["minute"], one[name]) for one in report["slices"]]
        latency.line(points, css=css)
        for minute, ms in points:
            said = f"{name} from minute {minute:g}: {ms:.1f} ms"
            latency.dot(minute, ms, css=css, radius=3, said=said)
    return sheet(
        f"{minutes:.0f} minutes of typing: {report['machine']}",
        [
            ("Resident memory of the server", (), memory.svg("Memory")),
            ("Latency of each five minutes", ("p50", "p95"), latency.svg("Latency")),
        ],
    )


def failures(report: dict[str, Any], bound: float) -> list[str]:
    """What must not be."""
    found = []
    if report["memory"]["growth"] > bound:
        found.append(f"memory grew by {report['memory']['growth']:.2%}, {bound:.0%} is allowed")
    if report["errors"]:
        found.append(f"{report['errors']} requests failed")
    if report["problem"]:
        found.append(report["problem"])
    return found


def lines(report: dict[str, Any]) -> Iterator[str]:
    """The figures for reading."""
    latency, memory = report["latency_ms"], report["memory"]
    yield (
        f"{report['seconds'] / 60:.1f} minutes, {report['documents']} documents opened,"
        f" {report['requests']:,} requests, {report['errors']} errors,"
        f" {report['suggested']:,} suggestions"
    )
    yield f"latency p50 {latency['p50']:.1f} ms, p95 {latency['p95']:.1f}, p99 {latency['p99']:.1f}"
    yield (
        f"memory {memory['second_tenth_bytes'] / 2**20:.1f} MiB in the second tenth,"
        f" {memory['last_tenth_bytes'] / 2**20:.1f} in the last: {memory['growth']:+.2%}"
    )
    for name, drift in report["drift"].items():
        if drift is None:
            continue
        verdict = "noise" if drift["is_noise"] else "more than noise"
        if drift["high"] < 1:
            verdict = "less than at first"
        yield (
            f"{name.replace('_', ' ')}, last third to first: {drift['ratio']:.3f}"
            f" ({drift['low']:.3f} to {drift['high']:.3f}), {verdict}"
        )


@click.command()
@click.option("--minutes", type=FiniteRange(min=0.01), default=60.0, show_default=True)
@click.option("--warm-up-minutes", type=FiniteRange(min=0.0), default=5.0, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option(
    "--bound",
    type=FiniteRange(min=0.0),
    default=0.01,
    show_default=True,
    help="How much memory may grow.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), default=OUT, help="Write OUT.json and OUT.svg."
)
def main(minutes: float, warm_up_minutes: float, threads: int, bound: float, out: Path) -> None:
    """Type into one server for an hour and see whether it stays as it is."""
    for suffix in (".json", ".svg"):
        check_place(with_ending(out, suffix))
    shipped = [read_session(path) for path in sorted(SHIPPED.glob("*.jsonl"))]
    warm_up = rounds(shipped, warm_up_minutes, WARM_UP, WARM_UP_FACTOR)
    sessions = [*warm_up, *rounds(shipped, minutes, "round", 1.0)]
    plan = Plan(
        sessions=sessions,
        speed=Speed(factor=1.0),
        speed_name="recorded",
        options={**OPTIONS, "threads": threads},
        delay_s=DELAY_S,
    )
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("typing", total=sum(len(one.events) for one in sessions))
        run = asyncio.run(profile(plan, on_event=lambda _: progress.advance(task)))
    report = report_of(run, sessions)
    for path, text in (
        (with_ending(out, ".json"), json.dumps(report, indent=1) + "\n"),
        (with_ending(out, ".svg"), picture(report)),
    ):
        write_whole(path, text)
    for line in lines(report):
        click.echo(line)
    failed = failures(report, bound)
    if failed:
        raise click.ClickException("; ".join(failed))


if __name__ == "__main__":
    main()
