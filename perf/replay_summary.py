"""Figures of replays: percentiles by kind of event, and engines side by side."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from perf.percentiles import percentiles
from perf.replay import replay_sitting

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lsp_server.settings import Settings
    from perf.replay import MakeEngine, Pace, Row
    from perf.trace_format import Trace

# Put together; other kinds stand for themselves.
EDITING = ("type", "delete")


def compare(
    sittings: Sequence[Sequence[Trace]],
    engines: Mapping[str, MakeEngine],
    *,
    settings: Settings | None = None,
    pace: Pace | None = None,
) -> dict[str, Any]:
    """Replay sittings with several engines: a summary for each, and how many answers differ.

    "different_prompts" and "different_answers" count, against the first engine, requests with
    other prompt ids, and with equal prompt ids but other ids in the answer. Engines that keep
    different states agree in the prompts of explicit requests alone.
    """
    rows = {
        name: [
            row
            for traces in sittings
            for row in replay_sitting(traces, make_engine, settings=settings, pace=pace)
        ]
        for name, make_engine in engines.items()
    }
    first = next(iter(rows.values()), [])
    report: dict[str, Any] = {}
    for name, own in rows.items():
        pairs = list(zip(first, own, strict=True))
        same = [(a, b) for a, b in pairs if a.prompt_digest == b.prompt_digest]
        report[name] = {
            "different_prompts": len(pairs) - len(same),
            "different_answers": sum(a.answer_digest != b.answer_digest for a, b in same),
            **summary(own),
        }
    return report


def summary(rows: Iterable[Row]) -> dict[str, Any]:
    """Figures by kind of event ("editing" is typing and deleting together) and by prompt kind.

    Each has the number of answers and p50, p95, p99, mean and max of their columns; background
    work is a column of its own. "prompt_over_all" is how many times the prompts of all answers
    hold the tokens that were read for all events, in the background too.
    """
    rows = list(rows)
    answered = [row for row in rows if row.was_answered]
    by_kind: dict[str, list[Row]] = defaultdict(list)
    by_prompt_kind: dict[str, list[Row]] = defaultdict(list)
    for row in answered:
        by_kind["editing" if row.kind in EDITING else row.kind].append(row)
        by_prompt_kind[row.prompt_kind].append(row)
    n_read = sum(row.n_recomputed + row.n_background for row in rows)
    n_prompt = sum(row.n_prompt for row in answered)
    return {
        "events": len(rows),
        "requests": sum(row.asked for row in rows),
        "answers": len(answered),
        "stops": dict(sorted(Counter(row.stop for row in rows if row.asked).items())),
        "sources": dict(sorted(Counter(row.source for row in answered).items())),
        "tokens": {
            "prompt": n_prompt,
            "recomputed": sum(row.n_recomputed for row in rows),
            "background": sum(row.n_background for row in rows),
            "generated": sum(row.n_generated for row in rows),
        },
        "prompt_over_all": n_prompt / n_read if n_read else None,
        "by_kind": {kind: _figures(found) for kind, found in sorted(by_kind.items())},
        "by_prompt_kind": {kind: _figures(found) for kind, found in sorted(by_prompt_kind.items())},
    }


def _figures(rows: Sequence[Row]) -> dict[str, Any]:
    columns = (
        *("n_prompt", "n_recomputed", "n_background", "n_generated"),
        *("n_passes", "n_healing_passes", "engine_ms", "background_ms", "latency_ms"),
    )
    fields = [asdict(row) for row in rows]
    return {
        "n": len(rows),
        **{name: percentiles([row[name] for row in fields]) for name in columns},
    }
