"""What kept states save: the same editing with this cache, with one that only appends, with none.

`python -m perf.state_report OUT` replays sittings (files of this project's history changed one
after another, and made-up changes), measures a keystroke against the document's length, edits
behind the cursor, and forty documents on a budget of three states. It writes OUT.json and OUT.md.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from datetime import date
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import torch
from rich.console import Console
from rich.progress import Progress

from engine.request import Completion, CompletionRequest
from engine.slots import slot_bytes
from lsp_server.settings import Settings
from perf.cache_bench import Bench
from perf.former_report import former_report
from perf.machine import machine
from perf.replay import Pace, replay_sitting
from perf.replay_summary import compare, summary
from perf.state_tables import markdown
from perf.tiny_world import suffix_first
from perf.traces import generated_traces, history_traces, sittings
from perf.typed_run import Habits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.engine import Engine
    from perf.trace_format import Trace

ROOT = Path(__file__).parents[1]
N_LINES = (100, 1_000, 10_000)
TYPED = "    for position, entry in enumerate(entries):\n        total += entry.amount"
DISTANCES = (5, 50, 500)
# Answers may be short: what is counted is what it takes to begin them.
SETTINGS = Settings(max_tokens=4, save_states=False)
# As in the server: the engine reads ahead from the edit on, and clients ask a little later. With
# the embedded model, a pass over a typed token takes 5 ms on two cores, one over 64 tokens 10 ms.
AHEAD = Pace(prepare=True, pass_ms=8.0, request_delay_ms=50.0)
# Every event asks at once and pays for what it needs.
ON_DEMAND = Pace(pass_ms=8.0)
# All answers are exact, so that they are the same whatever is kept.
EXPLICIT = Pace(explicit=True)
# Deletes, undoes and jumps are where caches differ.
UNSTEADY = Habits(
    slip=0.1, undo=0.03, look_away=0.01, accept=0.05, paste=0.9, select=0.5, interrupt=0.9
)
N_DOCUMENTS, N_STATES = 40, 3


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
    """Edit forty documents in turn with room for three states on the device, three behind it.

    Twice around: a few lines are typed into each document, with a look at the one before.
    """
    one = slot_bytes(bench.model.config, torch.float32)
    # A quarter of what the device has is for trails, too little here for any.
    budget, host = (N_STATES + 1) * one, N_STATES * one
    engine = bench.this(budget_bytes=budget, host_budget_bytes=host)
    texts = [source_lines(20)] * N_DOCUMENTS
    n_answers = most = 0
    sources: Counter[str] = Counter()

    def edit(n: int, line: str) -> None:
        nonlocal n_answers, most
        texts[n] += line
        completion = answer(engine, texts[n], document=f"{n}.py")
        if completion.stop == "error":
            raise RuntimeError(f"document {n} was answered with an error")
        n_answers += 1
        sources[completion.source] += 1
        most = max(most, engine.cache.n_bytes + engine.decoder.trail_bytes)

    for turn in range(2):
        for n in range(N_DOCUMENTS):
            for typed in range(3):
                edit(n, f"value_{typed} = {turn}\n")
            if n:
                edit(n - 1, f"seen = {turn}\n")
                edit(n, f"last = {turn}\n")
    return {
        "answers": n_answers,
        "budget_bytes": budget + host,
        "most_bytes": most,
        "sources": dict(sorted(sources.items())),
        "counters": engine.counters(),
    }


def sat_through(n_sittings: int, n_events: int) -> list[tuple[Trace, ...]]:
    """Half of them files of this project's history, half made-up changes to its present files.

    A change of the history is left after as many events; then comes another file.
    """
    history = sittings(history_traces(ROOT, seed=1, max_events=n_events), n_events)
    generated = sittings(generated_traces(ROOT / "lsp_server", seed=1), n_events)
    own = list(islice(history, n_sittings // 2))
    return own + list(islice(generated, n_sittings - len(own)))


def unsteady(n_sittings: int, n_events: int) -> list[tuple[Trace, ...]]:
    """Made-up changes by somebody who takes much back."""
    made = generated_traces(ROOT / "engine", seed=2, habits=UNSTEADY)
    return list(islice(sittings(made, n_events), n_sittings))


def one_order(traces: Sequence[tuple[Trace, ...]]) -> dict[str, Any]:
    """Compare the caches on a tiny model that knows no prefix-first order: trunks, no bridges."""
    with tempfile.TemporaryDirectory() as folder:
        world = suffix_first(Path(folder))
    bench = Bench(model=world.model, tokenizer=world.tokenizer)
    return compare(traces, bench.caches, settings=SETTINGS, pace=ON_DEMAND)


def of_head() -> str:
    """The commit whose history is replayed; "dirty" where files have changed since."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--model", default=None, help="The embedded one if left out.")
@click.option("--traces", "n_traces", default=20, show_default=True, help="Sittings to replay.")
@click.option("--events", default=150, show_default=True, help="Events of a sitting.")
@click.option("--compared", default=3, show_default=True, help="Sittings for the three caches.")
@click.option("--compared-events", default=80, show_default=True)
@click.option("--resume", is_flag=True, help="Keep what OUT.json has of an equal, unfinished run.")
def main(
    out: Path,
    model: str | None,
    n_traces: int,
    events: int,
    compared: int,
    compared_events: int,
    resume: bool,
) -> None:
    """Write the report OUT.json and OUT.md."""
    torch.set_num_threads(1)
    bench = Bench.load(model)
    long, short = sat_through(n_traces, events), unsteady(compared, compared_events)
    parts = {
        "ahead": lambda: summary(
            row
            for sitting in long
            for row in replay_sitting(sitting, bench.this, settings=SETTINGS, pace=AHEAD)
        ),
        "on_demand": lambda: summary(
            row
            for sitting in long
            for row in replay_sitting(sitting, bench.this, settings=SETTINGS, pace=ON_DEMAND)
        ),
        "by_length": lambda: by_length(bench),
        "edits_behind": lambda: edits_behind(bench),
        "small_budget": lambda: small_budget(bench),
        "caches": lambda: compare(short, bench.caches, settings=SETTINGS, pace=EXPLICIT),
        "caches_automatic": lambda: compare(short, bench.caches, settings=SETTINGS, pace=ON_DEMAND),
        "caches_one_order": lambda: one_order(short),
    }
    report: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "model": model or "embedded",
        "commit": of_head(),
        "compared": [compared, compared_events],
        "sittings": [
            {"events": sum(len(t.events) for t in sitting), "files": [t.path for t in sitting]}
            for sitting in long
        ],
    }
    record = out.with_suffix(".json")
    former = former_report(record, resume=resume)
    if all(former.get(key) == value for key, value in report.items()):
        report = former
    with Progress(console=Console(stderr=True)) as progress:
        for name in progress.track(parts, description="measuring"):
            if name in report:
                continue
            started_s = time.monotonic()
            report[name] = parts[name]()
            seconds = report["seconds"] = report.get("seconds", 0) + time.monotonic() - started_s
            # Of the last quarter of an hour: times are those of a machine as busy as that.
            report["load"] = round(os.getloadavg()[2], 1)
            record.write_text(json.dumps(report, indent=1) + "\n")
            progress.console.print(f"{name} after {seconds:.0f} s")
    out.with_suffix(".md").write_text(markdown(report))
    click.echo(markdown(report))


if __name__ == "__main__":
    main()
