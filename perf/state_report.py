"""What kept states save: the same editing with this cache, with one that only appends, with none.

`python -m perf.state_report OUT` replays keystroke traces (this project's history and generated
ones), measures a keystroke against the document's length, edits behind the cursor, and forty
documents on a budget of three states, and writes OUT.json and OUT.md.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from datetime import date
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import torch
from rich.progress import track

from engine.cache import Checkpoint, StateCache
from engine.checkpoint import load_model, resolve_model
from engine.engine import Engine
from engine.request import Completion, CompletionRequest
from engine.slots import slot_bytes
from engine.tokenizer import Tokenizer
from lsp_server.settings import Settings
from perf.replay import Pace, replay
from perf.replay_summary import compare, summary
from perf.traces import generated_traces, history_traces

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from engine.mamba2 import Mamba2
    from engine.slots import SlotPool

ROOT = Path(__file__).parents[1]
N_LINES = (100, 1_000, 10_000)
TYPED = "    for position, entry in enumerate(entries):\n        total += entry.amount"
DISTANCES = (5, 50, 500)


class AppendOnlyCache(StateCache):
    """A prefix cache that keeps the end of each prompt and nothing before it."""

    def add(self, checkpoint: Checkpoint, owner: Hashable = None) -> bool:
        """Keep a checkpoint in place of the owner's others."""
        added = super().add(checkpoint, owner)
        for entry in list(self._owned.get(owner, ())):
            if len(entry.ids) != len(checkpoint.ids) and not entry.n_leases:
                self._drop(entry, "replaced")
        return added


class AppendOnlyEngine(Engine):
    """An engine as others have it: a state can only grow."""

    def _begin(self, tiers: Sequence[SlotPool]) -> None:
        super()._begin(tiers)
        self.cache = self.decoder.cache = AppendOnlyCache(self.cache.tiers, self.cache.device)
        self.decoder.trail_budget_bytes = 0


class Bench:
    """Engines on one model, stepped by hand."""

    def __init__(self, name: str | None) -> None:
        """Load the model once."""
        path = resolve_model(name)
        self.model: Mamba2 = load_model(path, dtype=torch.float32)
        self.tokenizer = Tokenizer.load(path)

    def this(self, clock: Callable[[], float] = time.monotonic, **options: Any) -> Engine:
        """Make an engine as it is."""
        return Engine(self.model, self.tokenizer, clock=clock, **options)

    def append_only(self, clock: Callable[[], float]) -> Engine:
        """Make an engine whose cache can only append."""
        return AppendOnlyEngine(self.model, self.tokenizer, clock=clock)

    def none(self, clock: Callable[[], float]) -> Engine:
        """Make an engine that keeps nothing."""
        return Engine(self.model, self.tokenizer, clock=clock, budget_bytes=0)


def answer(engine: Engine, prefix: str, suffix: str = "\n", document: str = "a.py") -> Completion:
    """Ask for one line and step until nothing is left to do."""
    answers: list[Completion] = []
    request = CompletionRequest(
        document=document,
        header=f"# {document}\n",
        prefix=prefix,
        suffix=suffix,
        max_tokens=8,
        deadline_ms=None,
    )
    engine.submit(request, answers.append)
    while engine.step():
        pass
    return answers[0]


def source_lines(n_lines: int) -> str:
    """Give this project's own source, over and over, up to a number of lines."""
    lines = [
        line
        for path in sorted((ROOT / "lsp_server").glob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True)
    ]
    return "".join(islice(chain.from_iterable(iter(lambda: lines, None)), n_lines))


def by_length(bench: Bench) -> list[dict[str, Any]]:
    """Type the same text behind documents of different length, no window in force."""
    engines = {n: bench.this() for n in N_LINES}
    texts = {n: source_lines(n) for n in N_LINES}
    for n, engine in engines.items():
        engine.warm_up()
        answer(engine, texts[n])
    rows: dict[int, list[tuple[Completion, float]]] = {n: [] for n in N_LINES}
    for end in range(1, len(TYPED) + 1):
        # Side by side, so that whatever else the machine does falls on all of them.
        for n, engine in engines.items():
            started = time.perf_counter()
            completion = answer(engine, texts[n] + TYPED[:end])
            rows[n].append((completion, 1e3 * (time.perf_counter() - started)))
    return [
        {
            "lines": n,
            "prompt_tokens": rows[n][-1][0].n_prompt,
            "recomputed_per_character": sum(c.n_recomputed for c, _ in rows[n]) / len(TYPED),
            "recomputed_max": max(c.n_recomputed for c, _ in rows[n]),
            "latency_ms_p50": statistics.median(ms for _, ms in rows[n]),
            # Answers differ with the document; passes that advance the prompt do not.
            "ms_per_pass": sum(ms for _, ms in rows[n])
            / sum(c.n_passes + c.n_healing_passes + 1 for c, _ in rows[n]),
        }
        for n in N_LINES
    ]


def edits_behind(bench: Bench) -> list[dict[str, int]]:
    """Change one token d tokens behind the cursor, the cursor staying where it is."""
    rows = []
    text = source_lines(1_000)
    for distance in DISTANCES:
        engine = bench.this()
        answer(engine, text)
        ids = bench.tokenizer.encode(text)
        at = len(bench.tokenizer.decode(ids[:-distance]))
        # At a line's start, so that just the one line's tokens change.
        at = text.rfind("\n", 0, at) + 1
        changed = text[:at] + "x" + text[at:]
        d = len(bench.tokenizer.encode(changed[at:]))
        completion = answer(engine, changed)
        rows.append({"d": d, "recomputed": completion.n_recomputed, "bound": 2 * d + 8})
    return rows


def small_budget(bench: Bench) -> dict[str, Any]:
    """Edit forty documents in turn with room for three states on the device, four behind it."""
    one = slot_bytes(bench.model.config, torch.float32)
    budget, host = 4 * one, 4 * one
    engine = bench.this(budget_bytes=budget, host_budget_bytes=host)
    most = 0
    text = source_lines(40)
    for turn in range(2):
        for n in range(40):
            completion = answer(engine, text + f"value_{n} = {turn}", document=f"{n}.py")
            assert completion.stop != "error"
            held = engine.cache.n_bytes + engine.decoder.trail_bytes
            most = max(most, held)
    return {"budget_bytes": budget + host, "most_bytes": most, "counters": engine.counters()}


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--model", default=None, help="The embedded one if left out.")
@click.option("--traces", "n_traces", default=20, show_default=True)
@click.option("--events", default=150, show_default=True, help="Events of a trace, at most.")
@click.option("--compared", default=4, show_default=True, help="Traces for the three caches.")
@click.option("--compared-events", default=60, show_default=True)
def main(
    out: Path, model: str | None, n_traces: int, events: int, compared: int, compared_events: int
) -> None:
    """Write the report OUT.json and OUT.md."""
    bench = Bench(model)
    settings = Settings(max_tokens=8, save_states=False)
    made = chain(
        islice(history_traces(ROOT, seed=1, max_events=events), n_traces // 2),
        generated_traces(ROOT / "engine", seed=1, max_events=events),
    )
    traces = list(islice(made, n_traces))
    rows = []
    for trace in track(traces, description="replaying"):
        rows += replay(trace, bench.this, settings=settings, pace=Pace(prepare=True))
    short = list(
        islice(generated_traces(ROOT / "engine", seed=2, max_events=compared_events), compared)
    )
    caches = {"this cache": bench.this, "append only": bench.append_only, "none": bench.none}
    report = {
        "date": date.today().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "model": model or "embedded",
        "replay": {"traces": len(traces), **summary(rows)},
        "by_length": by_length(bench),
        "edits_behind": edits_behind(bench),
        "small_budget": small_budget(bench),
        "caches": compare(short, caches, settings=settings, pace=Pace(explicit=True)),
    }
    out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    out.with_suffix(".md").write_text(markdown(report))
    click.echo(markdown(report))


def markdown(report: dict[str, Any]) -> str:
    """Give the report as tables."""
    replayed = report["replay"]
    lines = [
        "# What kept states save",
        "",
        f"`python -m perf.state_report`, {report['date']}, {report['machine']},"
        f" {report['threads']} threads, torch {report['torch']}, {report['model']} model.",
        "",
        f"## {replayed['traces']} traces, {replayed['answers']} answers",
        "",
        f"Prompt tokens over tokens read, background included: {replayed['prompt_over_all']:.1f}.",
        "",
        "| event | n | recomputed p50 | p95 | p99 | mean | background mean | prompt p50 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, figures in replayed["by_kind"].items():
        read, ahead = figures["n_recomputed"], figures["n_background"]
        lines.append(
            f"| {kind} | {figures['n']} | {read['p50']} | {read['p95']} | {read['p99']}"
            f" | {read['mean']:.2f} | {ahead['mean']:.2f} | {figures['n_prompt']['p50']} |"
        )
    lines += ["", "| answered from | n | recomputed mean |", "|---|---|---|"]
    for kind, figures in replayed["by_prompt_kind"].items():
        lines.append(f"| {kind} | {figures['n']} | {figures['n_recomputed']['mean']:.2f} |")
    lines += [
        "",
        "## A typed character against the document's length",
        "",
        "| lines | prompt tokens | recomputed a character | at most | ms, median | ms a pass |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["by_length"]:
        lines.append(
            f"| {row['lines']:,} | {row['prompt_tokens']:,} | {row['recomputed_per_character']:.2f}"
            f" | {row['recomputed_max']} | {row['latency_ms_p50']:.1f} | {row['ms_per_pass']:.2f} |"
        )
    lines += ["", "## An edit d tokens behind the cursor", "", "| d | recomputed | 2d + 8 |"]
    lines += ["|---|---|---|"]
    lines += [
        f"| {row['d']} | {row['recomputed']} | {row['bound']} |" for row in report["edits_behind"]
    ]
    budget = report["small_budget"]
    lines += [
        "",
        "## Forty documents, room for three states and as many on the host",
        "",
        f"At most {budget['most_bytes']:,} of {budget['budget_bytes']:,} bytes."
        f" Counters: `{json.dumps(budget['counters'])}`",
        "",
        "## Three caches, the same explicit requests",
        "",
        "| cache | answers | other prompts | other answers | prompt tokens | recomputed | passes"
        " | engine ms p50 | p95 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, figures in report["caches"].items():
        tokens, epoch = figures["tokens"], figures["by_prompt_kind"]["epoch"]
        lines.append(
            f"| {name} | {figures['answers']} | {figures['different_prompts']}"
            f" | {figures['different_answers']} | {tokens['prompt']:,} | {tokens['recomputed']:,}"
            f" | {epoch['n_passes']['mean']:.1f} | {epoch['engine_ms']['p50']:.1f}"
            f" | {epoch['engine_ms']['p95']:.1f} |"
        )
    lines += [
        "",
        "Requests are explicit here, so that all three answer from the same prompts; answers from"
        " trunk and bridge stand in the table of automatic requests above.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
