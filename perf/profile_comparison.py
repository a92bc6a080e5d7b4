"""Two profiles as ratios, with the uncertainty that comes from the choice of keystrokes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from perf.percentiles import middle_95

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    # Of each row.
    Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]

N_RESAMPLES = 1000
# Resamples drawn at once: long runs should not need gigabytes.
CHUNK_RESAMPLES = 100
# Keystrokes near each other go together: what slows one, slows its neighbours.
BLOCK = 10
ANSWERED = ("items", "empty", "null")


def comparison(a: dict[str, Any], b: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Ratios of B's figures to A's: `a`, `b`, `ratio`, and `low` and `high` at 95 %.

    Intervals by a bootstrap of blocks of ten requests in a row. Where both runs asked the same
    requests, blocks are drawn for both alike, so that only what differs between the runs counts.
    Figures that are missing or zero in one of them are left out.
    """
    columns: dict[str, tuple[str, Statistic]] = {
        "latency p50": ("latency_ms", partial(_percentile, 50)),
        "latency p95": ("latency_ms", partial(_percentile, 95)),
        "tokens read again, mean": ("n_recomputed", _mean),
        "passes, mean": ("n_passes", _mean),
    }
    found = {}
    for name, (column, statistic) in columns.items():
        ratio = _ratio(*_aligned(a["samples"], b["samples"], column), statistic)
        if ratio is not None:
            found[name] = ratio
    for name, key in (("memory", "rss_bytes"), ("processor time", "cpu_s_per_1000_chars")):
        if a.get(key) and b.get(key):
            ratio_ = b[key] / a[key]
            found[name] = {"a": a[key], "b": b[key], "ratio": ratio_}
    return found


def regressions(ratios: dict[str, dict[str, float]], bound: float) -> list[str]:
    """Those above the bound whose whole interval says that B is worse."""
    return [
        name
        for name, ratio in ratios.items()
        if ratio["ratio"] > bound and ratio.get("low", ratio["ratio"]) > 1
    ]


def comparison_table(ratios: dict[str, dict[str, float]], worse: Sequence[str]) -> Table:
    """The ratios, for people."""
    table = Table(box=None, pad_edge=False)
    for name in ("B to A", "A", "B", "ratio", "95 %"):
        table.add_column(name, justify="left" if name == "B to A" else "right")
    for name, ratio in ratios.items():
        interval = f"{ratio['low']:.3f} to {ratio['high']:.3f}" if "low" in ratio else ""
        mark = "[bold red]" if name in worse else ""
        a, b = (f"{ratio[key]:,.2f}" for key in ("a", "b"))
        table.add_row(name, a, b, f"{mark}{ratio['ratio']:.3f}", interval)
    return table


def _percentile(q: float, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.percentile(rows, q, axis=1))


def _mean(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(rows.mean(axis=1))


def _aligned(
    a: Sequence[dict[str, Any]], b: Sequence[dict[str, Any]], column: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], bool]:
    """A column of both runs, and whether it is of the same requests in both.

    Only of answers that nothing overtook.
    """
    # Cancelled requests differ from run to run: the n-th event of a trace is the n-th in both.
    places = [(sample["trace"], sample["kind"], sample["n_chars"]) for sample in a]
    is_same = places == [(sample["trace"], sample["kind"], sample["n_chars"]) for sample in b]
    if is_same:
        both = [
            (one[column], other[column])
            for one, other in zip(a, b, strict=True)
            if _counts(one, column) and _counts(other, column)
        ]
        values = np.array(both, dtype=float).reshape(-1, 2)
        return values[:, 0], values[:, 1], True
    first, second = (
        np.array([one[column] for one in samples if _counts(one, column)], dtype=float)
        for samples in (a, b)
    )
    return first, second, False


def _counts(sample: dict[str, Any], column: str) -> bool:
    return sample["outcome"] in ANSWERED and column in sample


def _ratio(
    a: NDArray[np.float64], b: NDArray[np.float64], is_same: bool, statistic: Statistic
) -> dict[str, float] | None:
    if not len(a) or not len(b):
        return None
    below, above = (float(statistic(values[None])[0]) for values in (a, b))
    if not below:
        return None
    dice = np.random.default_rng(0)
    ratios: list[float] = []
    for _ in range(N_RESAMPLES // CHUNK_RESAMPLES):
        drawn = _blocks(len(a), dice)
        belows = statistic(a[drawn])
        aboves = statistic(b[drawn if is_same else _blocks(len(b), dice)])
        ratios += (aboves[belows > 0] / belows[belows > 0]).tolist()
    low, high = middle_95(ratios or [0.0])
    return {"a": below, "b": above, "ratio": above / below, "low": low, "high": high}


def _blocks(n: int, dice: np.random.Generator) -> NDArray[np.int64]:
    """Rows of n indices below n, in runs that start anywhere and go around the end."""
    size = min(BLOCK, n)
    starts = dice.integers(0, n, (CHUNK_RESAMPLES, -(-n // size)))
    runs = (starts[:, :, None] + np.arange(size)) % n
    return runs.reshape(CHUNK_RESAMPLES, -1)[:, :n]
