"""`keystate profile`: what a keystroke costs, measured from outside at a real server."""

from __future__ import annotations

import asyncio
import json
import shlex
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from lsp_server.commands.options import FiniteRange, device_option, json_option, model_option
from lsp_server.settings import read_settings
from perf.chrome_trace import chrome_trace
from perf.client import SERVER_COMMAND
from perf.json_objects import checked, field, json_object
from perf.percentiles import percentiles
from perf.profile_comparison import comparison, comparison_table, regressions
from perf.profile_page import page
from perf.profile_run import OPTIONS, Plan, profile
from perf.profile_speed import Speed
from perf.profile_summary import summary
from perf.profile_table import tables
from perf.trace_format import read_session
from perf.whole_file import check_place, write_whole

if TYPE_CHECKING:
    from perf.profile_sample import Run, Sample

SHIPPED = Path(__file__).parent / "samples"
# Of a run's figures, those that two of them are compared by.
MEASURED_ONCE = ("rss_bytes", "cpu_s_per_1000_chars")
MEASURED_EACH = ("latency_ms", "n_recomputed", "n_passes")
PATH = click.Path(dir_okay=False, path_type=Path)


@click.command("profile")
@click.argument("traces", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--server",
    metavar="CMD",
    help="Another server's command line; it speaks LSP over stdio.  [default: this one]",
)
@click.option(
    "--speed",
    "speed_name",
    metavar="SPEED",
    default="max",
    show_default=True,
    help="recorded, max (each answer is waited for), a factor (2x), or events a second (10/s).",
)
@click.option(
    "--delay-ms",
    type=FiniteRange(min=0),
    default=0.0,
    help="Rest after an event before the request, as editors have one.",
)
@click.option(
    "--timeout-s",
    type=FiniteRange(min=0.001),
    default=10.0,
    show_default=True,
    help="A request without an answer by then is an error.",
)
@click.option(
    "--start-timeout-s",
    type=FiniteRange(min=0.001),
    default=300.0,
    show_default=True,
    help="How long the server may take to start and to answer first.",
)
@click.option("--options", metavar="JSON", help="The server's initializationOptions.")
@json_option
@click.option("--report", type=PATH, metavar="HTML", help="Write a page that needs nothing else.")
@click.option(
    "--chrome-trace", "chrome", type=PATH, metavar="JSON", help="Write a trace for Perfetto."
)
@click.option(
    "--compare",
    nargs=2,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="A.json B.json",
    help="Measure nothing; print the ratios of two runs' --json, B to A.",
)
@click.option(
    "--bound",
    type=FiniteRange(min=1.0),
    default=1.2,
    show_default=True,
    help="With --compare: the ratio from which on B is a regression, exit code 1.",
)
@model_option
@device_option
def command(
    traces: tuple[Path, ...],
    server: str | None,
    speed_name: str,
    delay_ms: float,
    timeout_s: float,
    start_timeout_s: float,
    options: str | None,
    as_json: bool,
    report: Path | None,
    chrome: Path | None,
    compare: tuple[Path, Path] | None,
    bound: float,
    model: str | None,
    device: str | None,
) -> None:
    """Replay keystroke traces into a real server and measure every answer.

    Without TRACES those that come along are replayed: short, in a long file, with much deleting,
    jumps, pasting, brackets that close themselves, and two files. From our own server it also
    gets the stages of each answer.
    """
    if compare:
        _compare(*compare, bound, as_json)
        return
    for path in filter(None, (report, chrome)):
        check_place(path)
    plan = Plan(
        sessions=[read_session(path) for path in traces or sorted(SHIPPED.glob("*.jsonl"))],
        speed=Speed.parse(speed_name),
        speed_name=speed_name,
        command=_command(server, model, device),
        options=_options(options, server),
        timeout_s=timeout_s,
        start_timeout_s=start_timeout_s,
        delay_s=delay_ms / 1e3,
    )
    run = _run(plan)
    figures = summary(run)
    if as_json:
        click.echo(json.dumps(figures))
    else:
        Console(highlight=False).print(tables(figures))
    # Behind what was printed: should they fail, that was not measured for nothing.
    if report is not None:
        write_whole(report, page(figures))
    if chrome is not None:
        write_whole(chrome, json.dumps(chrome_trace(figures)))
    if run.problem:
        click.echo(f"Error: {run.problem}", err=True)
        raise click.exceptions.Exit(1)


def _command(server: str | None, model: str | None, device: str | None) -> tuple[str, ...]:
    given = [("--model", model), ("--device", device)]
    more = [part for name, value in given if value is not None for part in (name, value)]
    if server is None:
        return (*SERVER_COMMAND, *more)
    if more:
        raise ValueError("--model and --device are for our own server, not for --server's")
    try:
        command = tuple(shlex.split(server))
    except ValueError as error:
        raise ValueError(f"--server is {server!r}, expected a command line: {error}") from error
    if not command:
        raise ValueError(f"--server is {server!r}, expected a command line")
    return command


def _options(text: str | None, server: str | None) -> dict[str, Any] | None:
    if text is None:
        # Another server would not know what ours is asked.
        return OPTIONS if server is None else {}
    try:
        options = json_object(text.encode("utf-8", "surrogateescape"))
    except ValueError as error:
        raise ValueError(f"--options: {error}") from error
    if server is not None:
        return options
    _, problems = read_settings(options, {})
    if problems:
        # The server would go on without them, and other settings would be measured.
        raise ValueError(f"--options: {'; '.join(problems)}")
    return {**OPTIONS, **options}


def _run(plan: Plan) -> Run:
    """Measure, with a bar on a terminal that shows how it goes."""
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
    n_events = sum(len(session.events) for session in plan.sessions)
    task = progress.add_task("starting", total=n_events)
    latencies_ms: list[float] = []

    def on_loading(elapsed_s: float) -> None:
        progress.update(task, description=f"the server loads its model … {elapsed_s:.1f} s")

    def on_event(sample: Sample | None) -> None:
        if sample is not None and sample.is_answered:
            latencies_ms.append(sample.latency_ms)
        # Sorting them all again each time would be noticed.
        if len(latencies_ms) % 10 == 1:
            ranks = percentiles(latencies_ms)
            said = f"p50 {ranks['p50']:.0f} ms, p95 {ranks['p95']:.0f} ms"
            progress.update(task, description=said)
        progress.advance(task)

    with progress if console.is_terminal else nullcontext():
        return asyncio.run(profile(plan, on_loading=on_loading, on_event=on_event))


def _compare(first: Path, second: Path, bound: float, as_json: bool) -> None:
    a, b = (_figures(path) for path in (first, second))
    ratios = comparison(a, b)
    worse = regressions(ratios, bound)
    if as_json:
        click.echo(json.dumps({"ratios": ratios, "bound": bound, "regressions": worse}))
    else:
        Console(highlight=False).print(comparison_table(ratios, worse))
        if a["machine"] != b["machine"]:
            click.echo(f"the machines differ: {a['machine']}; {b['machine']}", err=True)
        if worse:
            click.echo(f"regression above {bound:g}: {', '.join(worse)}")
    if worse:
        raise click.exceptions.Exit(1)


def _figures(path: Path) -> dict[str, Any]:
    """What a run printed; ValueError that names the file where it lacks what is compared."""
    try:
        figures = json_object(path.read_bytes())
        for name in ("machine", "latency_ms"):
            if name not in figures:
                raise ValueError(f"{name} is missing")
        for name in MEASURED_ONCE:
            field(figures, name, float, 0.0)
        samples = field(figures, "samples", list)
    except ValueError as error:
        raise _no_profile(path, error) from error
    for number, sample in enumerate(samples, 1):
        try:
            checked(sample, dict, "it")
            for name in ("trace", "kind", "outcome"):
                field(sample, name, str)
            field(sample, "n_chars", int)
            for name in MEASURED_EACH:
                if name in sample:
                    field(sample, name, float)
        except ValueError as error:
            raise _no_profile(path, f"sample {number}: {error}") from error
    return figures


def _no_profile(path: Path, found: object) -> ValueError:
    return ValueError(f"{path} is not what keystate profile --json prints: {found}")
