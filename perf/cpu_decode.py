"""Speed of short passes on a CPU beside the memory's, torch's and llama.cpp's, in one run.

`python -m perf.cpu_decode --out perf/results/cpu_decode.json` takes the embedded model. All that
is compared takes turns, round by round, so that what else the machine does meets all of it; both
the best round (nothing else was going on) and the median are kept. With `--llama-bench` and the
model as GGUF (`keystate export --gguf`), llama.cpp takes turns too.
"""

from __future__ import annotations

import json
import math
import shlex
import statistics
import subprocess
import time
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import torch
from rich.console import Console

from engine.checkpoint import load_model, resolve_model
from engine.cpu_passes import CpuPasses
from engine.quantized import Quantization
from perf.cpu_floors import product_flops, read_bandwidth
from perf.cpu_report import picture, tables
from perf.machine import machine

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.mamba2 import Mamba2

KINDS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}
TORCH = "torch, float32"
PASS_TOKENS = (1, 4, 8, 16)
PREFILL_TOKENS = 512
DECODE_TOKENS = 32
# What llama.cpp is asked: reading so many tokens, and writing so many.
LLAMA_PREFILL, LLAMA_DECODE = 512, 128


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A way to run the model."""

    name: str
    n_threads: int
    model: Mamba2
    n_bytes: int

    def tasks(self) -> dict[str, tuple[Callable[[], object], int]]:
        """Give what is timed, by name, and the tokens of each."""
        state = self.model.initial_state()
        tokens = torch.arange(PREFILL_TOKENS) % self.model.config.vocab_size
        tasks: dict[str, tuple[Callable[[], object], int]] = {
            "decode": (partial(self.decode, tokens), DECODE_TOKENS),
            "prefill": (
                partial(self.model.read, tokens, state, (PREFILL_TOKENS,), PREFILL_TOKENS),
                PREFILL_TOKENS,
            ),
        }
        for n in PASS_TOKENS:
            tasks[f"pass_{n}"] = (partial(self.model, tokens[:n], state), n)
        return tasks

    def decode(self, tokens: torch.Tensor) -> None:
        """Read tokens one by one, each from the state after the one before.

        None is chosen: llama-bench does not, either.
        """
        state = self.model.initial_state()
        for n in range(DECODE_TOKENS):
            read = self.model(tokens[n : n + 1], state)
            state = read.commit(1)
            # As in the engine, the state before goes before the next one comes: it is its room.
            del read


def candidates(path: Path, n_threads: int) -> list[Candidate]:
    """Give the model in torch, and with compiled passes of every kind of rows."""
    plain = load_model(path, device="cpu", dtype=torch.float32)
    n_bytes = sum(parameter.nbytes for parameter in plain.parameters())
    made = [Candidate(name=TORCH, n_threads=n_threads, model=plain, n_bytes=n_bytes)]
    for name, kind in KINDS.items():
        quantize = Quantization.named("int8") if name == "int8" else None
        model = load_model(path, device="cpu", dtype=torch.float32, quantize=quantize)
        passes = CpuPasses(model, kind, n_threads)
        model._compiled = passes
        made.append(
            Candidate(
                name=f"compiled, {name}",
                n_threads=n_threads,
                model=model,
                n_bytes=passes.passes.packed.n_bytes,
            )
        )
    return made


def measure(path: Path, threads: list[int], n_rounds: int, peer: Peer | None) -> dict[str, Any]:
    """Time everything in turns; give the report."""
    made = [candidate for n in threads for candidate in candidates(path, n)]
    tasks = [(candidate, candidate.tasks()) for candidate in made]
    seconds: dict[tuple[str, int, str], list[float]] = defaultdict(list)
    bandwidths: dict[tuple[int, int], list[float]] = defaultdict(list)
    speeds: dict[tuple[str, int, str], list[float]] = defaultdict(list)
    for _ in range(n_rounds):
        for candidate, of_candidate in tasks:
            # Torch's threads spin for a while behind each of its operations: not beside ours.
            is_compiled = candidate.name != TORCH
            torch.set_num_threads(1 if is_compiled else candidate.n_threads)
            footprint = (candidate.n_bytes, candidate.n_threads)
            for task, (run, n_tokens) in of_candidate.items():
                key = (candidate.name, candidate.n_threads, task)
                seconds[key].append(best_s(run) / (n_tokens if task == "decode" else 1))
                if task == "decode":
                    # At once: what disturbs one is likely to disturb the other.
                    bandwidths[footprint].append(read_bandwidth(*footprint))
        if peer is not None:
            for name, n_threads, task, rates in peer.speeds(threads):
                speeds[name, n_threads, task].extend(rates)
    rows = []
    for candidate in made:
        taken = {task: seconds[candidate.name, candidate.n_threads, task] for task in tasks[0][1]}
        found = bandwidths[candidate.n_bytes, candidate.n_threads]
        paired = [
            taken_s * rate / candidate.n_bytes
            for taken_s, rate in zip(taken["decode"], found, strict=True)
        ]
        bandwidth = max(found)
        floor_s = candidate.n_bytes / bandwidth
        rows.append(
            {
                "name": candidate.name,
                "threads": candidate.n_threads,
                "bytes": candidate.n_bytes,
                "bandwidth_bytes_s": bandwidth,
                "floor_us": 1e6 * floor_s,
                "decode_us": _both(1e6 * s for s in taken["decode"]),
                # Of the best round of each; and the median of all rounds.
                "over_floor": min(taken["decode"]) / floor_s,
                "over_floor_median": statistics.median(paired),
                "decode_tokens_s": 1 / min(taken["decode"]),
                "pass_us": {
                    str(n): _both(1e6 * s for s in taken[f"pass_{n}"]) for n in PASS_TOKENS
                },
                "prefill_tokens_s": PREFILL_TOKENS / min(taken["prefill"]),
                "prefill_tokens_s_median": PREFILL_TOKENS / statistics.median(taken["prefill"]),
            }
        )
    parameters = sum(p.numel() for p in made[0].model.parameters())
    report: dict[str, Any] = {
        "parameters": parameters,
        "machine": machine(with_model=True),
        "rounds": n_rounds,
        "torch": torch.__version__,
        "numba": version("numba"),
        "flops": {str(n): product_flops(n) for n in threads},
        "rows": rows,
    }
    if peer is not None:
        report["llama_cpp"] = [
            {
                "name": name,
                "threads": n_threads,
                "task": task,
                "tokens_s": {"best": max(rates), "median": statistics.median(rates)},
            }
            for (name, n_threads, task), rates in sorted(speeds.items())
        ]
    return report


@dataclass(frozen=True, kw_only=True)
class Peer:
    """llama.cpp's own benchmark: its command, and GGUF files of the same weights."""

    command: list[str]
    files: list[str]

    def speeds(self, threads: list[int]) -> list[tuple[str, int, str, list[float]]]:
        """Run it once on each file; give name, threads, task and tokens a second of each try."""
        found = []
        for file in self.files:
            options = {"-m": file, "-p": LLAMA_PREFILL, "-n": LLAMA_DECODE, "-r": 2, "-o": "jsonl"}
            for n_threads in threads:
                given = [
                    str(part) for item in {**options, "-t": n_threads}.items() for part in item
                ]
                done = subprocess.run(
                    [*self.command, *given], capture_output=True, text=True, check=True, timeout=120
                )
                for line in done.stdout.splitlines():
                    if line.startswith("{"):
                        row = json.loads(line)
                        task = "prefill" if row["n_prompt"] else "decode"
                        found.append((Path(file).stem, n_threads, task, row["samples_ts"]))
        return found


def best_s(run: Callable[[], object], least_s: float = 0.04) -> float:
    """Give the shortest of some runs: 40 milliseconds of them, two at least, and one before."""
    taken: list[float] = []
    with torch.inference_mode():
        # Another model's weights are in the cache.
        run()
        while len(taken) < 2 or sum(taken) < least_s:
            started = time.perf_counter()
            run()
            taken.append(time.perf_counter() - started)
    return min(taken)


def _both(values: Any) -> dict[str, float]:
    listed = list(values)
    return {"best": min(listed), "median": statistics.median(listed)}


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write the report here, and a picture."
)
@click.option("--model", default=None, help="Model to measure; the embedded one if left out.")
@click.option("--threads", default="1,2", show_default=True, help="Numbers of threads.")
@click.option("--rounds", "n_rounds", default=10, show_default=True)
@click.option("--llama-bench", default=None, help="The command that runs llama-bench.")
@click.option("--gguf", multiple=True, help="The same weights for it; may be given several times.")
def main(
    out: Path | None,
    model: str | None,
    threads: str,
    n_rounds: int,
    llama_bench: str | None,
    gguf: tuple[str, ...],
) -> None:
    """Measure short passes on this CPU."""
    numbers = [int(part) for part in threads.split(",")]
    peer = None
    if llama_bench is not None:
        peer = Peer(command=shlex.split(llama_bench), files=list(gguf))
    tested = machine(with_model=True)
    # As the engine's thread does.
    torch.set_flush_denormal(True)
    report = measure(resolve_model(model), numbers, n_rounds, peer)
    report["machine"] = tested
    if out is not None:
        out.write_text(json.dumps(rounded(report), indent=1) + "\n", encoding="utf-8")
        out.with_suffix(".svg").write_text(picture(report), encoding="utf-8")
    console = Console()
    for table in tables(report):
        console.print(table)


def rounded(value: Any) -> Any:
    """Give a report with numbers of four digits."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    if isinstance(value, float):
        return round(value, max(0, 3 - math.floor(math.log10(abs(value))))) if value else 0.0
    return value


if __name__ == "__main__":
    main()
