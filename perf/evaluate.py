"""`keystate eval`: how often suggestions are right, beside copying and beside nothing."""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import track

from lsp_server.commands.options import (
    device_option,
    json_option,
    model_option,
    quantize_option,
)
from lsp_server.settings import Settings, read_settings
from perf.case_answers import (
    PROMPT_KINDS,
    SOURCES,
    Way,
    completed_in,
    evaluate,
    suggester_that_shows_all,
)
from perf.cases import read_cases
from perf.json_objects import json_object
from perf.machine import machine
from perf.open_files import OpenFiles
from perf.project_files import ProjectFiles
from perf.quality import summary
from perf.quality_report import table, write_report
from perf.source_files import read_sources
from perf.trace_format import read_trace
from perf.whole_file import ENDINGS, check_place, with_ending, write_whole

if TYPE_CHECKING:
    from lsp_server.suggestions import Suggester


def _deadline(context: click.Context, option: click.Parameter, value: str) -> float | None:
    if value == "none":
        return None
    try:
        deadline_ms = float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither milliseconds nor none") from None
    if not 0 <= deadline_ms < math.inf:
        raise click.BadParameter(f"{value!r}, expected 0 milliseconds or more, or none")
    return deadline_ms


def _options(context: click.Context, option: click.Parameter, value: str) -> dict[str, Any]:
    try:
        return json_object(value.encode("utf-8", "surrogateescape"))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command("eval")
@click.argument("cases_path", metavar="CASES", type=click.Path(path_type=Path, exists=True))
@json_option
@click.option(
    "--report",
    metavar="OUT",
    type=click.Path(path_type=Path),
    help="Write OUT.json, and from it OUT.md and OUT.svg.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Ask the first so many cases alone.")
@click.option(
    "--deadline",
    "deadline_ms",
    default="none",
    show_default=True,
    metavar="MS|none",
    callback=_deadline,
    help="How long an answer may take.",
)
@click.option(
    "--prompt-kind",
    type=click.Choice(PROMPT_KINDS),
    default="epoch",
    show_default=True,
    help="Answer from the prompt with the whole suffix window, its first lines, or none of it.",
)
@click.option(
    "--automatic",
    is_flag=True,
    help="Ask as an editor does by itself; what keeps such suggestions back then does so.",
)
@click.option(
    "--workspace",
    metavar="SOURCE",
    type=click.Path(path_type=Path, exists=True),
    help="What the cases were cut from: files beside a case's own are open, others are there.",
)
@click.option(
    "--without", type=click.Choice(SOURCES), multiple=True, help="Leave this context out."
)
@click.option(
    "--also",
    type=click.Choice(["outline", "snippets"]),
    multiple=True,
    help="Use this context although the model is said to gain nothing from it.",
)
@click.option(
    "--trace",
    "traces",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    help="Also say how much of what is typed in this trace need not have been.",
)
@click.option(
    "--options",
    default="{}",
    metavar="JSON",
    callback=_options,
    help="Settings as a client sends them.",
)
@model_option
@device_option
@quantize_option
def command(
    cases_path: Path,
    as_json: bool,
    report: Path | None,
    limit: int | None,
    deadline_ms: float | None,
    prompt_kind: str,
    automatic: bool,
    workspace: Path | None,
    without: tuple[str, ...],
    also: tuple[str, ...],
    traces: tuple[Path, ...],
    options: dict[str, Any],
    model: str | None,
    device: str | None,
    quantize: str | None,
) -> None:
    """Ask for suggestions at the cursors of CASES, and say how often they are right.

    A case is a JSON line {"path", "prefix", "suffix", "truth"}; `python -m perf.cases` cuts them.
    """
    cases = read_cases(cases_path, limit)
    settings = _settings(options, {"model": model, "device": device, "quantize": quantize})
    way = Way(prompt_kind=prompt_kind, explicit=not automatic, deadline_ms=deadline_ms)
    sources = [] if workspace is None else read_sources(workspace)
    typed = [read_trace(path) for path in traces]
    if report is not None:
        _make_place(report)
    console = Console(stderr=True)
    asked = track(cases, description="asking", console=console, disable=not console.is_terminal)
    suggester = suggester_that_shows_all(settings, without, also)
    try:
        threshold = settings.min_confidence
        if threshold is None:
            threshold = suggester.engine.declaration.min_confidence
        if "project" not in without:
            suggester.files = ProjectFiles(sources)
        started_s = time.monotonic()
        rows = asyncio.run(evaluate(asked, suggester, way, OpenFiles(sources)))
        result = summary(rows, threshold)
        ms = 1e3 * (time.monotonic() - started_s)
        if traces:
            total = asyncio.run(completed_in(typed, suggester, way, threshold))
            result["traces"] = {"n": len(traces), **total.figures}
        result["run"] = {
            "date": date.today().isoformat(),
            "cases": cases_path.name,
            **_machine(suggester),
            "prompt_kind": prompt_kind,
            "automatic": automatic,
            "deadline_ms": deadline_ms,
            "workspace": None if workspace is None else workspace.name,
            "without": sorted(without),
            "also": sorted(also),
            "options": options,
            "quantize": settings.quantize,
            "ms_per_case": ms / len(cases),
        }
    finally:
        suggester.close()
    if as_json:
        click.echo(json.dumps(result))
    else:
        Console(file=sys.stdout).print(table({suggester.name: result}))
    if report is not None:
        write_whole(with_ending(report, ".json"), json.dumps(result, indent=1) + "\n")
        write_report({with_ending(report, "").name: result}, report)


def _make_place(report: Path) -> None:
    """Make the folder for a report, and see that it can be written there."""
    if not report.name:
        raise ValueError(f"--report is {str(report)!r}, expected a file's name without its suffix")
    report.parent.mkdir(parents=True, exist_ok=True)
    for suffix in ENDINGS:
        check_place(with_ending(report, suffix))


def _settings(options: dict[str, Any], given: dict[str, str | None]) -> Settings:
    forced = {name: value for name, value in given.items() if value is not None}
    settings, problems = read_settings(options, {**forced, "save_states": False})
    if problems:
        raise ValueError("; ".join(problems))
    return settings


def _machine(suggester: Suggester) -> dict[str, Any]:
    return {
        "model": suggester.name,
        "device": suggester.device,
        "machine": machine(),
        "threads": suggester.engine.n_threads,
    }
