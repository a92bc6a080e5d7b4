"""`keystate stats`: what was shown, accepted and retained, as counted on this machine."""

from __future__ import annotations

import json
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from lsp_server.commands.options import json_option
from lsp_server.private_files import statistics_path
from lsp_server.statistics import NAMES, load_statistics, totals

if TYPE_CHECKING:
    from lsp_server.statistics import Counts, Days

# The chart's days, and the width of its longest bar.
N_DAYS, N_BAR = 14, 40


@click.command("stats")
@json_option
def command(as_json: bool) -> None:
    """Show what became of suggestions, by language.

    Counted on this machine and sent nowhere; the setting `statistics` turns it off. What was
    shown is known as far as the editor tells it.
    """
    path = statistics_path()
    days = load_statistics(path)
    by_language = totals(days)
    if as_json:
        languages = {name: _figures(counts) for name, counts in sorted(by_language.items())}
        everything = _figures(_sum(by_language.values()))
        click.echo(
            json.dumps(
                {"file": str(path), "total": everything, "by_language": languages, "days": days}
            )
        )
        return
    if not by_language:
        click.echo(f"nothing was counted yet ({path})")
        return
    console = Console(highlight=False)
    console.print(_table(by_language))
    console.print(_chart(days, date.today()))


def _figures(counts: Counts) -> dict[str, Any]:
    """The counts, and the shares that they come to; null where there is nothing to divide by."""
    return {
        **{name: counts.get(name, 0) for name in NAMES},
        "acceptance": _share(counts.get("accepted", 0), counts.get("shown", 0)),
        **{
            f"retained_{time}": _share(
                counts.get(f"retained_{time}_chars", 0), counts.get(f"checked_{time}_chars", 0)
            )
            for time in ("30s", "5min")
        },
    }


def _sum(several: Any) -> Counts:
    sums: Counts = dict.fromkeys(NAMES, 0)
    for counts in several:
        for name in NAMES:
            sums[name] += counts.get(name, 0)
    return sums


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _table(by_language: dict[str, Counts]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for title in ("shown", "accepted", "in part", "characters", "kept 30 s", "kept 5 min"):
        table.add_column(title, justify="right")
    rows = sorted(by_language.items(), key=lambda row: -row[1]["accepted_chars"])
    for language, counts in (*rows, ("all", _sum(by_language.values()))):
        figures = _figures(counts)
        acceptance = figures["acceptance"]
        share = "" if acceptance is None else f" ({acceptance:.0%})"
        table.add_row(
            language,
            f"{counts['shown']:,}",
            f"{counts['accepted']:,}{share}",
            f"{counts['partially_accepted']:,}",
            f"{counts['accepted_chars']:,}",
            *(
                "" if figures[name] is None else f"{figures[name]:.0%}"
                for name in ("retained_30s", "retained_5min")
            ),
        )
    return table


def _chart(days: Days, today: date) -> Table:
    """Bars of the characters saved on each of the last days."""
    dates = [today - timedelta(days=n) for n in reversed(range(N_DAYS))]
    saved = [
        sum(counts.get("accepted_chars", 0) for counts in days.get(day.isoformat(), {}).values())
        for day in dates
    ]
    chart = Table.grid(padding=(0, 1))
    chart.add_row("")
    chart.add_row("", "characters saved")
    for day, n_chars in zip(dates, saved, strict=True):
        bar = "█" * -(-N_BAR * n_chars // max(*saved, 1))
        chart.add_row(day.isoformat(), f"{bar} {n_chars:,}" if n_chars else "·")
    return chart
