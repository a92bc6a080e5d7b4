"""The report on kept states as tables for reading."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PROMPT_KINDS = ("epoch", "bridge", "trunk")


def markdown(report: dict[str, Any]) -> str:
    """Give the report as Markdown."""
    files = [len(sitting["files"]) for sitting in report["sittings"]]
    lines = [
        "# What kept states save",
        "",
        f"`python -m perf.state_report OUT`, {report['date']}, {report['machine']},"
        f" {report['threads']} thread(s), load {report['load']}, torch {report['torch']},"
        f" {report['model']} model, history up to {report['commit']}, {report['seconds']:.0f} s.",
        "",
        f"{len(files)} sittings of {report['sittings'][0]['events']} events over {sum(files)} files"
        " that are opened, changed and closed one after the other, half of them from this project's"
        " own history. Each sitting starts with nothing kept. Tokens are counted; what is called ms"
        " was measured, beside whatever else made up the machine's load.",
        "",
        "## Reading ahead, as the server does",
        "",
        "The engine reads from each event on; a request comes 50 ms later, unless a newer event"
        " came first; a pass takes 8 ms of the replay's time.",
        "",
        *_replayed(report["ahead"]),
        "",
        "## Reading nothing ahead",
        "",
        "Every event asks at once, and pays for all that it needs.",
        "",
        *_replayed(report["on_demand"]),
        "",
        "## A typed character against the document's length",
        "",
        *_table(
            ("lines", "prompt tokens", "recomputed a character", "at most", "ms p50", "ms a pass"),
            (
                (
                    f"{row['lines']:,}",
                    f"{row['prompt_tokens']:,}",
                    f"{row['recomputed_per_character']:.2f}",
                    row["recomputed_max"],
                    f"{row['latency_ms_p50']:.1f}",
                    f"{row['ms_per_pass']:.2f}",
                )
                for row in report["by_length"]
            ),
        ),
        "",
        "## An edit d tokens behind the cursor",
        "",
        *_table(
            ("d", "recomputed", "2d + 8"),
            ((row["d"], row["recomputed"], row["bound"]) for row in report["edits_behind"]),
        ),
        "",
        "## Forty documents, room for three states on the device and three on the host",
        "",
        *_small_budget(report["small_budget"]),
        "",
        "## Three caches, the same explicit requests",
        "",
        "All three answer from the same prompts. The sittings hold more slips, undoes, jumps and"
        " edits above the cursor than most.",
        "",
        *_explicit(report["caches"]),
        "",
        "## Three caches, automatic requests, nothing read ahead",
        "",
        "What a request is answered from depends on what is kept, so prompts differ; answers to"
        " equal prompts are compared.",
        "",
        *_automatic(report["caches_automatic"]),
        "",
        "The embedded model knows both orders of a prompt, so trunks carry bridges. The same"
        " sittings with a tiny random model that knows only one order:",
        "",
        *_automatic(report["caches_one_order"]),
        "",
    ]
    return "\n".join(lines)


def _replayed(figures: dict[str, Any]) -> list[str]:
    sources = ", ".join(f"{name} {n:,}" for name, n in figures["sources"].items())
    stops = ", ".join(f"{name} {n:,}" for name, n in figures["stops"].items())
    tokens = figures["tokens"]
    return [
        f"{figures['events']:,} events, {figures['answers']:,} answers"
        f" (states from: {sources}; stopped by: {stops})."
        f" {tokens['prompt']:,} prompt tokens over {tokens['recomputed']:,} read for requests and"
        f" {tokens['background']:,} in the background:"
        f" **{figures['prompt_over_all']:.1f} times fewer**.",
        "",
        *_table(
            (
                *("event", "n", "recomputed p50", "p95", "p99", "max", "mean"),
                *("background p50", "p99", "mean", "healing passes mean", "prompt mean"),
            ),
            (
                (
                    kind,
                    f"{found['n']:,}",
                    *(found["n_recomputed"][name] for name in ("p50", "p95", "p99", "max")),
                    f"{found['n_recomputed']['mean']:.2f}",
                    *(found["n_background"][name] for name in ("p50", "p99")),
                    f"{found['n_background']['mean']:.2f}",
                    f"{found['n_healing_passes']['mean']:.2f}",
                    f"{found['n_prompt']['mean']:.0f}",
                )
                for kind, found in figures["by_kind"].items()
            ),
        ),
        "",
        *_table(
            ("answered from", "n", "recomputed p50", "p95", "mean"),
            (
                (
                    kind,
                    f"{found['n']:,}",
                    found["n_recomputed"]["p50"],
                    found["n_recomputed"]["p95"],
                    f"{found['n_recomputed']['mean']:.2f}",
                )
                for kind, found in figures["by_prompt_kind"].items()
            ),
        ),
    ]


def _small_budget(budget: dict[str, Any]) -> list[str]:
    counters = budget["counters"]
    return [
        f"{budget['answers']} answers, none an error; at most {budget['most_bytes']:,} of"
        f" {budget['budget_bytes']:,} bytes. Twice around, each document is typed into several"
        " times before the next one, with a look back at the one before. A quarter of the device's"
        " budget is for trails: too little here for any.",
        "",
        *_table(
            ("hits on the device", "on the host", "on trails", "misses", "spilled", "evicted"),
            [
                [
                    counters.get(name, 0)
                    for name in (
                        *("cache_hits_tier0", "cache_hits_tier1", "trail_hits"),
                        *("cache_misses", "cache_spilled", "cache_evicted"),
                    )
                ]
            ],
        ),
    ]


def _explicit(caches: dict[str, Any]) -> list[str]:
    kinds = list(next(iter(caches.values()))["by_kind"])
    return _table(
        (
            *("cache", "answers", "other prompts", "other answers", "prompt tokens", "recomputed"),
            *(f"mean, {kind}" for kind in kinds),
            *("passes", "engine ms p50", "p95"),
        ),
        (
            (
                name,
                figures["answers"],
                figures["different_prompts"],
                figures["different_answers"],
                f"{figures['tokens']['prompt']:,}",
                f"{figures['tokens']['recomputed']:,}",
                *(f"{figures['by_kind'][kind]['n_recomputed']['mean']:.1f}" for kind in kinds),
                f"{figures['by_prompt_kind']['epoch']['n_passes']['mean']:.1f}",
                f"{figures['by_prompt_kind']['epoch']['engine_ms']['p50']:.1f}",
                f"{figures['by_prompt_kind']['epoch']['engine_ms']['p95']:.1f}",
            )
            for name, figures in caches.items()
        ),
    )


def _automatic(caches: dict[str, Any]) -> list[str]:
    def of_kind(figures: dict[str, Any], kind: str) -> Iterable[str]:
        found = figures["by_prompt_kind"].get(kind)
        if found is None:
            return ("0", "", "")
        read, ms = found["n_recomputed"]["mean"], found["engine_ms"]["p50"]
        return (str(found["n"]), f"{read:.1f}", f"{ms:.1f}")

    return _table(
        (
            *("cache", "other answers", "recomputed", "background"),
            *(
                column
                for kind in PROMPT_KINDS
                for column in (f"{kind}: n", "recomputed mean", "engine ms p50")
            ),
        ),
        (
            (
                name,
                figures["different_answers"],
                f"{figures['tokens']['recomputed']:,}",
                f"{figures['tokens']['background']:,}",
                *(column for kind in PROMPT_KINDS for column in of_kind(figures, kind)),
            )
            for name, figures in caches.items()
        ),
    )


def _table(header: Sequence[str], rows: Iterable[Iterable[object]]) -> list[str]:
    return [
        f"| {' | '.join(header)} |",
        "|---" * len(header) + "|",
        *(f"| {' | '.join(map(str, row))} |" for row in rows),
    ]
