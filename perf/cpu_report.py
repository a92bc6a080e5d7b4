"""What was measured on a CPU: as tables, and as a picture under the roof of the machine."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rich.table import Table

from perf.svg_sheet import COLOURS, GRID_COLOUR, TEXT_COLOUR, line, page, text

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDTH, HEIGHT = 920, 420
PANEL_WIDTH, LEFT, TOP, BOTTOM = 330, 70, 60, 60
GAP = 50
# The rows of llama.cpp's files that are as precise as ours.
SAME_PRECISION = {"f32": ("float32", "bfloat16"), "q8_0": ("int8",)}


def tables(report: dict[str, Any]) -> Iterator[Table]:
    """Give the figures for reading."""
    title = f"{report['parameters'] / 1e6:.1f} M parameters on {report['machine']}"
    table = Table(title=title)
    for name in ("", "threads", "MB", "GB/s", "floor us", "token us", "over floor"):
        table.add_column(name, justify="left" if not name else "right")
    sizes = list(report["rows"][0]["pass_us"])
    for n in sizes:
        table.add_column(f"pass {n}", justify="right")
    table.add_column("prefill tok/s", justify="right")
    for row in report["rows"]:
        table.add_row(
            row["name"],
            str(row["threads"]),
            f"{row['bytes'] / 1e6:.1f}",
            f"{row['bandwidth_bytes_s'] / 1e9:.0f}",
            f"{row['floor_us']:.0f}",
            f"{row['decode_us']['best']:.0f} ({row['decode_us']['median']:.0f})",
            f"{row['over_floor']:.2f} ({row['over_floor_median']:.2f})",
            *(f"{row['pass_us'][n]['best']:.0f}" for n in sizes),
            f"{row['prefill_tokens_s']:,.0f}",
        )
    yield table
    if "llama_cpp" in report:
        yield _beside(report)


def _beside(report: dict[str, Any]) -> Table:
    table = Table(title="tokens a second: best (median), and how many times llama.cpp's best")
    for name in ("llama.cpp", "", "threads", "tok/s", "compiled", "tok/s", "times"):
        table.add_column(name, justify="right" if name in ("threads", "tok/s", "times") else "left")
    for peer in report["llama_cpp"]:
        kinds = next((k for end, k in SAME_PRECISION.items() if peer["name"].endswith(end)), ())
        for row in report["rows"]:
            kind = row["name"].removeprefix("compiled, ")
            if kind not in kinds or row["threads"] != peer["threads"]:
                continue
            task = peer["task"]
            best, median = row[f"{task}_tokens_s"], row.get(f"{task}_tokens_s_median")
            if median is None:
                median = 1e6 / row["decode_us"]["median"]
            rates = peer["tokens_s"]
            table.add_row(
                peer["name"],
                task,
                str(peer["threads"]),
                f"{rates['best']:,.0f} ({rates['median']:,.0f})",
                kind,
                f"{best:,.0f} ({median:,.0f})",
                f"{best / rates['best']:.2f}",
            )
    return table


def picture(report: dict[str, Any]) -> str:
    """Give an SVG: passes of 1 to 16 tokens under memory's and arithmetic's roof, by threads."""
    numbers = list(dict.fromkeys(row["threads"] for row in report["rows"]))
    names = list(dict.fromkeys(row["name"] for row in report["rows"]))
    rates = [point[1] for row in report["rows"] for point in _points(row, report["parameters"])]
    xs = [point[0] for row in report["rows"] for point in _points(row, report["parameters"])]
    peak = max(report["flops"].values())
    x_range = min(xs) / 1.5, max(max(xs), 2 * peak / report["rows"][0]["bandwidth_bytes_s"]) * 1.5
    y_range = min(rates) / 1.5, peak * 2
    parts = [text(LEFT, 26, f"Passes of 1, 4, 8 and 16 tokens on {report['machine']}", size=15)]
    for number, n_threads in enumerate(numbers):
        left = LEFT + number * (PANEL_WIDTH + GAP)
        rows = [row for row in report["rows"] if row["threads"] == n_threads]
        title = "one thread" if n_threads == 1 else f"{n_threads} threads"
        parts += _panel(report, rows, names, left, title, x_range, y_range)
    for number, name in enumerate(names):
        x, y = LEFT + number * 190, HEIGHT - 8
        colour = COLOURS[number % len(COLOURS)]
        parts += [f'<circle cx="{x}" cy="{y - 4}" r="4" fill="{colour}"/>', text(x + 10, y, name)]
    return page(WIDTH, HEIGHT, parts)


def _panel(
    report: dict[str, Any],
    rows: list[dict[str, Any]],
    names: list[str],
    left: float,
    title: str,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
) -> list[str]:
    right, bottom = left + PANEL_WIDTH, HEIGHT - BOTTOM - 30

    def at(x: float, y: float) -> tuple[float, float]:
        shares = [
            math.log(value / low) / math.log(high / low)
            for value, (low, high) in ((x, x_range), (y, y_range))
        ]
        return left + shares[0] * PANEL_WIDTH, bottom - shares[1] * (bottom - TOP)

    parts = [text(left, TOP - 10, title)]
    for x in _powers(*x_range, base=2):
        across, _ = at(x, y_range[0])
        parts += [
            line((across, TOP), (across, bottom), GRID_COLOUR),
            text(across, bottom + 16, f"{x:g}", anchor="middle"),
        ]
    for y in _powers(*y_range, base=10):
        _, down = at(x_range[0], y)
        parts += [
            line((left, down), (right, down), GRID_COLOUR),
            text(left - 6, down + 4, f"{y / 1e9:g}", anchor="end"),
        ]
    label = "operations a byte of weights; GFLOP/s upwards"
    parts.append(text((left + right) / 2, bottom + 34, label, anchor="middle"))
    peak = report["flops"][str(rows[0]["threads"])]
    parts.append(line(at(x_range[0], peak), at(x_range[1], peak), TEXT_COLOUR, 2))
    for row in rows:
        colour = COLOURS[names.index(row["name"]) % len(COLOURS)]
        bandwidth = row["bandwidth_bytes_s"]
        foot, ridge = x_range[0], peak / bandwidth
        parts.append(line(at(foot, foot * bandwidth), at(ridge, peak), colour))
        for x, y in _points(row, report["parameters"]):
            across, down = at(x, y)
            parts.append(f'<circle cx="{across:.1f}" cy="{down:.1f}" r="4" fill="{colour}"/>')
    return parts


def _points(row: dict[str, Any], parameters: int) -> list[tuple[float, float]]:
    """Operations a byte, and operations a second, of each length of pass."""
    return [
        (2 * int(n) * parameters / row["bytes"], 2e6 * int(n) * parameters / taken["best"])
        for n, taken in row["pass_us"].items()
    ]


def _powers(low: float, high: float, base: int) -> Iterator[float]:
    exponents = range(math.ceil(math.log(low, base)), math.floor(math.log(high, base)) + 1)
    yield from (float(base) ** exponent for exponent in exponents)
