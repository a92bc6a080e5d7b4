"""A run in figures: what `keystate profile --json` prints."""

from __future__ import annotations

import platform
from collections import Counter, defaultdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from perf.machine import machine
from perf.percentiles import percentiles

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from perf.profile_sample import Run, Sample

# In a request's order. What a server names besides comes after them.
STAGES = (
    *("transport", "receive", "read_ahead", "parse", "context", "queue", "tokenize", "lookup"),
    *("prefill", "heal", "decode", "alternatives", "handover", "trim", "reply", "serialize"),
)


def summary(run: Run) -> dict[str, Any]:
    """The figures of a run, and its samples, from which two runs can be compared.

    Latencies are those of answers that nothing overtook, from the request written to the answer
    read; `change_latency_ms` counts from the document's change. Shares are null where there is
    nothing to divide by, percentiles where there is nothing to rank.
    """
    answered = [sample for sample in run.samples if sample.is_answered]
    outcomes = Counter(sample.outcome for sample in run.samples)
    by_kind: dict[str, list[Sample]] = defaultdict(list)
    for sample in answered:
        by_kind[sample.kind].append(sample)
    first_lines = [s.first_line for s in answered if s.first_line is not None]
    return {
        "requests": len(run.samples),
        "errors": outcomes["error"] + outcomes["timeout"],
        "timeouts": outcomes["timeout"],
        "error_messages": dict(Counter(s.problem for s in run.samples if s.problem)),
        "cancelled": outcomes["cancelled"],
        "unasked": run.n_unasked,
        "latency_ms": _ranks((s.latency_ms for s in answered), "p50", "p95", "p99", "max"),
        "change_latency_ms": _ranks((s.change_ms for s in answered), "p50", "p95", "p99", "max"),
        "by_kind": {
            kind: {"n": len(found), **(_ranks((s.latency_ms for s in found), "p50", "p95") or {})}
            for kind, found in sorted(by_kind.items())
        },
        "stages_ms": stages_ms(answered),
        "tokens_recomputed": _ranks(
            (s.n_recomputed for s in run.samples), "p50", "p95", "p99", "mean"
        ),
        "passes": _ranks((s.n_passes for s in run.samples), "p50", "p95", "p99", "mean"),
        "prompt_tokens": _ranks((s.n_prompt for s in answered), "p50", "max"),
        "prompt_kinds": dict(Counter(s.prompt_kind for s in answered if s.prompt_kind)),
        "suggested": sum(sample.suggested_chars > 0 for sample in answered),
        "first_line_match": sum(first_lines) / len(first_lines) if first_lines else None,
        "ratio_completed": _share(run.n_completed_chars, run.n_typed_chars),
        "typed_chars": run.n_typed_chars,
        "rss_bytes": run.memory[-1][1] if run.memory else None,
        "rss_max_bytes": max((n for _, n in run.memory), default=None),
        "cpu_s": run.cpu_s,
        "cpu_s_per_1000_chars": _share(1e3 * run.cpu_s, run.n_typed_chars)
        if run.cpu_s is not None
        else None,
        "start_to_ready_s": run.start_to_ready_s,
        "start_to_suggestion_s": run.start_to_suggestion_s,
        "seconds": run.seconds,
        "model": run.model,
        "device": run.device,
        "server": run.server,
        "command": run.command,
        "speed": run.speed,
        "problem": run.problem,
        "machine": machine_of_times(),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "counters": run.counters,
        "memory": [[round(at_s, 2), n_bytes] for at_s, n_bytes in run.memory],
        "samples": [sample.to_json() for sample in run.samples],
    }


def stages_ms(samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """p50, p95 and mean of each stage that our own server tells of, in a request's order.

    A stage that an answer did without took it no time. The means add up to that of the latency.
    """
    known = [sample for sample in samples if sample.stages_ms]
    names = {name for sample in known for name in sample.stages_ms}
    ordered = [name for name in STAGES if name in names]
    ordered += sorted(names - set(ordered))
    found = {}
    for name in ordered:
        ranks = percentiles([sample.stages_ms.get(name, 0.0) for sample in known])
        found[name] = {key: ranks[key] for key in ("p50", "p95", "mean")}
    return found


def machine_of_times() -> str:
    """What times may be compared on: the machine and its system."""
    return f"{machine()}, {platform.system()}"


def _ranks(values: Iterable[float | None], *names: str) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    ranks = percentiles(known)
    return {name: ranks[name] for name in names}


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
