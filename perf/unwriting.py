"""Takes out of a text what somebody may have written last."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

MIN_LINES = 10
FEWEST_CUTS, MOST_CUTS = 2, 5
MAX_BLOCK_LINES = 40
_CLOSERS = ")]}"
_NAME = re.compile(r"[^\W\d]\w{2,}")


def unwritten(text: str, dice: random.Random) -> str:
    """The text before its last changes, made up: definitions, lines, ends and names not as now.

    ValueError for a text without `MIN_LINES` lines to choose from.
    """
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    filled = [n for n, line in enumerate(lines) if line.strip()]
    if len(filled) < MIN_LINES:
        raise ValueError(f"{len(filled)} lines with text, expected {MIN_LINES} or more")
    names = sorted(set(_NAME.findall(text))) or ["name"]
    # From the end up, so that the numbers of the lines above stay as they are.
    chosen = sorted(dice.sample(filled, dice.randint(FEWEST_CUTS, MOST_CUTS)))
    untouched = len(lines)
    for n in reversed(chosen):
        end = _block_end(lines, n, untouched)
        way = dice.choice(("block", "block", "line", "end", "name", "stray"))
        if way == "block":
            del lines[n:end]
        elif way == "line":
            del lines[n]
        elif way == "end":
            lines[n] = _without_end(lines[n], dice)
        elif way == "name":
            lines[n] = _renamed(lines[n], names, dice)
        else:
            # A line too many.
            lines.insert(n, lines[dice.choice(chosen[: chosen.index(n) + 1])])
        untouched = n
    return "".join(lines)


def n_filled_lines(text: str) -> int:
    """Lines that hold more than blanks."""
    return sum(not line.isspace() for line in text.split("\n") if line)


def _block_end(lines: list[str], first: int, limit: int) -> int:
    """Behind the deeper lines that follow a line, and the closer below them."""
    depth = _depth(lines[first])
    last = end = first + 1
    limit = min(limit, first + MAX_BLOCK_LINES)
    while last < limit and (not lines[last].strip() or _depth(lines[last]) > depth):
        last += 1
        if lines[last - 1].strip():
            end = last
    if end > first + 1 and end < limit and lines[end].strip()[:1] in tuple(_CLOSERS):
        end += 1
    return end


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))


def _without_end(line: str, dice: random.Random) -> str:
    """A line without what follows one of its words."""
    content = line.rstrip("\n")
    ends = [match.end() for match in re.finditer(r"\w+", content)]
    kept = dice.choice(ends) if ends else _depth(content)
    return content[:kept] + line[len(content) :]


def _renamed(line: str, names: list[str], dice: random.Random) -> str:
    """A line with another of the file's names in the place of one of its own."""
    found = list(_NAME.finditer(line))
    if not found:
        return line
    match = dice.choice(found)
    return line[: match.start()] + dice.choice(names) + line[match.end() :]
