"""SVG files that need no style sheet: their page, their colours, charts under each other."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from perf.svg_plot import HEIGHT, WIDTH

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# Told apart in all common kinds of colour blindness, on white (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#5b4a9c", "#7f5539")
# What others are held against.
BASELINE_COLOUR = "#767676"
AXIS_COLOUR, GRID_COLOUR, TEXT_COLOUR = "#444444", "#dddddd", "#222222"
HEAD_HEIGHT, TITLE_HEIGHT = 48, 40
LEGEND_WIDTH = 130


def page(width: float, height: float, parts: Iterable[str], *, font_size: int = 12) -> str:
    """Give a file's text: its parts, in their order, on white."""
    size = f"{width:.0f}", f"{height:.0f}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}"'
            f' width="{size[0]}" font-family="sans-serif" font-size="{font_size}"'
            f' fill="{TEXT_COLOUR}">',
            f'<rect width="{size[0]}" height="{size[1]}" fill="#ffffff"/>',
            *parts,
            "</svg>\n",
        ]
    )


def style(colours: Mapping[str, str], *, line_width: float = 2) -> str:
    """Give the style of what `Plot` draws, lines and dots coloured by their class."""
    lines = "".join(
        f".line.{css}{{stroke:{colour}}}circle.{css}{{fill:{colour}}}"
        for css, colour in colours.items()
    )
    return (
        f"<style>.grid{{stroke:{GRID_COLOUR}}}.tick{{font-size:12px;fill:{AXIS_COLOUR}}}"
        f".line{{fill:none;stroke-width:{line_width:g}}}"
        f".bound{{stroke:{AXIS_COLOUR};stroke-dasharray:4 3}}{lines}</style>"
    )


def sheet(title: str, charts: Sequence[tuple[str, Sequence[str], str]]) -> str:
    """Give a file's text: for each chart its title, its lines' names, and what `Plot.svg` gave.

    A chart's n-th name is that of its class `c{n}`.
    """
    cell_height = HEIGHT + TITLE_HEIGHT
    height = HEAD_HEIGHT + len(charts) * cell_height
    placed = [
        f'<g transform="translate(0 {HEAD_HEIGHT + number * cell_height})">'
        f'<text x="56" y="16" font-size="16">{escape(said)}</text>{"".join(_legend(names))}'
        f'<svg y="{TITLE_HEIGHT}" width="{WIDTH}" height="{HEIGHT}">{chart}</svg></g>'
        for number, (said, names, chart) in enumerate(charts)
    ]
    colours = {f"c{number}": colour for number, colour in enumerate(COLOURS)}
    head = f'<text x="16" y="26" font-size="15">{escape(title)}</text>'
    return page(WIDTH, height, [style(colours), head, *placed])


def text(x: float, y: float, said: str, *, anchor: str = "start", size: int = 12) -> str:
    """Give a line of text."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">'
        f"{escape(said)}</text>"
    )


def line(start: tuple[float, float], end: tuple[float, float], colour: str, width: int = 1) -> str:
    """Give a straight line."""
    (x1, y1), (x2, y2) = start, end
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"'
        f' stroke-width="{width}"/>'
    )


def _legend(names: Sequence[str]) -> Iterable[str]:
    for number, name in enumerate(names):
        at = 56 + LEGEND_WIDTH * number
        yield f'<path class="line c{number}" d="M{at} 31H{at + 20}"/>'
        yield f'<text x="{at + 26}" y="35">{escape(name)}</text>'
