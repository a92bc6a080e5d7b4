"""Results of `keystate eval` as tables and as a picture, several of them side by side.

`python -m perf.quality_report OUT LABEL=RESULT.json …` writes OUT.md and OUT.svg.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from perf.json_objects import read_object
from perf.quality_picture import picture
from perf.whole_file import with_ending, write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Result = dict[str, Any]


def write_report(results: Mapping[str, Result], out: Path) -> None:
    """Write labelled results of `keystate eval` to `out` with the endings .md and .svg."""
    out.parent.mkdir(parents=True, exist_ok=True)
    svg = with_ending(out, ".svg")
    write_whole(with_ending(out, ".md"), markdown(results, svg.name))
    write_whole(svg, picture(results))


def table(results: Mapping[str, Result]) -> Table:
    """The most important figures, for a terminal: a row each."""
    header, *rows = zip(*_against_baselines(results), strict=True)
    shown = Table()
    for number, name in enumerate(header):
        shown.add_column(name, justify="right" if number else "left")
    for row in rows:
        shown.add_row(*row)
    for name, *figures in zip(*_at_threshold(results), strict=True):
        # The baselines have none.
        if name:
            shown.add_row(name, *figures[: 2 * len(results) : 2])
    return shown


def markdown(results: Mapping[str, Result], picture_name: str) -> str:
    """All tables; raises ValueError where there are no results."""
    if not results:
        raise ValueError("no results, expected at least one")
    lines = ["# How often suggestions are right", ""]
    lines += [_told(label, result["run"]) for label, result in results.items()]
    lines += ["", f"![shown share against precision; exact match by kind]({picture_name})", ""]
    lines += [
        "An exact match is the rest of the line, or of the block for multi-line cases, character"
        " for character. Intervals are of 95 %. Copying proposes what followed the longest earlier"
        " match of 3 to 60 characters before the cursor, up to the line's end.",
        "",
        *_markdown_table(_against_baselines(results)),
        "",
        "## What is shown at the threshold",
        "",
        "Precision is the share of exact matches in what is shown. Repeats say again what stands"
        " behind the cursor; a parse is worse that has more errors with the suggestion than without"
        " it.",
        "",
        *_markdown_table(_at_threshold(results)),
    ]
    for title, key in (("kind", "by_kind"), ("language", "by_language"), ("length", "by_length")):
        lines += ["", f"## By {title}", "", *_markdown_table(_by(results, key, title))]
    if any("traces" in result for result in results.values()):
        lines += ["", "## Typing replayed", "", *_markdown_table(_replayed(results))]
    return "\n".join(lines) + "\n"


def _told(label: str, run: Mapping[str, Any]) -> str:
    """One line on how a result came about."""
    parts = [
        f"{run['cases']}, model {run['model']} on {run['device']} ({run['machine']},"
        f" {run['threads']} threads), {run['date']}",
        f"answers from the {run['prompt_kind']}",
    ]
    if run["automatic"]:
        parts.append("asked as an editor does by itself")
    if run["workspace"]:
        parts.append("files beside it open, the project's others there")
    if run["without"]:
        parts.append(f"without {', '.join(run['without'])}")
    if run["also"]:
        parts.append(f"also {', '.join(run['also'])}")
    if run["options"]:
        parts.append(f"options `{json.dumps(run['options'])}`")
    if run["deadline_ms"] is not None:
        parts.append(f"deadline {run['deadline_ms']:.0f} ms")
    return f"- **{label}**: {'; '.join(parts)}."


def _against_baselines(results: Mapping[str, Result]) -> list[list[str]]:
    rows = [
        [
            *("", "n", "exact match", "first line", "edit similarity", "times copying"),
            *("where copying fails", "p50 ms", "p95 ms"),
        ]
    ]
    for label, result in results.items():
        fails, times = result["where_copy_fails"], result["times_copy"]
        rows.append(
            [
                label,
                f"{result['n']:,}",
                _share(result["exact_match"], result["exact_match_ci95"]),
                _share(result["first_line_match"]),
                f"{result['edit_similarity']:.3f}",
                "–" if times is None else f"{times['ratio']:.2f} ({_range(times['ci95'], '.2f')})",
                "–" if fails is None else _share(fails["exact_match"], fails["exact_match_ci95"]),
                *(f"{result['latency_ms'][name]:.0f}" for name in ("p50", "p95")),
            ]
        )
    # The baselines are the same for all results of the same cases.
    known: dict[str, list[Any]] = {}
    for label, result in results.items():
        for name, figures in result["baselines"].items():
            before = known.setdefault(name, [])
            if figures in before:
                continue
            suffix = f", cases of {label}" if before else ""
            before.append(figures)
            rows.append(
                [
                    f"{name}{suffix}",
                    f"{figures['n']:,}",
                    _share(figures["exact_match"], figures["exact_match_ci95"]),
                    _share(figures["first_line_match"]),
                    f"{figures['edit_similarity']:.3f}",
                    *["–"] * 4,
                ]
            )
    return rows


def _at_threshold(results: Mapping[str, Result]) -> list[list[str]]:
    rows = [
        ["", "threshold", "shown", "precision", "repeats", "parse worse", "most at 50 % precision"]
    ]
    for label, result in results.items():
        shown, half = result["at_threshold"], result["half_right"]
        rows.append(
            [
                *(label, f"{shown['threshold']:.3f}", *_shown(shown)),
                "–" if half is None else f"{half['shown']:.1%} at {half['threshold']:.3f}",
            ]
        )
        rows.append([f"{label}, all", "0", *_shown(result), "–"])
    rows.append(["copy", "–", *_shown(next(iter(results.values()))["baselines"]["copy"]), "–"])
    return rows


def _shown(figures: Mapping[str, Any]) -> list[str]:
    parse = figures["parse"]
    return [
        _share(figures["shown"]),
        _share(figures["precision"], figures["precision_ci95"]),
        f"{figures['suffix_repeats']:.2%}",
        f"{parse['worse']} of {parse['checked']:,}",
    ]


def _by(results: Mapping[str, Result], key: str, title: str) -> list[list[str]]:
    rows = [
        [
            *(title, "", "n", "exact match", "copying", "first line", "edit similarity"),
            *("shown", "precision", "p50 ms", "p95 ms"),
        ]
    ]
    names = dict.fromkeys(name for result in results.values() for name in result[key])
    for name in names:
        for label, result in results.items():
            figures = result[key].get(name)
            if figures is None:
                continue
            shown = figures["at_threshold"]
            rows.append(
                [
                    *(name, label, f"{figures['n']:,}"),
                    _share(figures["exact_match"], figures["exact_match_ci95"]),
                    _share(figures["copy_exact_match"]),
                    _share(figures["first_line_match"]),
                    f"{figures['edit_similarity']:.3f}",
                    _share(shown["shown"]),
                    _share(shown["precision"]),
                    *(f"{figures['latency_ms'][each]:.0f}" for each in ("p50", "p95")),
                ]
            )
    return rows


def _replayed(results: Mapping[str, Result]) -> list[list[str]]:
    rows = [["", "traces", "characters typed", "of them completed", "shown", "accepted"]]
    for label, result in results.items():
        figures = result.get("traces")
        if figures is not None:
            rows.append(
                [
                    *(label, str(figures["n"]), f"{figures['typed_chars']:,}"),
                    _share(figures["ratio_completed"]),
                    *(f"{figures['shown']:,}", f"{figures['accepted']:,}"),
                ]
            )
    return rows


def _share(share: float | None, interval: Sequence[float] | None = None) -> str:
    if share is None:
        return "–"
    return f"{share:.1%}" if interval is None else f"{share:.1%} ({_range(interval, '.1%')})"


def _range(interval: Sequence[float], form: str) -> str:
    low, high = interval
    return f"{low:{form}}–{high:{form}}"


def _markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    header, *rest = rows
    return [
        f"| {' | '.join(header)} |",
        "|" + "---|" * len(header),
        *(f"| {' | '.join(row)} |" for row in rest),
    ]


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("labelled", metavar="LABEL=RESULT.json…", nargs=-1, required=True)
def main(out: Path, labelled: tuple[str, ...]) -> None:
    """Put results of `keystate eval --json` side by side into OUT.md and OUT.svg."""
    results = {}
    for each in labelled:
        label, _, path = each.rpartition("=")
        if not label:
            raise click.BadParameter(f"{each!r}, expected a label, = and a file")
        try:
            results[label] = read_object(Path(path))
        except (OSError, ValueError) as error:
            raise click.ClickException(str(error)) from error
    write_report(results, out)
    click.echo(f"{with_ending(out, '.md')}, {with_ending(out, '.svg')}")


if __name__ == "__main__":
    main()
