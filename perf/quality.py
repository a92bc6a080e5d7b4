"""How good suggestions are: a verdict on each, and figures over many."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rapidfuzz import fuzz

from lsp_server.documents import Document
from lsp_server.showing import n_errors
from perf.percentiles import middle_95, percentile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perf.cases import Case

# Of the normal distribution: 95 % lie within so many standard deviations.
Z_95 = 1.959964
# A shorter overlap with what stands behind the cursor, unless it is all of it, is chance.
MIN_REPEAT_CHARS = 4
# Steps of the shown share in a curve.
CURVE_POINTS = 50
N_RESAMPLES = 10_000


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a proposed text is worth in a case; without text all else is false or zero."""

    has_text: bool
    exact: bool
    """Its lines are the truth's; lines past the truth's last count for multi-line cases only."""
    first_line: bool
    similarity: float
    """0 to 1, `rapidfuzz.fuzz.ratio` of the lines that `exact` compares."""
    worse_parse: bool | None
    """Whether the file has more syntax errors with it than without; None where nothing parses."""
    repeats_suffix: bool


NOTHING = Verdict(
    has_text=False,
    exact=False,
    first_line=False,
    similarity=0.0,
    worse_parse=None,
    repeats_suffix=False,
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """How one case went: the model's suggestion and the copied one."""

    kind: str
    language_id: str
    multiline: bool
    model: Verdict
    copy: Verdict
    confidence: float
    """0 to 1: how sure the model is of its text."""
    hidden: str | None = None
    """Why there is no text although the model wrote one."""
    latency_ms: float


def judge(case: Case, text: str, document: Document) -> Verdict:
    """Compare a text with what stood at a case's cursor; `document` is the case's, without it."""
    text = text.replace("\r\n", "\n")
    if not text.strip():
        return NOTHING
    truth = _lines(case.truth)
    lines = _lines(text)
    compared = lines if case.multiline else lines[: len(truth)]
    with_text = Document("", case.language_id, 0, case.prefix + text + case.suffix)
    worse = None
    if document.tree is not None and with_text.tree is not None:
        worse = n_errors(with_text.tree) > n_errors(document.tree)
    return Verdict(
        has_text=True,
        exact=compared == truth,
        first_line=lines[0] == truth[0],
        similarity=fuzz.ratio("\n".join(compared), "\n".join(truth)) / 100,
        worse_parse=worse,
        repeats_suffix=repeats_suffix(case.prefix, text, case.suffix)
        and not repeats_suffix(case.prefix, case.truth, case.suffix),
    )


def copied(prefix: str, n_chars: tuple[int, int] = (3, 60)) -> str:
    """The rest of the line that followed the longest earlier match of what is before the cursor.

    Matches are of `n_chars` characters at least and at most; "" where there is none.
    """
    shortest, longest = n_chars
    for length in range(min(longest, len(prefix) - 1), shortest - 1, -1):
        found = prefix[:-1].rfind(prefix[-length:])
        if found >= 0:
            return prefix[found + length :].split("\n", 1)[0].rstrip()
    return ""


def repeats_suffix(prefix: str, text: str, suffix: str) -> bool:
    """Whether a text's end says again what stands after the cursor.

    Its end is the rest of the cursor's line or begins it, or its last line is the next line below.
    Brackets and quotes alone are no repeat: a doubled one shows in the parse.
    """
    rest, _, below = suffix.partition("\n")
    rest, tail = rest.strip(), text.rstrip()
    for n in range(min(len(rest), len(tail)), 0, -1):
        if n < MIN_REPEAT_CHARS and n < len(rest):
            break
        if tail.endswith(rest[:n]) and _has_word(rest[:n]):
            return True
    next_line = next((line.strip() for line in below.split("\n") if line.strip()), "")
    last_line = (prefix.rpartition("\n")[2] + tail).rpartition("\n")[2].strip()
    return not rest and _has_word(next_line) and last_line == next_line


def summary(rows: Sequence[Row], threshold: float) -> dict[str, Any]:
    """Figures over all rows, against the baselines, and by kind, language and length.

    What is shown at `threshold` (of the confidence) stands under "at_threshold"; all else is
    without one. Raises ValueError where there are no rows.
    """
    if not rows:
        raise ValueError("no cases were asked, expected at least one")
    copy_fails = [row for row in rows if not row.copy.exact]
    return {
        **_group(rows, threshold),
        "times_copy": ratio_to_copy(rows),
        "where_copy_fails": _group(copy_fails, threshold) if copy_fails else None,
        "baselines": {
            "copy": figures([row.copy for row in rows]),
            "nothing": figures([NOTHING] * len(rows)),
        },
        "hidden": dict(sorted(Counter(row.hidden for row in rows if row.hidden).items())),
        "by_kind": _by(rows, threshold, lambda row: row.kind),
        "by_language": _by(rows, threshold, lambda row: row.language_id),
        "by_length": _by(
            rows, threshold, lambda row: "multi-line" if row.multiline else "single-line"
        ),
        "curve": curve(rows),
        "half_right": widest(rows, 0.5),
    }


def figures(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Shares over all cases; precision, repeats and parse over those with a text.

    "precision" is null where nothing has a text; "ci95" are Wilson's intervals.
    """
    n = len(verdicts)
    with_text = [verdict for verdict in verdicts if verdict.has_text]
    n_exact = sum(verdict.exact for verdict in verdicts)
    n_parsed = sum(verdict.worse_parse is not None for verdict in with_text)
    n_repeats = sum(verdict.repeats_suffix for verdict in with_text)
    return {
        "n": n,
        "exact_match": n_exact / n,
        "exact_match_ci95": wilson(n_exact, n),
        "first_line_match": sum(verdict.first_line for verdict in verdicts) / n,
        "edit_similarity": statistics.fmean(verdict.similarity for verdict in verdicts),
        "shown": len(with_text) / n,
        "precision": n_exact / len(with_text) if with_text else None,
        "precision_ci95": wilson(n_exact, len(with_text)) if with_text else None,
        "suffix_repeats": n_repeats / len(with_text) if with_text else 0.0,
        "parse": {"checked": n_parsed, "worse": sum(v.worse_parse is True for v in with_text)},
    }


def wilson(n_right: int, n: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share."""
    share = n_right / n
    middle = share + Z_95**2 / (2 * n)
    reach = Z_95 * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n * n))
    scale = 1 + Z_95**2 / n
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)


def ratio_to_copy(rows: Sequence[Row]) -> dict[str, Any] | None:
    """How many times as often as copying the model is right; None where copying never is.

    The interval is a bootstrap's over cases, so that what both get right counts as such.
    """
    pairs = [(row.model.exact, row.copy.exact) for row in rows]
    counts = [pairs.count(pair) for pair in ((True, True), (True, False), (False, True))]
    both, model_alone, copy_alone = counts
    if not both + copy_alone:
        return None
    shares = np.array([*counts, len(rows) - sum(counts)]) / len(rows)
    drawn = np.random.default_rng(0).multinomial(len(rows), shares, N_RESAMPLES)
    by_copy = np.maximum(drawn[:, 0] + drawn[:, 2], 1)
    return {
        "ratio": (both + model_alone) / (both + copy_alone),
        "ci95": middle_95((drawn[:, 0] + drawn[:, 1]) / by_copy),
    }


def curve(rows: Sequence[Row]) -> list[dict[str, float]]:
    """Shown share and precision at falling thresholds, about every second percent of the share."""
    points = _all_points(rows)
    step = 1 / CURVE_POINTS
    kept: list[dict[str, float]] = []
    for i, point in enumerate(points):
        if i == len(points) - 1 or point["shown"] >= (kept[-1]["shown"] if kept else 0) + step:
            kept.append(point)
    return kept


def widest(rows: Sequence[Row], precision: float) -> dict[str, float] | None:
    """The point of the curve that shows most with at least this precision; None if none has it."""
    points = [point for point in _all_points(rows) if point["precision"] >= precision]
    return points[-1] if points else None


def _all_points(rows: Sequence[Row]) -> list[dict[str, float]]:
    """A point for each confidence that occurs, the highest first."""
    with_text = sorted((row for row in rows if row.model.has_text), key=lambda row: -row.confidence)
    points = []
    n_right = 0
    for n, row in enumerate(with_text, 1):
        n_right += row.model.exact
        # Those of equal confidence are shown together or not at all.
        if n == len(with_text) or with_text[n].confidence < row.confidence:
            point = {"threshold": row.confidence, "shown": n / len(rows), "precision": n_right / n}
            points.append(point)
    return points


def _group(rows: Sequence[Row], threshold: float) -> dict[str, Any]:
    shown = [row.model if row.confidence >= threshold else NOTHING for row in rows]
    latencies_ms = [row.latency_ms for row in rows]
    return {
        **figures([row.model for row in rows]),
        "copy_exact_match": sum(row.copy.exact for row in rows) / len(rows),
        "at_threshold": {"threshold": threshold, **figures(shown)},
        "latency_ms": {f"p{n}": percentile(latencies_ms, n) for n in (50, 95)},
    }


def _by(
    rows: Sequence[Row], threshold: float, key: Callable[[Row], str]
) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return {name: _group(group, threshold) for name, group in sorted(groups.items())}


def _lines(text: str) -> list[str]:
    """Lines without the blanks at their ends, nor blank ones at the text's end."""
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _has_word(text: str) -> bool:
    return any(map(str.isalnum, text))
