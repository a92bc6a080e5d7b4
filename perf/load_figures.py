"""What people who type all at once had of one engine: latency, fairness, cost."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import TYPE_CHECKING, Any

from perf.percentiles import percentiles
from perf.svg_plot import Plot, Scale
from perf.svg_sheet import sheet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf.profile_sample import Run

PERCENTILES = (("c0", "p50"), ("c1", "p95"), ("c2", "p99"))


def figures(
    runs: Sequence[Run],
    *,
    seconds: float,
    cpu_s: float,
    rss_bytes: int,
    host_rss_bytes: int,
) -> dict[str, Any]:
    """The figures of one number of people, a run each.

    `latency_ms` is from the change to the answer, of what nothing newer overtook. Of the engine's
    queue it is the wait in it. `cpu_s` is the host's processor time; where the platform tells of
    no processes, it and the bytes are zero.
    """
    samples = [sample for run in runs for sample in run.samples]
    answered = [sample for sample in samples if sample.is_answered]
    outcomes = Counter(sample.outcome for sample in samples)
    queue_ms = [s.stages_ms["queue"] for s in answered if "queue" in s.stages_ms]
    return {
        "typists": len(runs),
        "seconds": seconds,
        "requests": len(samples),
        "answered": len(answered),
        "superseded": outcomes["cancelled"],
        "errors": outcomes["error"] + outcomes["timeout"],
        "suggested": sum(sample.suggested_chars > 0 for sample in answered),
        "typed_through": sum(sample.prompt_kind == "typed" for sample in answered),
        "latency_ms": percentiles([s.change_ms for s in answered if s.change_ms is not None]),
        "queue_ms": percentiles(queue_ms) if queue_ms else None,
        "fairness": fairness(runs),
        "processor": cpu_s / seconds,
        "rss_bytes": rss_bytes,
        "host_rss_bytes": host_rss_bytes,
    }


def fairness(runs: Sequence[Run]) -> dict[str, float]:
    """How alike people were served.

    `worst_to_best`: the ratio of the slowest and the fastest of their median latencies. `jain`:
    the index of Jain, Chiu and Hawe, "A Quantitative Measure of Fairness and Discrimination",
    DEC-TR-301, 1984, over the shares of their requests that were answered: from 1/n, where one
    has all, to 1.
    """
    answered = [[sample for sample in run.samples if sample.is_answered] for run in runs]
    medians_ms = [statistics.median(s.latency_ms for s in own) for own in answered if own]
    shares = [
        len(own) / len(run.samples) for own, run in zip(answered, runs, strict=True) if run.samples
    ]
    return {
        "worst_to_best": max(medians_ms) / min(medians_ms),
        "jain": sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares)),
    }


def holds(levels: Sequence[dict[str, Any]], bound_ms: float) -> int:
    """How many people are served within the bound at the 95th percentile, as are all fewer.

    More may be, where no level is over the bound.
    """
    held = 0
    for level in levels:
        if level["latency_ms"]["p95"] > bound_ms:
            break
        held = level["typists"]
    return held


def table(report: dict[str, Any]) -> str:
    """The figures as Markdown."""
    head = (
        "typists | p50 ms | p95 ms | p99 ms | waits p95 ms | answered | superseded | of the answers"
        " with text | worst to best median | Jain | cores used | MiB, host | MiB, all"
    )
    rows = [
        " | ".join(
            (
                f"{level['typists']}",
                *(f"{level['latency_ms'][name]:.1f}" for _, name in PERCENTILES),
                "" if level["queue_ms"] is None else f"{level['queue_ms']['p95']:.1f}",
                f"{level['answered']:,}",
                f"{level['superseded'] / level['requests']:.1%}",
                f"{level['suggested'] / level['answered']:.1%}",
                f"{level['fairness']['worst_to_best']:.2f}",
                f"{level['fairness']['jain']:.4f}",
                f"{level['processor']:.2f}",
                *(f"{level[name] / 2**20:,.0f}" for name in ("host_rss_bytes", "rss_bytes")),
            )
        )
        for level in report["levels"]
    ]
    n_columns = head.count("|") + 1
    rule = " | ".join(["---:"] * n_columns)
    body = "\n".join(f"| {row} |" for row in (head, rule, *rows))
    is_all = all(level["latency_ms"]["p95"] <= report["bound_ms"] for level in report["levels"])
    said = "one thread" if report["threads"] == 1 else f"{report['threads']} threads"
    return (
        f"# People typing at one engine\n\n{report['machine']}, {said}, {report['date'][:10]}."
        f" Each has a window of their own and five documents. Latency is from the change to the"
        f" answer, of requests that no newer key overtook.\n\n{body}\n\n"
        f"Below {report['bound_ms']:g} ms at the 95th percentile: {report['holds']} typists"
        f"{'; no more were tried' if is_all else ''}.\n"
    )


def picture(report: dict[str, Any]) -> str:
    """Latency over the number of people, as SVG."""
    levels = report["levels"]
    highest = max(report["bound_ms"], *(level["latency_ms"]["p99"] for level in levels))
    plot = Plot(
        Scale(0, levels[-1]["typists"] * 1.05),
        Scale(0, 1.1 * highest),
        x_title="people typing",
        y_title="ms",
    )
    plot.line(
        [(0, report["bound_ms"]), (levels[-1]["typists"] * 1.05, report["bound_ms"])], css="bound"
    )
    for css, name in PERCENTILES:
        points = [(level["typists"], level["latency_ms"][name]) for level in levels]
        plot.line(points, css=css)
        for n_typists, ms in points:
            said = f"{n_typists} typists, {name}: {ms:.1f} ms"
            plot.dot(n_typists, ms, css=css, radius=4, said=said)
    names = tuple(name for _, name in PERCENTILES)
    return sheet(
        f"People typing at one engine: {report['machine']}",
        [("From the change to the answer", names, plot.svg("Latency"))],
    )
