"""How a document indents, and text rewritten to indent like it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.blocks import opens_block

if TYPE_CHECKING:
    from collections.abc import Sequence

# What one level can be in spaces. Other steps are alignment.
_WIDTHS = (2, 3, 4, 8)
_TAB = "\t"
# Columns that stand for a tab where lines of tabs are measured.
_TAB_WIDTH = 4


def indent_unit(lines: Sequence[str]) -> str | None:
    """What one level of indentation is in these lines: a tab, or so many spaces; None: unclear.

    Goes by the lines that follow a block's opener, because others are aligned in many ways.
    """
    n_steps = dict.fromkeys(_WIDTHS, 0)
    n_tabs = 0
    opener: str | None = None
    for line in lines:
        code = line.strip()
        if not code:
            continue
        blanks = leading_blanks(line)
        if opener is not None and len(blanks) > len(opener):
            if _TAB in blanks:
                n_tabs += 1
            elif len(blanks) - len(opener) in n_steps:
                n_steps[len(blanks) - len(opener)] += 1
        opener = blanks if opens_block(code) else None
    width = max(n_steps, key=lambda width: n_steps[width])
    if max(n_tabs, n_steps[width]) == 0:
        return None
    return _TAB if n_tabs > n_steps[width] else " " * width


def reindented(before: str, text: str, unit: str | None) -> str:
    """The text with its lines indented by `unit`, relative to the line it continues.

    before: the cursor's line up to the cursor, which stays as it is. None leaves the text alone.
    """
    lines = text.split("\n")
    first = 0 if before.strip() else _first_of_substance(lines)
    if unit is None or first is None:
        return text
    # The lines whose indentation is the text's own, with what they go on from.
    start = 1 if before.strip() or first > 0 else 0
    composed = [before + lines[0], *lines[1:]]
    if unit == _TAB:
        width = _width_in_spaces(composed, first)
        converted = _with_tab_steps([_with_tabs(line, width) for line in composed], first)
    else:
        converted = _with_spaces(composed, first, len(unit))
    if start == 0:
        # Before the cursor nothing can be changed, so only what is longer than that.
        kept = leading_blanks(before)
        line = converted[0]
        fits = line.startswith(kept) and leading_blanks(line) != kept
        lines[0] = line[len(kept) :] if fits else lines[0]
    return "\n".join([lines[0], *converted[1:]])


def is_indented(before: str, above: str, unit: str | None, *, is_python: bool) -> bool:
    """Whether the blanks before the cursor are all that a line below `above` should have.

    A level more behind what opens a block; else more than it, which an editor has put there.
    As much is enough in Python, where nothing else can be deeper.
    """
    if not before or before.strip() or not above:
        return False
    more = len(before.expandtabs(_TAB_WIDTH)) - columns(above)
    if opens_block(above):
        return more >= (1 if unit is None else columns(unit))
    return more > 0 or (is_python and more == 0)


def without_lead(text: str) -> str:
    """The text without the blanks that it starts with, its other lines as much further left."""
    lead = leading_blanks(text)
    first, *others = text.split("\n")
    moved = (leading_blanks(line).removesuffix(lead) + line.lstrip(" \t") for line in others)
    return "\n".join([first[len(lead) :], *moved])


def leading_blanks(line: str) -> str:
    """The tabs and spaces that a line starts with."""
    return line[: len(line) - len(line.lstrip(" \t"))]


def _first_of_substance(lines: Sequence[str]) -> int | None:
    return next((n for n, line in enumerate(lines) if line.strip()), None)


def columns(line: str, tab_width: int = _TAB_WIDTH) -> int:
    """How wide the blanks are that a line starts with."""
    return len(leading_blanks(line).expandtabs(tab_width))


def _width_in_spaces(lines: Sequence[str], first: int) -> int:
    """How many spaces stand for a tab in lines that should be indented by tabs.

    The first line's tabs, and whether it opens a block, tell the level of the one below it.
    """
    level = leading_blanks(lines[first]).count(_TAB) + opens_block(lines[first])
    widths = [
        len(leading_blanks(line))
        for line in lines[first + 1 :]
        if line.strip() and line.startswith(" ")
    ]
    if not widths:
        widths = [len(leading_blanks(line)) for line in lines if line.startswith(" ")]
        return 2 if widths and widths[0] % 4 else 4
    if level and widths[0] % level == 0 and widths[0] // level in _WIDTHS:
        return widths[0] // level
    return 2 if any(width % 4 == 2 for width in widths) else 4


def _with_tabs(line: str, width: int) -> str:
    blanks = leading_blanks(line)
    if " " not in blanks:
        return line
    n_tabs, n_spaces = divmod(len(blanks.expandtabs(width)), width)
    return _TAB * n_tabs + " " * n_spaces + line[len(blanks) :]


def _with_tab_steps(lines: Sequence[str], first: int) -> list[str]:
    """The lines with steps of one tab where they have steps of two."""
    widths = [columns(line) for line in lines]
    if _step(lines, widths) != 2 * _TAB_WIDTH:
        return list(lines)
    base = widths[first]
    scaled = (_scaled(width, base, 2 * _TAB_WIDTH, _TAB_WIDTH) for width in widths)
    return [
        _TAB * (width // _TAB_WIDTH) + " " * (width % _TAB_WIDTH) + line.lstrip(" \t")
        if line.strip()
        else line
        for width, line in zip(scaled, lines, strict=True)
    ]


def _with_spaces(lines: Sequence[str], first: int, unit: int) -> list[str]:
    """The lines without tabs, and with steps of `unit` where they have steps of another width."""
    widths = [columns(line, unit) for line in lines]
    base, step = widths[first], _step(lines, widths)
    if step is not None and step != unit:
        widths = [_scaled(width, base, step, unit) for width in widths]
    return [
        " " * width + line.lstrip(" \t") if line.strip() else line
        for width, line in zip(widths, lines, strict=True)
    ]


def _step(lines: Sequence[str], widths: Sequence[int]) -> int | None:
    """The width of the first step into a block, if it is one that levels have."""
    opener: int | None = None
    for line, width in zip(lines, widths, strict=True):
        if not line.strip():
            continue
        if opener is not None and width > opener:
            return width - opener if width - opener in _WIDTHS else None
        opener = width if line.rstrip().endswith((":", "{")) else None
    return None


def _scaled(width: int, base: int, step: int, unit: int) -> int:
    n_levels, aligned = divmod(abs(width - base), step)
    distance = n_levels * unit + aligned
    return base + distance if width >= base else max(base - distance, 0)
