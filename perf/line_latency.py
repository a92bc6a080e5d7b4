"""Latency of one suggested line through the real server, and the share of each stage.

`python -m perf.line_latency` opens a sample file in a server process, types at the ends of its
lines, and asks after each keystroke, as an editor does. Only answers in which the model wrote
exactly `--tokens` tokens count as lines; the others are reported beside them.
"""

from __future__ import annotations

import asyncio
import json
import re
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table

from perf.client import Client
from perf.machine import machine

SAMPLES = Path(__file__).parent / "samples"
# Between a change and the request after it: what editors wait at the least.
PAUSE_S = 0.05
# After going to another line: what is measured is typing on warm states, not jumping.
SETTLE_S = 0.7


async def measure(
    path: Path, *, n_tokens: int, n_lines: int, threads: int, model: str | None
) -> list[dict[str, Any]]:
    """Type a space-ended word at the end of many lines; give each answer's figures."""
    text = path.read_text(encoding="utf-8")
    lines = text.split("\n")
    options: dict[str, Any] = {
        "maxTokens": n_tokens,
        "threads": threads,
        "deadlineMs": 60_000,
    }
    if model is not None:
        options["model"] = model
    uri = path.resolve().as_uri()
    rows = []
    async with await Client.start() as client:
        await client.initialize(options=options)
        client.open(uri, "python", text)
        # The first answer waits for the model; it and the first prompt are not what is measured.
        await client.ask(uri, 0, 0)
        at = [i for i, line in enumerate(lines) if re.search(r"\w( =|\(|\.)", line)]
        chosen = at[:: max(1, len(at) // n_lines)][:n_lines]
        for line in chosen:
            # The end of a call's opening or of an assignment's left side: much to be said.
            match = re.search(r"\w( =|\(|\.)", lines[line])
            assert match is not None
            rest = {"line": line, "character": match.end()}
            end = {"line": line, "character": len(lines[line])}
            client.change(uri, [{"range": {"start": rest, "end": end}, "text": ""}])
            await client.ask(uri, line, match.end())
            await asyncio.sleep(SETTLE_S)
            client.insert(uri, line, match.end(), " ")
            await asyncio.sleep(PAUSE_S)
            await client.last_timings()
            answer = await client.ask(uri, line, match.end() + 1)
            (figures,) = await client.last_timings()
            rows.append({**figures, "latency_ms": answer.latency_ms})
            stop = {"line": line, "character": match.end() + 1}
            rest_of_line = lines[line][match.end() :]
            client.change(uri, [{"range": {"start": rest, "end": stop}, "text": rest_of_line}])
        await client.shutdown()
    return rows


def summary(rows: list[dict[str, Any]], n_tokens: int) -> dict[str, Any]:
    """Give percentiles over the answers of full length, and mean shares of the stages."""
    full = [row for row in rows if row["tokens"]["generated"] == n_tokens]
    latency = sorted(row["latency_ms"] for row in full)
    stages: dict[str, float] = defaultdict(float)
    for row in full:
        for stage, ms in row["timings_ms"].items():
            if stage != "total":
                stages[stage] += ms / len(full)
    return {
        "requests": len(rows),
        "lines": len(full),
        "latency_ms": {
            "p50": statistics.median(latency) if full else None,
            "p95": latency[int(0.95 * (len(full) - 1))] if full else None,
        },
        "stages_ms": dict(sorted(stages.items(), key=lambda item: -item[1])),
        "recomputed": {"max": max((row["tokens"]["recomputed"] for row in rows), default=None)},
        "all_latency_ms": {"p50": statistics.median(row["latency_ms"] for row in rows)},
    }


@click.command()
@click.option("--file", "path", type=click.Path(path_type=Path, exists=True), default=None)
@click.option("--tokens", default=12, show_default=True, help="Tokens in a line.")
@click.option("--lines", default=100, show_default=True, help="Lines to type in.")
@click.option("--threads", default=2, show_default=True)
@click.option("--model", default=None, help="Model to measure; the embedded one if left out.")
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write the figures here.")
def main(
    path: Path | None, tokens: int, lines: int, threads: int, model: str | None, out: Path | None
) -> None:
    """Measure the latency of suggested lines through the server."""
    path = path or next(SAMPLES.glob("*.py"))
    rows = asyncio.run(measure(path, n_tokens=tokens, n_lines=lines, threads=threads, model=model))
    figures = {
        **summary(rows, tokens),
        "tokens": tokens,
        "threads": threads,
        "file": path.name,
        "machine": machine(),
        "torch": torch.__version__,
    }
    if out is not None:
        out.write_text(json.dumps(figures, indent=1) + "\n")
    table = Table(title=f"{tokens}-token lines, {threads} threads, {figures['lines']} answers")
    table.add_column("stage")
    table.add_column("ms", justify="right")
    table.add_column("share", justify="right")
    total = sum(figures["stages_ms"].values()) or 1.0
    for stage, ms in figures["stages_ms"].items():
        table.add_row(stage, f"{ms:.2f}", f"{ms / total:.0%}")
    console = Console()
    console.print(table)
    console.print_json(json.dumps(figures["latency_ms"] | figures["recomputed"]))


if __name__ == "__main__":
    main()
