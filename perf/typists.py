"""People who write code at the same time, each in files of their own that they go to and fro in.

The files are this project's, with some of what they hold taken out again; what is typed is that.
How fast keys come is in `keyboard.py`.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from lsp_server.syntax import language_id_of
from perf.shipped_traces import in_turns
from perf.source_files import read_sources
from perf.trace_format import Opened, Session
from perf.typing_model import type_changes
from perf.unwriting import n_filled_lines, unwritten

if TYPE_CHECKING:
    from perf.source_files import SourceFile
    from perf.trace_format import Trace

ROOT = Path(__file__).parents[1]
PACKAGES = ("kernels", "engine", "lsp_server", "perf")
N_DOCUMENTS = 5
# Of a file, what is worth opening.
MIN_LINES = 60
# In each file, and before another one is gone to.
MIN_EVENTS, MAX_EVENTS = 60, 120
EVENTS_IN_A_ROW = 8


def typist(number: int, seconds: float) -> Session:
    """One person's session: five documents in turns, for so long.

    The same for the same number; another number types other text, in other files.
    """
    files = sources()
    dice = random.Random(f"typist {number}")
    traces: list[Trace] = []
    while len(traces) < N_DOCUMENTS:
        file = files[(number * N_DOCUMENTS + len(traces)) % len(files)]
        traces.append(_typed(file, dice, f"{number}/{file.path}"))
    steps = tuple(
        step
        for step in in_turns(traces, EVENTS_IN_A_ROW)
        if (step.t_ms if isinstance(step, Opened) else step.event.t_ms) <= 1e3 * seconds
    )
    return Session(name=f"typist {number}", steps=steps)


@cache
def sources() -> tuple[SourceFile, ...]:
    """The files to choose from, in an order that mixes the packages."""
    found = [
        replace(file, path=f"{package}/{file.path}")
        for package in PACKAGES
        for file in read_sources(ROOT / package)
        if file.path.endswith(".py") and n_filled_lines(file.text) >= MIN_LINES
    ]
    random.Random(0).shuffle(found)
    return tuple(found)


def _typed(file: SourceFile, dice: random.Random, path: str) -> Trace:
    """What is missing of a file, typed by somebody."""
    while True:
        trace = type_changes(
            unwritten(file.text, dice),
            file.text,
            dice,
            path=path,
            language_id=language_id_of(file.path),
            max_events=MAX_EVENTS,
        )
        if len(trace.events) >= MIN_EVENTS:
            return trace
