"""A chart with two axes as SVG text; its colours are left to CSS classes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH, HEIGHT = 720, 280
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 20, 40
# Above the chart: room for the names of lines across it.
MARKS_HEIGHT = 40
LABEL_HEIGHT = 13


@dataclass(frozen=True)
class Scale:
    """Numbers from `low` to `high` as shares of an axis."""

    low: float
    high: float

    def share(self, value: float) -> float:
        return (value - self.low) / ((self.high - self.low) or 1.0)

    def ticks(self) -> list[tuple[float, str]]:
        """Some five round numbers, and how they are written."""
        span = (self.high - self.low) or 1.0
        rough = 10 ** math.floor(math.log10(span / 5))
        step = next(rough * n for n in (1, 2, 5, 10) if span / (rough * n) <= 6)
        first = math.ceil(self.low / step)
        return [
            (n * step, f"{n * step:,.10g}") for n in range(first, math.floor(self.high / step) + 1)
        ]


@dataclass(frozen=True)
class LogScale(Scale):
    """The same by their logarithms; `zero` is the number that stands for zero."""

    zero: float | None = None

    def share(self, value: float) -> float:
        return math.log(value / self.low) / (math.log(self.high / self.low) or 1.0)

    def ticks(self) -> list[tuple[float, str]]:
        """Powers of ten; twos and fives too where those are few."""
        exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        factors = (1, 2, 5) if len(exponents) <= 4 else (1,)
        values = [factor * 10.0**exponent for exponent in exponents for factor in factors]
        inside = [value for value in values if self.low <= value <= self.high]
        named = [(value, f"{value:,.10g}") for value in inside]
        return named if self.zero is None else [(self.zero, "0"), *named]


class Plot:
    """A chart being drawn; positions are in the scales' numbers."""

    def __init__(
        self,
        x: Scale,
        y: Scale,
        *,
        x_title: str,
        y_title: str = "",
        height: int = HEIGHT,
        left: int = LEFT,
        top: int = TOP,
        has_y_ticks: bool = True,
    ) -> None:
        self._x, self._y = x, y
        self._left, self._top, self._height = left, top, height
        self._parts: list[str] = []
        bottom = height - BOTTOM
        for value, name in x.ticks():
            at = self._across(value)
            self._parts.append(f'<path class="grid" d="M{at:.1f} {top}V{bottom}"/>')
            self._text(at, bottom + 16, name, "middle")
        for value, name in y.ticks() if has_y_ticks else ():
            at = self._up(value)
            self._parts.append(f'<path class="grid" d="M{left} {at:.1f}H{WIDTH - RIGHT}"/>')
            self._text(left - 6, at + 4, name, "end")
        self._text((left + WIDTH - RIGHT) / 2, height - 6, x_title, "middle")
        self._text(left - 6, top - 8, y_title, "end")

    def bar(self, start: float, end: float, value: float, *, css: str, said: str) -> None:
        """A bar from the axis up."""
        left, right, top = self._across(start), self._across(end), self._up(value)
        height = self._height - BOTTOM - top
        self._shape(
            f'<rect class="{css}" x="{left + 0.5:.1f}" y="{top:.1f}"'
            f' width="{max(right - left - 1, 0.5):.1f}" height="{height:.1f}"',
            said,
        )

    def span(
        self, start: float, end: float, y: float, thickness: float, *, css: str, said: str
    ) -> None:
        """A bar along the x axis, as thick as `thickness` of a row."""
        left, right = self._across(start), self._across(end)
        top = self._up(y + thickness / 2)
        height = self._up(y - thickness / 2) - top
        # A line's breadth of the page between neighbours, where there is room.
        width = right - left - (1 if right - left > 3 else 0)
        self._shape(
            f'<rect class="{css}" x="{left:.1f}" y="{top:.1f}"'
            f' width="{width:.1f}" height="{height:.1f}"',
            said,
        )

    def dot(self, x: float, y: float, *, css: str, radius: float, said: str) -> None:
        """A point."""
        at = f'cx="{self._across(x):.1f}" cy="{self._up(y):.1f}"'
        self._shape(f'<circle class="{css}" {at} r="{radius:g}"', said)

    def line(self, points: Sequence[tuple[float, float]], *, css: str) -> None:
        """A line through points."""
        path = "L".join(f"{self._across(x):.1f} {self._up(y):.1f}" for x, y in points)
        self._parts.append(f'<path class="line {css}" d="M{path}"/>')

    def mark(self, x: float, name: str, *, level: int = 0) -> None:
        """A named line across the chart; levels put names below each other."""
        at, y = self._across(x), LABEL_HEIGHT * (level + 0.9)
        self._parts.append(
            f'<path class="mark" d="M{at:.1f} {y - 9:.1f}V{self._height - BOTTOM}"/>'
        )
        is_right = at > WIDTH * 0.75
        self._text(at + (-5 if is_right else 5), y, name, "end" if is_right else "start", "name")

    def row_name(self, y: float, name: str) -> None:
        """A name to the left of the chart."""
        self._text(self._left - 8, self._up(y) + 4, name, "end", "name")

    def svg(self, title: str) -> str:
        return (
            f'<svg class="chart" viewBox="0 0 {WIDTH} {self._height}" role="img"'
            f' aria-label="{escape(title)}">{"".join(self._parts)}</svg>'
        )

    def _shape(self, opening: str, said: str) -> None:
        self._parts.append(f"{opening}><title>{escape(said)}</title></{opening.split()[0][1:]}>")

    def _text(self, x: float, y: float, text: str, anchor: str, css: str = "tick") -> None:
        if text:
            self._parts.append(
                f'<text class="{css}" x="{x:.1f}" y="{y:.1f}"'
                f' text-anchor="{anchor}">{escape(text)}</text>'
            )

    def _across(self, value: float) -> float:
        return self._left + self._x.share(value) * (WIDTH - RIGHT - self._left)

    def _up(self, value: float) -> float:
        bottom = self._height - BOTTOM
        return bottom - self._y.share(value) * (bottom - self._top)
