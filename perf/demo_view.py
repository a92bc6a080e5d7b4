"""How `keystate demo` shows a replay: live in a terminal, as lines anywhere else."""

from __future__ import annotations

import re
from io import StringIO
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from perf.whole_file import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from rich.live import Live

    from lsp_server.documents import Document
    from perf.typing_user import Tally, View

LINES_ABOVE, LINES_BELOW = 14, 6
GHOST = "dim italic"


class LiveView:
    """The code around the cursor, redrawn in place with every answer."""

    def __init__(self, console: Console, live: Live) -> None:
        self._console = console
        self._live = live
        self._latencies_ms: list[float] = []

    def loading(self, elapsed_s: float) -> None:
        self._live.update(Text(f"the server starts and loads its model … {elapsed_s:.1f} s"))

    def answered(self, document: Document, offset: int, ghost: str, latency_ms: float) -> None:
        self._latencies_ms.append(latency_ms)
        self._draw(document, offset, ghost, f"{latency_ms:.0f} ms")

    def accepted(self, document: Document, offset: int, n_chars: int) -> None:
        self._draw(document, offset, "", f"Tab: {n_chars} characters")

    def _draw(self, document: Document, offset: int, ghost: str, status: str) -> None:
        self._live.update(frame(document, offset, ghost, status, self._latencies_ms))


class PictureView:
    """Another view, and the frame of the longest suggestion that the user then took."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._latencies_ms: list[float] = []
        self._last = Group()
        self._best = Group()
        self._best_chars = 0

    def loading(self, elapsed_s: float) -> None:
        self._view.loading(elapsed_s)

    def answered(self, document: Document, offset: int, ghost: str, latency_ms: float) -> None:
        self._latencies_ms.append(latency_ms)
        status = f"{latency_ms:.0f} ms"
        self._last = frame(document, offset, ghost, status, self._latencies_ms)
        self._view.answered(document, offset, ghost, latency_ms)

    def accepted(self, document: Document, offset: int, n_chars: int) -> None:
        if n_chars > self._best_chars:
            self._best, self._best_chars = self._last, n_chars
        self._view.accepted(document, offset, n_chars)

    def save(self, path: Path) -> None:
        """Write the frame as SVG; the last one where nothing was taken."""
        console = Console(record=True, width=100, file=StringIO())
        console.print(self._best if self._best_chars else self._last)
        svg = console.export_svg(title="keystate demo")
        # A picture in a README fetches no fonts.
        write_whole(path, re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))


def frame(
    document: Document, offset: int, ghost: str, status: str, latencies_ms: list[float]
) -> Group:
    """The code around the cursor with ghost text in it, over the latencies so far."""
    line = document.line_of(offset)
    first = max(0, line - LINES_ABOVE)
    last = min(len(document.lines), first + LINES_ABOVE + LINES_BELOW + 1)
    start = document.line_start(first)
    text = "".join(document.lines[first:last]).rstrip("\r\n")
    lexer = Syntax.guess_lexer(document.path, text)
    code = Syntax("", lexer, theme="ansi_dark", tab_size=4).highlight(text)
    code.right_crop(len(code) - len(text))
    shown = code[: offset - start] + Text(ghost or " ", GHOST if ghost else "reverse")
    shown += code[offset - start :]
    shown.no_wrap = True
    panel = Panel(shown, title=document.path, height=LINES_ABOVE + LINES_BELOW + 3)
    bars = Text(f"{status:>20}   ") + Text(sparkline(latencies_ms[-50:]), "green")
    return Group(panel, bars)


class PlainView:
    """One line an answer, for a pipe or a log."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said_loading = False

    def loading(self, elapsed_s: float) -> None:
        if not self._said_loading:
            self._said_loading = True
            self._print("the server starts and loads its model …")

    def answered(self, document: Document, offset: int, ghost: str, latency_ms: float) -> None:
        line = document.line_of(offset)
        typed = document.slice(document.line_start(line), offset).strip()
        shown = " ⏎ ".join(part.strip() for part in ghost.splitlines())
        suggestion = f"▏{shown}" if ghost else ""
        self._print(f"line {line + 1:>4}  {latency_ms:7.1f} ms  {typed}{suggestion}")

    def accepted(self, document: Document, offset: int, n_chars: int) -> None:
        self._print(f"           accepted  {n_chars} characters")

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def sparkline(values: list[float]) -> str:
    """Values as a row of bars, the highest as high as a line."""
    bars = "▁▂▃▄▅▆▇█"
    top = max(values, default=0.0) or 1.0
    return "".join(bars[round(value / top * (len(bars) - 1))] for value in values)


def quantile(values: list[float], share: float) -> float:
    """The value below which a share of the values lies: the nearest of them."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def summary(tally: Tally) -> Table:
    """What a replay came to."""
    table = Table.grid(padding=(0, 3))
    first = tally.first_suggestion_s
    table.add_row(
        "first suggestion", "none" if first is None else f"{first:.2f} s after the server started"
    )
    if tally.latencies_ms:
        p50, p95 = (quantile(tally.latencies_ms, share) for share in (0.5, 0.95))
        table.add_row(
            "latency", f"p50 {p50:.0f} ms, p95 {p95:.0f} ms of {len(tally.latencies_ms)} answers"
        )
    table.add_row("keystrokes", f"{tally.n_keystrokes}, {tally.n_overtaken} faster than the answer")
    table.add_row(
        "suggestions",
        f"{tally.n_shown} shown, {tally.n_accepted} accepted"
        f" ({tally.n_accepted_chars} characters not typed)",
    )
    return table
