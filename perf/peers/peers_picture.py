"""Latency against document length, a chart a kind of keystroke, as one SVG."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from perf.peers.peer_run import (
    KEYSTATE,
    KEYSTATE_INT8,
    LLAMA_F32,
    LLAMA_INFILL,
    LLAMA_Q8_0,
    UNASKED,
    UNCACHED,
)
from perf.peers.peers_table import total_ms
from perf.peers.scenario import KINDS, NEW_PLACE
from perf.peers.worker import ONE
from perf.svg_plot import HEIGHT, WIDTH, LogScale, Plot
from perf.svg_sheet import BASELINE_COLOUR, COLOURS, page, style

if TYPE_CHECKING:
    from collections.abc import Sequence

DRAWN = {
    KEYSTATE: COLOURS[0],
    KEYSTATE_INT8: COLOURS[4],
    LLAMA_Q8_0: COLOURS[1],
    LLAMA_F32: COLOURS[5],
    LLAMA_INFILL: COLOURS[3],
    UNCACHED: BASELINE_COLOUR,
    UNASKED: COLOURS[2],
}
N_COLUMNS = 2
HEAD_HEIGHT, TITLE_HEIGHT = 96, 26


def picture(report: dict[str, Any]) -> str:
    """Draw what a report has of each peer, both axes logarithmic."""
    lengths = sorted(report["lengths"], key=int)
    lines = {
        kind: {
            css: [
                (float(length), ms) for length in lengths if (ms := _at(report, length, peer, kind))
            ]
            for css, peer in _classes()
        }
        for kind in KINDS
    }
    all_ms = [ms for by_peer in lines.values() for points in by_peer.values() for _, ms in points]
    x = LogScale(min(map(float, lengths)) / 1.2, max(map(float, lengths)) * 1.2)
    y = LogScale(min(all_ms) / 1.5, max(all_ms) * 1.5)
    charts = [_chart(kind, lines[kind], x, y) for kind in KINDS]
    n_rows = -(-len(charts) // N_COLUMNS)
    cell_height = HEIGHT + TITLE_HEIGHT
    width, height = N_COLUMNS * WIDTH, HEAD_HEIGHT + n_rows * cell_height
    placed = [
        f'<svg x="{WIDTH * (n % N_COLUMNS)}" y="{HEAD_HEIGHT + cell_height * (n // N_COLUMNS)}"'
        f' width="{WIDTH}" height="{cell_height}">{chart}</svg>'
        for n, chart in enumerate(charts)
    ]
    title = f"A keystroke to the first token: {report['machine']}, {report['threads']} threads"
    head = f'<text x="24" y="34" font-size="20">{escape(title)}</text>'
    colours = {css: DRAWN[peer] for css, peer in _classes()}
    parts = [style(colours, line_width=2.5), head, *_legend(_drawn(lines)), *placed]
    return page(width, height, parts, font_size=14)


def _chart(kind: str, lines: dict[str, list[tuple[float, float]]], x: LogScale, y: LogScale) -> str:
    plot = Plot(x, y, x_title="tokens of the document", y_title="ms")
    for css, points in lines.items():
        if points:
            plot.line(points, css=css)
        for tokens, ms in points:
            said = f"{dict(_classes())[css]}: {tokens:,.0f} tokens, {ms:,.1f} ms"
            plot.dot(tokens, ms, css=css, radius=4, said=said)
    title = f'<text x="56" y="20" font-size="16">{escape(kind)}</text>'
    return (
        f'{title}<svg y="{TITLE_HEIGHT}" width="{WIDTH}" height="{HEIGHT}">{plot.svg(kind)}</svg>'
    )


def _at(report: dict[str, Any], length: str, peer: str, kind: str) -> float | None:
    if peer == UNASKED and kind != NEW_PLACE:
        # Where the epoch is at hand, an unasked answer is the same as any.
        return None
    return total_ms(report, length, ONE, peer, kind)


def _classes() -> Sequence[tuple[str, str]]:
    return [(f"peer{number}", peer) for number, peer in enumerate(DRAWN)]


def _drawn(lines: dict[str, dict[str, list[tuple[float, float]]]]) -> list[tuple[str, str]]:
    return [
        (css, peer) for css, peer in _classes() if any(by_peer[css] for by_peer in lines.values())
    ]


def _legend(drawn: Sequence[tuple[str, str]]) -> list[str]:
    parts = []
    for number, (css, peer) in enumerate(drawn):
        at = 24 + 230 * number
        parts.append(f'<path class="line {css}" d="M{at} 66H{at + 28}"/>')
        parts.append(f'<text x="{at + 36}" y="71">{escape(peer)}</text>')
    return parts
