"""The charts of a profile's page, as SVG; colours are the page's, by class.

Each function takes samples as `profile_summary.summary` gives them, and gives "" where there is
nothing to draw.
"""

from __future__ import annotations

import math
from collections import defaultdict
from html import escape
from typing import TYPE_CHECKING, Any

from perf.percentiles import percentiles
from perf.svg_plot import HEIGHT, MARKS_HEIGHT, TOP, LogScale, Plot, Scale

if TYPE_CHECKING:
    from collections.abc import Sequence

Samples = list[dict[str, Any]]

# Event kinds and groups of stages, in the order of the page's colours.
KINDS = ("type", "delete", "jump", "paste", "accept", "undo")
GROUPS = {
    "outside the server": ("transport",),
    "receive": ("receive", "read_ahead"),
    "context": ("parse", "context", "tokenize"),
    "wait": ("queue", "handover"),
    "read the prompt": ("lookup", "prefill"),
    "heal": ("heal",),
    "write": ("decode", "alternatives"),
    "answer": ("trim", "reply", "serialize"),
}
N_BINS, N_SLOWEST = 48, 15
ROW = 24


def distribution(samples: Samples) -> str:
    """How many answers took how long, with the percentiles."""
    latencies_ms = [max(sample["latency_ms"], 0.01) for sample in samples]
    if not latencies_ms:
        return ""
    low, high = min(latencies_ms), max(latencies_ms) * 1.001
    if high < 1.5 * low:
        low, high = low / 2, high * 2
    step = math.log(high / low) / N_BINS
    counts = [0] * N_BINS
    for ms in latencies_ms:
        counts[min(N_BINS - 1, int(math.log(ms / low) / step))] += 1
    plot = Plot(
        LogScale(low, high),
        Scale(0, max(counts)),
        x_title="ms",
        y_title="answers",
        height=HEIGHT + MARKS_HEIGHT,
        top=TOP + MARKS_HEIGHT,
    )
    for n, count in enumerate(counts):
        start, end = low * math.exp(n * step), low * math.exp((n + 1) * step)
        if count:
            said = f"{count} from {start:.1f} to {end:.1f} ms"
            plot.bar(start, end, count, css="c0", said=said)
    ranks = percentiles(latencies_ms)
    # The rightmost on top: no line runs through the name of one beside it.
    for level, name in enumerate(("p99", "p95", "p50")):
        plot.mark(ranks[name], f"{name} {ranks[name]:.0f} ms", level=level)
    return plot.svg("Distribution of latencies")


def by_kind(samples: Samples) -> str:
    """p50, p95 and p99 of each kind of event, a row each."""
    found: dict[str, list[float]] = defaultdict(list)
    for sample in samples:
        found[sample["kind"]].append(sample["latency_ms"])
    kinds = [kind for kind in KINDS if kind in found]
    if not kinds:
        return ""
    ranks = {kind: percentiles(found[kind]) for kind in kinds}
    low = min(rank["p50"] for rank in ranks.values())
    high = max(rank["p99"] for rank in ranks.values())
    plot = Plot(
        LogScale(max(low, 0.01) / 1.3, high * 1.3),
        Scale(0, len(kinds)),
        x_title="ms",
        height=60 + ROW * len(kinds),
        left=120,
        has_y_ticks=False,
    )
    for n, kind in enumerate(kinds):
        y, rank = len(kinds) - n - 0.5, ranks[kind]
        css = f"c{KINDS.index(kind)}"
        plot.row_name(y, f"{kind} ({len(found[kind])})")
        plot.line([(rank["p50"], y), (rank["p99"], y)], css=css)
        for name, radius in (("p50", 5.0), ("p95", 4.0), ("p99", 3.0)):
            said = f"{kind}: {name} {rank[name]:.1f} ms"
            plot.dot(rank[name], y, css=css, radius=radius, said=said)
    return plot.svg("Latency by kind of event: p50, p95 and p99")


def by_length(samples: Samples) -> str:
    """Each answer's latency against the length of its document."""
    if not samples:
        return ""
    lengths = [max(sample["n_chars"], 1) for sample in samples]
    latencies_ms = [max(sample["latency_ms"], 0.01) for sample in samples]
    plot = Plot(
        LogScale(min(lengths) / 1.2, max(lengths) * 1.2),
        LogScale(min(latencies_ms) / 1.2, max(latencies_ms) * 1.2),
        x_title="characters in the document",
        y_title="ms",
    )
    for sample, n_chars, ms in zip(samples, lengths, latencies_ms, strict=True):
        css = f"c{KINDS.index(sample['kind'])} faint"
        plot.dot(n_chars, ms, css=css, radius=2.5, said=_said(sample))
    present = {sample["kind"] for sample in samples}
    names = [(kind, f"c{n}") for n, kind in enumerate(KINDS) if kind in present]
    return plot.svg("Latency against document length") + legend(names)


def slowest(samples: Samples) -> str:
    """The slowest answers, from the request written to the answer read, stage by stage."""
    chosen = sorted(samples, key=lambda sample: -sample["latency_ms"])[:N_SLOWEST]
    if not chosen:
        return ""
    plot = Plot(
        Scale(0, chosen[0]["latency_ms"]),
        Scale(0, len(chosen)),
        x_title="ms",
        height=60 + ROW * len(chosen),
        left=190,
        has_y_ticks=False,
    )
    for n, sample in enumerate(chosen):
        y = len(chosen) - n - 0.5
        plot.row_name(y, f"{sample['kind']}, {sample['trace']}")
        at_ms = 0.0
        for css, name, ms in _segments(sample):
            said = f"{name} {ms:.1f} of {sample['latency_ms']:.1f} ms. {_said(sample)}"
            plot.span(at_ms, at_ms + ms, y, 0.7, css=css, said=said)
            at_ms += ms
    names = [(name, f"c{n}") for n, name in enumerate(GROUPS)]
    has_stages = any("stages_ms" in sample for sample in chosen)
    return plot.svg("The slowest answers, stage by stage") + (legend(names) if has_stages else "")


def recomputed(samples: Samples) -> str:
    """Prompt tokens that each request read again, over the run."""
    known = [sample for sample in samples if "n_recomputed" in sample]
    if not known:
        return ""
    # Zeros are what there should be most of: they have a place on the axis.
    most = max(sample["n_recomputed"] for sample in known)
    plot = Plot(
        Scale(0, len(known)),
        LogScale(0.7, max(10, most) * 1.3, zero=0.7),
        x_title="request",
        y_title="tokens",
    )
    for n, sample in enumerate(known):
        css = f"c{KINDS.index(sample['kind'])} faint"
        tokens = sample["n_recomputed"]
        plot.dot(n, max(tokens, 0.7), css=css, radius=2.5, said=f"{tokens} tokens. {_said(sample)}")
    present = {sample["kind"] for sample in known}
    names = [(kind, f"c{n}") for n, kind in enumerate(KINDS) if kind in present]
    return plot.svg("Tokens read again, by request") + legend(names)


def memory(series: Sequence[tuple[float, int]]) -> str:
    """Resident memory over the run."""
    if len(series) < 2:
        return ""
    points = [(at_s, n_bytes / 2**20) for at_s, n_bytes in series]
    plot = Plot(
        Scale(0, points[-1][0]),
        Scale(0, 1.1 * max(mib for _, mib in points)),
        x_title="s",
        y_title="MiB",
    )
    plot.line(points, css="c0")
    return plot.svg("Resident memory of the server and what it started")


def legend(names: Sequence[tuple[str, str]]) -> str:
    """Names beside their colours."""
    keys = "".join(
        f'<span><svg class="key" viewBox="0 0 10 10" aria-hidden="true">'
        f'<rect class="{css}" width="10" height="10" rx="2"/></svg>{escape(name)}</span>'
        for name, css in names
    )
    return f'<p class="legend">{keys}</p>'


def _segments(sample: dict[str, Any]) -> list[tuple[str, str, float]]:
    """Class, name and ms of what an answer's time went into."""
    stages = sample.get("stages_ms")
    if not stages:
        return [("c0", "the answer", sample["latency_ms"])]
    grouped = [
        (f"c{n}", name, sum(stages.get(stage, 0.0) for stage in members))
        for n, (name, members) in enumerate(GROUPS.items())
    ]
    known = {stage for members in GROUPS.values() for stage in members}
    rest = sum(ms for stage, ms in stages.items() if stage not in known)
    return [one for one in (*grouped, ("rest", "other", rest)) if one[2] > 0]


def _said(sample: dict[str, Any]) -> str:
    tokens = f", {sample['n_recomputed']} tokens read again" if "n_recomputed" in sample else ""
    return (
        f"{sample['kind']} in {sample['trace']}, {sample['latency_ms']:.1f} ms,"
        f" {sample['n_chars']:,} characters{tokens}"
    )
