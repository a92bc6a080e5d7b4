"""A run's figures in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import RenderableType


def tables(figures: dict[str, Any]) -> RenderableType:
    """What `profile_summary.summary` gave, for people."""
    parts: list[RenderableType] = [_latencies(figures)]
    if figures["stages_ms"]:
        parts.append(_stages(figures))
    parts.append(_rest(figures))
    return Group(*parts)


def _latencies(figures: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, title_justify="left", title=_title(figures))
    for name in ("request to answer, ms", "n", "p50", "p95", "p99", "max"):
        table.add_column(name, justify="left" if "," in name else "right")
    n_answered = sum(kind["n"] for kind in figures["by_kind"].values())
    for name, key in (("all events", "latency_ms"), ("from the change on", "change_latency_ms")):
        if figures[key]:
            n = n_answered if key == "latency_ms" else None
            table.add_row(name, "" if n is None else f"{n:,}", *map(_ms, figures[key].values()))
    for kind, found in figures["by_kind"].items():
        table.add_row(f"  {kind}", f"{found['n']:,}", _ms(found["p50"]), _ms(found["p95"]))
    return table


def _stages(figures: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("stage, ms", "mean", "share", "p50", "p95"):
        table.add_column(name, justify="left" if "," in name else "right")
    stages = figures["stages_ms"]
    total = sum(stage["mean"] for stage in stages.values()) or 1.0
    for name, stage in stages.items():
        share = f"{stage['mean'] / total:.0%}"
        mean, p50, p95 = (f"{stage[key]:.2f}" for key in ("mean", "p50", "p95"))
        table.add_row(f"  {name}", mean, share, p50, p95)
    return table


def _rest(figures: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    answers = (
        f"{figures['requests']:,} requests, {figures['cancelled']:,} cancelled,"
        f" {figures['errors']:,} errors ({figures['timeouts']:,} without an answer)"
    )
    table.add_row("requests", answers)
    for said, n in figures["error_messages"].items():
        table.add_row("", f"{n:,} times: {escape(said)}")
    share = figures["first_line_match"]
    first_lines = "" if share is None else f", first line right at {share:.1%} of the places"
    table.add_row("suggested", f"{figures['suggested']:,}{first_lines}")
    if figures["ratio_completed"] is not None:
        share, n_chars = figures["ratio_completed"], figures["typed_chars"]
        table.add_row("completed", f"{share:.1%} of {n_chars:,} typed characters")
    tokens, passes = figures["tokens_recomputed"], figures["passes"]
    if tokens:
        table.add_row(
            "read again",
            f"{tokens['p50']:.0f} tokens p50, {tokens['p95']:.0f} p95, {tokens['p99']:.0f} p99,"
            f" {tokens['mean']:.1f} mean, of prompts of {figures['prompt_tokens']['p50']:,.0f}",
        )
    if passes:
        table.add_row("passes", f"{passes['p50']:.0f} p50, {passes['p95']:.0f} p95")
    if figures["rss_bytes"] is not None:
        most = figures["rss_max_bytes"] / 2**20
        table.add_row("memory", f"{figures['rss_bytes'] / 2**20:,.0f} MiB, {most:,.0f} at most")
    if figures["cpu_s_per_1000_chars"] is not None:
        table.add_row(
            "processor", f"{figures['cpu_s_per_1000_chars']:.1f} s for 1,000 typed characters"
        )
    first_s = figures["start_to_suggestion_s"]
    first = "no suggestion" if first_s is None else f"first suggestion after {first_s:.1f} s"
    table.add_row("start", f"ready after {figures['start_to_ready_s']:.1f} s, {first}")
    table.add_row("machine", figures["machine"])
    return table


def _title(figures: dict[str, Any]) -> str:
    model = figures["model"]
    on = f" with {model} on {figures['device']}" if model else ""
    return escape(f"{figures['server'] or 'a server'}{on}, speed {figures['speed']}")


def _ms(ms: float) -> str:
    return f"{ms:.1f}"
