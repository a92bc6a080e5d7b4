"""Percentiles by rank, each of them a value that was measured, and where 95 % of values lie."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray


def percentile(values: Iterable[float], percent: int) -> float:
    """The smallest value with so many percent of all at or below it."""
    ordered = sorted(values)
    return ordered[max(-(-percent * len(ordered) // 100), 1) - 1]


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 (the smallest value with so many at or below it), mean and max."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values, expected at least one")
    found = {f"p{n}": percentile(ordered, n) for n in (50, 95, 99)}
    return {**found, "mean": statistics.fmean(ordered), "max": ordered[-1]}


def middle_95(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float]:
    """Between what 95 % of a bootstrap's values lie, as many below as above."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
