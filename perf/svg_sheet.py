"""Charts under each other as one SVG file that needs no style sheet."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from perf.quality_picture import AXIS_COLOUR, COLOURS, GRID_COLOUR, TEXT_COLOUR
from perf.svg_plot import HEIGHT, WIDTH

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HEAD_HEIGHT, TITLE_HEIGHT = 48, 40
LEGEND_WIDTH = 130


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
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
            f' width="{WIDTH}" font-family="sans-serif" font-size="12" fill="{TEXT_COLOUR}">',
            f"<style>{_style()}</style>",
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            f'<text x="16" y="26" font-size="15">{escape(title)}</text>',
            *placed,
            "</svg>\n",
        ]
    )


def _legend(names: Sequence[str]) -> Iterable[str]:
    for number, name in enumerate(names):
        at = 56 + LEGEND_WIDTH * number
        yield f'<path class="line c{number}" d="M{at} 31H{at + 20}"/>'
        yield f'<text x="{at + 26}" y="35">{escape(name)}</text>'


def _style() -> str:
    lines = [
        f".line.c{number}{{stroke:{colour}}}circle.c{number}{{fill:{colour}}}"
        for number, colour in enumerate(COLOURS)
    ]
    return (
        f".grid{{stroke:{GRID_COLOUR}}}.tick{{fill:{AXIS_COLOUR}}}"
        f".line{{fill:none;stroke-width:2}}.bound{{stroke:{AXIS_COLOUR};stroke-dasharray:4 3}}"
        f"{''.join(lines)}"
    )
