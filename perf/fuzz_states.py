"""Edits at random for long, and holds every answer to what it promises.

`python -m perf.fuzz_states --steps 50000 --seed 1 --out FILE` runs the machine of
`perf/editing_machine.py` in every world and with every budget in turn, each time with the next
seed. The figures so far are always in FILE. It ends with 1 at the first wrong answer, which is
written there too; the same seeds find it again.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
import traceback
from collections import Counter
from importlib.metadata import version
from itertools import count, cycle, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import torch
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from rich.console import Console
from rich.progress import Progress

from perf.editing_machine import machine
from perf.machine import processor
from perf.tiny_world import memory_of, suffix_and_prefix_first, suffix_first
from perf.watched_engine import BUDGETS, Tally

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perf.tiny_world import World
    from perf.watched_engine import Budget

LIBRARIES = ("torch", "numpy", "hypothesis", "sentencepiece")
# Tokens after which a model must still remember others, and the logits that shows in.
MEMORY_TOKENS, MIN_MEMORY = 200, 0.1
SETTINGS = settings(
    max_examples=4,
    stateful_step_count=50,
    deadline=None,
    database=None,
    # Where an example fails, it is shown as it is: shrinking takes minutes.
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
)


def both_worlds() -> tuple[World, ...]:
    """Make a world of each family; they need no files afterwards."""
    worlds = []
    for make in (suffix_and_prefix_first, suffix_first):
        with tempfile.TemporaryDirectory() as folder:
            worlds.append(make(Path(folder)))
    return tuple(worlds)


def fuzz(worlds: tuple[World, ...], first_seed: int, tally: Tally) -> Iterator[int]:
    """Run seed after seed for ever; yield each when its examples have passed.

    Raises what the machine raises at a wrong answer.
    """
    sweep: cycle[tuple[Budget, World]] = cycle(product(BUDGETS, worlds))
    for n, (budget, world) in zip(count(first_seed), sweep, strict=False):
        run_state_machine_as_test(seed(n)(machine(world, budget, tally)), settings=SETTINGS)
        yield n


def figures(tally: Tally, seeds: list[int], worlds: tuple[World, ...]) -> dict[str, Any]:
    """What is recorded of a run."""
    return {
        **{name: dict(n) if isinstance(n, Counter) else n for name, n in vars(tally).items()},
        "n_answers": tally.n_answers,
        "ties_per_1000_tokens": 1000 * tally.n_ties / max(1, tally.n_tokens),
        # Each with its world and budget in turn.
        "first_seed": min(seeds, default=None),
        "last_seed": max(seeds, default=None),
        "memory": {world.name: memory_of(world.model, MEMORY_TOKENS) for world in worlds},
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in LIBRARIES},
        },
        "machine": f"{processor(with_model=False)}, 1 thread",
    }


@click.command()
@click.option("--steps", default=50_000, show_default=True, help="Steps of editing to take.")
@click.option("--seed", "first_seed", default=1, show_default=True, help="The first seed.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Write figures here.")
@click.option("--compile/--no-compile", "compiled", default=True, help="Passes as the server's.")
def main(steps: int, first_seed: int, out: Path, compiled: bool) -> None:
    """Edit at random and check every answer."""
    torch.set_num_threads(1)
    os.nice(10)
    worlds = both_worlds()
    for world in worlds:
        if memory_of(world.model, MEMORY_TOKENS) < MIN_MEMORY:
            raise click.ClickException(f"{world.name} forgets: a lost state would go unseen")
        if compiled:
            world.model.compile_passes()
    tally, error = Tally(), ""
    seeds: list[int] = []
    started_s = time.monotonic()

    def write() -> None:
        record = figures(tally, seeds, worlds) | {
            "is_whole": tally.n_steps >= steps,
            "seconds": round(time.monotonic() - started_s),
            "compiled": compiled,
            "failed_seed": first_seed + len(seeds) if error else None,
            "error": error,
        }
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")

    console = Console(stderr=True)
    with Progress(console=console) as progress:
        task = progress.add_task("steps", total=steps)
        try:
            for n in fuzz(worlds, first_seed, tally):
                seeds.append(n)
                write()
                progress.update(task, completed=tally.n_steps)
                if tally.n_steps >= steps:
                    break
        except Exception:
            error = traceback.format_exc()
            write()
            console.print(f"after seed {max(seeds, default=None)}:")
            console.print(error, markup=False, highlight=False)
            sys.exit(1)
    console.print(f"{tally.n_steps} steps, {tally.n_answers} answers, none wrong: {out}")


if __name__ == "__main__":
    main()
