"""A profile as one HTML page that needs nothing else: no script, no network."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perf import profile_charts
from perf.profile_sample import ANSWERED

if TYPE_CHECKING:
    from collections.abc import Sequence

STYLE = Path(__file__).with_name("profile_page.css")


def page(figures: dict[str, Any]) -> str:
    """The page of what `profile_summary.summary` gave."""
    samples = [sample for sample in figures["samples"] if sample["outcome"] in ANSWERED]
    charts = [
        ("Latency", "From the request written to the answer read.", "distribution", samples),
        (
            "By kind of event",
            "Dots are p50, p95 and p99; in brackets, how many answers.",
            "by_kind",
            samples,
        ),
        ("Against document length", "", "by_length", samples),
        ("The slowest keystrokes", "What their time went into.", "slowest", samples),
        (
            "Tokens read again",
            "Prompt tokens that a request sent through the model, on the way to its answer.",
            "recomputed",
            samples,
        ),
        ("Memory", "Resident, the server and all that it started.", "memory", figures["memory"]),
    ]
    sections = []
    for title, said, name, data in charts:
        drawn = getattr(profile_charts, name)(data)
        if drawn:
            note = f"<p>{escape(said)}</p>" if said else ""
            sections.append(f"<section><h2>{escape(title)}</h2>{note}{drawn}</section>")
    title = _title(figures)
    problem = ""
    if figures["problem"]:
        problem = f'<p class="problem">Ended early: {escape(figures["problem"])}</p>'
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        # Without one, browsers ask the server for an icon.
        '<link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE.read_text(encoding='utf-8')}</style>"
        f"</head><body><main><header><h1>{escape(title)}</h1><p>{escape(_how(figures))}</p>"
        f"{problem}</header>"
        f"{_tiles(figures)}{''.join(sections)}{_tables(figures)}</main></body></html>\n"
    )


def _title(figures: dict[str, Any]) -> str:
    return f"Keystroke latency of {figures['server'] or figures['command']}"


def _how(figures: dict[str, Any]) -> str:
    model = f"{figures['model']} on {figures['device']}, " if figures["model"] else ""
    return (
        f"{model}{figures['requests']:,} requests in {figures['seconds']:.0f} s at speed"
        f" {figures['speed']}. {figures['machine']}. {figures['date'][:10]}."
    )


def _tiles(figures: dict[str, Any]) -> str:
    latency = figures["latency_ms"] or {}
    tiles = [(f"{name} latency", _number(latency.get(name), "ms")) for name in ("p50", "p95")]
    tiles += [
        ("errors", f"{figures['errors']:,}"),
        ("cancelled", f"{figures['cancelled']:,}"),
        ("suggestions", f"{figures['suggested']:,}"),
        ("first line right", _percent(figures["first_line_match"])),
        ("characters completed", _percent(figures["ratio_completed"])),
        ("tokens read again, mean", _number((figures["tokens_recomputed"] or {}).get("mean"))),
        ("memory", _number(figures["rss_bytes"] and figures["rss_bytes"] / 2**20, "MiB")),
        ("processor, 1,000 characters", _number(figures["cpu_s_per_1000_chars"], "s")),
        ("first suggestion after", _number(figures["start_to_suggestion_s"], "s")),
    ]
    shown = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in tiles
        if value
    )
    return f'<dl class="tiles">{shown}</dl>'


def _tables(figures: dict[str, Any]) -> str:
    """The figures that the charts show, for who cannot see them or wants them exactly."""
    kinds = [
        (kind, f"{found['n']:,}", f"{found['p50']:.1f}", f"{found['p95']:.1f}")
        for kind, found in figures["by_kind"].items()
    ]
    stages = [
        (name, *(f"{stage[key]:.2f}" for key in ("mean", "p50", "p95")))
        for name, stage in figures["stages_ms"].items()
    ]
    parts = [_table("Answers by kind of event", ("kind", "n", "p50 ms", "p95 ms"), kinds)]
    if stages:
        parts.append(_table("Stages", ("stage", "mean ms", "p50 ms", "p95 ms"), stages))
    return f"<section><h2>Figures</h2>{''.join(parts)}</section>"


def _table(caption: str, names: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(value)}</td>" for value in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return (
        f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def _number(value: float | None, unit: str = "") -> str:
    if value is None:
        return ""
    digits = 1 if value < 100 else 0
    return f"{value:,.{digits}f} {unit}".rstrip()


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
