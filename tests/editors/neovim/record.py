"""A session in a real Neovim as an animated SVG: `python -m tests.editors.neovim.record FILE.svg`.

Every frame is what the terminal showed; only how long each stays is made up, so that it can be
followed.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import dataclass
from html import escape
from pathlib import Path

from rich.console import Console
from rich.style import Style
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

from tests.editors.neovim.conftest import SAMPLE, SERVE, SETTINGS, to_lua
from tests.editors.neovim.terminal import PLUGIN, Terminal, find_neovim

COLUMNS, ROWS = 88, 18
CHAR_WIDTH, LINE_HEIGHT, MARGIN = 8.4, 19, 12
KEY_S, LOOK_S = 0.12, 1.6
CONSOLE = Console(width=COLUMNS, color_system="truecolor", force_terminal=True)
BACKGROUND, FOREGROUND, KEY_COLOUR = "#1b1f27", "#d7dae0", "#ffcb6b"
INIT = """
vim.o.laststatus, vim.o.ruler, vim.o.showmode = 2, false, false
vim.cmd("filetype indent off")
vim.o.autoindent = false
vim.cmd([[inoremap ( ()<Left>]])
vim.opt.runtimepath:prepend({plugin})
vim.o.termguicolors = true
vim.api.nvim_set_hl(0, "ComplHint", {{ fg = "#7f8793", italic = true }})
vim.o.statusline = " %t %= {message}  %{{v:lua.require'keystate'.status()}} "
require("keystate").setup({options})
"""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One screen, with its escape sequences, and how long it stays."""

    screen: str
    cursor: tuple[int, int]
    seconds: float
    key: str = ""


def record() -> list[Frame]:
    """Play the session; the frames it went through."""
    frames: list[Frame] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(SAMPLE, folder)
        options = {"cmd": [*SERVE, str(folder / "log")], "settings": SETTINGS}
        init = INIT.format(
            plugin=to_lua(str(PLUGIN)),
            options=to_lua(options),
            message="Tab: accept   M-Right: a word",
        )
        terminal = Terminal(folder, find_neovim(), init, size=(COLUMNS, ROWS))

        def look(seconds: float, key: str = "") -> None:
            frames.append(
                Frame(
                    screen=terminal.screen(colours=True),
                    cursor=terminal.screen_cursor,
                    seconds=seconds,
                    key=key,
                )
            )

        def type_keys(text: str) -> None:
            for char in text:
                before = terminal.line
                terminal.type(char)
                terminal.until_line_changes(before)
                look(KEY_S)

        try:
            terminal.open(folder / SAMPLE.name)
            terminal.until_ready()
            terminal.press("G", "o")
            terminal.until(lambda: terminal.line == "", "a new line")
            look(LOOK_S)
            type_keys("for name, payload in ")
            ghost = terminal.until_ghost()
            look(LOOK_S)
            type_keys(ghost[:4])
            look(LOOK_S)
            terminal.press("Tab")
            terminal.until(lambda: ghost in terminal.line, "accepted")
            look(LOOK_S, "Tab")
            terminal.press("Enter")
            type_keys("    worker.register(")
            ghost = terminal.until_ghost()
            look(LOOK_S)
            for _ in range(4):
                before = terminal.line
                terminal.press("M-Right")
                terminal.until_line_changes(before)
                look(0.5, "M-Right")
            terminal.press("Tab")
            terminal.until(lambda: ghost in terminal.line, "accepted")
            look(2 * LOOK_S, "Tab")
        finally:
            terminal.close()
    return frames


def to_svg(frames: list[Frame]) -> str:
    """Frames one after the other, for ever."""
    width = 2 * MARGIN + COLUMNS * CHAR_WIDTH
    height = 2 * MARGIN + ROWS * LINE_HEIGHT
    total_s = sum(frame.seconds for frame in frames)
    # Most lines stay as they are: each is drawn once, and used by every frame that has it.
    drawn: dict[str, str] = {}
    rules, groups, begins_s = [], [], 0.0
    for i, frame in enumerate(frames):
        from_share, to_share = begins_s / total_s, (begins_s + frame.seconds) / total_s
        begins_s += frame.seconds
        is_last = i == len(frames) - 1
        shown = f"{100 * from_share:.3f}%{{visibility:visible}}"
        hidden = "" if is_last else f"{100 * to_share:.3f}%{{visibility:hidden}}"
        before = "0%{visibility:hidden}" if i else ""
        rules.append(f"@keyframes f{i}{{{before}{shown}{hidden}}}")
        style = f"animation:f{i} {total_s:.2f}s step-end infinite"
        # Where nothing moves, the last frame is the picture.
        still = "" if is_last else ' visibility="hidden"'
        groups.append(f'<g style="{style}"{still}>{_screen(frame, drawn)}</g>')
    definitions = "".join(f'<g id="{name}">{line}</g>' for line, name in drawn.items())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}">'
        f"<style>text{{font:14px ui-monospace,Menlo,Consolas,monospace;white-space:pre}}"
        f"{''.join(rules)}</style><defs>{definitions}</defs>"
        f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>'
        f"{''.join(groups)}</svg>\n"
    )


def _screen(frame: Frame, drawn: dict[str, str]) -> str:
    """One frame; `drawn` gains the lines that no frame before it had, by a name each."""
    row, column = frame.cursor
    parts = [
        f'<rect x="{MARGIN + column * CHAR_WIDTH:.1f}" y="{MARGIN + row * LINE_HEIGHT + 2}"'
        f' width="2" height="{LINE_HEIGHT - 2}" fill="{FOREGROUND}"/>'
    ]
    for i, text in enumerate(frame.screen.split("\n")[:ROWS]):
        line = _line(text)
        if line:
            name = drawn.setdefault(line, f"l{len(drawn)}")
            parts.append(f'<use href="#{name}" y="{MARGIN + i * LINE_HEIGHT + 15}"/>')
    if frame.key:
        parts.append(
            f'<text x="{MARGIN + COLUMNS * CHAR_WIDTH:.0f}" y="{MARGIN + 22}" text-anchor="end"'
            f' style="font-size:18px;fill:{KEY_COLOUR}">{escape(frame.key)}</text>'
        )
    return "".join(parts)


def _line(ansi: str) -> str:
    parts, column = [], 0
    for segment in Text.from_ansi(ansi).render(CONSOLE):
        shown = segment.text.rstrip()
        if shown:
            x, length = MARGIN + column * CHAR_WIDTH, len(shown) * CHAR_WIDTH
            parts.append(
                f'<text x="{x:.1f}" textLength="{length:.1f}"'
                f"{_attributes(segment.style or Style())}>{escape(shown, quote=False)}</text>"
            )
        column += len(segment.text)
    return "".join(parts)


def _attributes(style: Style) -> str:
    fill = FOREGROUND
    if style.color is not None and not style.color.is_default:
        fill = style.color.get_truecolor(DIMMED_MONOKAI).hex
    extra = ' font-style="italic"' if style.italic else ""
    return f' style="fill:{fill}"' + extra


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(to_svg(record()), encoding="utf-8")
