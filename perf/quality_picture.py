"""Draws results of `keystate eval`: shown share against precision, exact match by kind."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from perf.svg_sheet import AXIS_COLOUR, BASELINE_COLOUR, COLOURS, GRID_COLOUR, page

if TYPE_CHECKING:
    from collections.abc import Mapping

WIDTH = 860
PLOT_LEFT, PLOT_TOP, PLOT_WIDTH, PLOT_HEIGHT = 64, 48, 520, 280
LABEL_WIDTH, BAR_HEIGHT, GROUP_GAP = 150, 11, 9
BARS_WIDTH = WIDTH - LABEL_WIDTH - 90
# Up to which share the bars' scale goes at least.
MIN_BAR_SCALE = 0.1


def picture(results: Mapping[str, dict[str, Any]]) -> str:
    """An SVG of labelled results: their curves, and below them bars for each kind of cursor."""
    curves = _curves(results)
    bars, bottom = _bars(results, PLOT_TOP + PLOT_HEIGHT + 84)
    return page(WIDTH, bottom, [*curves, *bars])


def _curves(results: Mapping[str, dict[str, Any]]) -> list[str]:
    right, bottom = PLOT_LEFT + PLOT_WIDTH, PLOT_TOP + PLOT_HEIGHT
    parts = [_text(PLOT_LEFT, 24, "Precision against shown share", size=15)]
    for tenth in range(0, 11, 2):
        share = tenth / 10
        x, y = _at(share, share)
        parts += [
            _line(x, PLOT_TOP, x, bottom, GRID_COLOUR),
            _line(PLOT_LEFT, y, right, y, GRID_COLOUR),
            _text(x, bottom + 18, f"{share:.0%}", anchor="middle"),
            _text(PLOT_LEFT - 8, y + 4, f"{share:.0%}", anchor="end"),
        ]
    parts += [
        _line(PLOT_LEFT, bottom, right, bottom, AXIS_COLOUR),
        _line(PLOT_LEFT, PLOT_TOP, PLOT_LEFT, bottom, AXIS_COLOUR),
        _text((PLOT_LEFT + right) / 2, bottom + 38, "share of requests shown", anchor="middle"),
        _text(PLOT_LEFT, PLOT_TOP - 8, "precision of what is shown"),
    ]
    legend_x = right + 24
    for number, (label, result) in enumerate(results.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = [_at(point["shown"], point["precision"]) for point in result["curve"]]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        if points:
            parts.append(
                f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
            )
        shown = result["at_threshold"]
        if shown["precision"] is not None:
            parts.append(_dot(*_at(shown["shown"], shown["precision"]), colour))
        y = PLOT_TOP + 14 + 18 * number
        parts += [_line(legend_x, y - 4, legend_x + 18, y - 4, colour, width=2)]
        parts.append(_text(legend_x + 24, y, label))
    y = PLOT_TOP + 14 + 18 * len(results)
    copy = next(iter(results.values()))["baselines"]["copy"]
    if copy["precision"] is not None:
        parts.append(_dot(*_at(copy["shown"], copy["precision"]), BASELINE_COLOUR))
    parts += [
        _dot(legend_x + 9, y - 4, BASELINE_COLOUR),
        _text(legend_x + 24, y, "copying"),
        _text(legend_x, y + 22, "dots on curves: threshold"),
    ]
    return parts


def _bars(results: Mapping[str, dict[str, Any]], top: float) -> tuple[list[str], float]:
    """The bars from `top` on, and where they end."""
    kinds = list(dict.fromkeys(kind for result in results.values() for kind in result["by_kind"]))
    most = max(
        max(group["exact_match"], group["copy_exact_match"])
        for result in results.values()
        for group in result["by_kind"].values()
    )
    scale = BARS_WIDTH / max(most, MIN_BAR_SCALE)
    parts = [_text(PLOT_LEFT, top, "Exact match by kind of cursor", size=15)]
    y = top + 16
    for kind in kinds:
        groups = [
            (result["by_kind"][kind], COLOURS[number % len(COLOURS)])
            for number, result in enumerate(results.values())
            if kind in result["by_kind"]
        ]
        bars = [(group["exact_match"], colour) for group, colour in groups]
        bars.append((groups[0][0]["copy_exact_match"], BASELINE_COLOUR))
        middle = y + BAR_HEIGHT * len(bars) / 2 + 4
        n = groups[0][0]["n"]
        parts.append(_text(LABEL_WIDTH - 8, middle, f"{kind} ({n:,})", anchor="end"))
        for share, colour in bars:
            parts.append(
                f'<rect x="{LABEL_WIDTH}" y="{y:.1f}" width="{share * scale:.1f}"'
                f' height="{BAR_HEIGHT - 2}" fill="{colour}"/>'
            )
            end = LABEL_WIDTH + share * scale + 5
            parts.append(_text(end, y + BAR_HEIGHT - 3, f"{share:.1%}", size=10))
            y += BAR_HEIGHT
        y += GROUP_GAP
    return parts, y + 8


def _at(x: float, y: float) -> tuple[float, float]:
    """Where two shares lie in the plot."""
    return PLOT_LEFT + x * PLOT_WIDTH, PLOT_TOP + (1 - y) * PLOT_HEIGHT


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: int = 1) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"'
        f' stroke-width="{width}"/>'
    )


def _dot(x: float, y: float, colour: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">'
        f"{escape(text)}</text>"
    )
