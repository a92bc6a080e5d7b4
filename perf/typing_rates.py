"""Steady typing through the real server, as three editors send it: nothing stale may be shown.

`python -m perf.typing_rates` types 200 characters into a sample file at 10 and at 30 a second,
with a rest after every tenth, and looks at every answer. An answer is stale if it has something
to show and comes after the text has changed again. It is told apart why:

- `unsent`: the editor had not sent the change yet;
- `crossed`: the change was on its way, and the server had made the answer before it took it;
- `late`: the server knew. That there is none is the server's promise.

Latency is over the answers that nothing newer overtook; where requests are sent at once, those
are the faster ones.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shlex
import sys
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import torch

from lsp_server.commands.options import FiniteRange
from perf.client import Client
from perf.machine import machine
from perf.percentiles import percentiles
from perf.typist import KEYS_BETWEEN_RESTS, REST_S, Asked, Editor, Typist, keys_of, type_keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SAMPLE = Path(__file__).parent / "samples" / "job_queue.py"
# The new method goes in front of this line of the sample.
BEFORE_LINE = "    def close(self) -> None:\n"
TEXT = '''\
    def waiting(self, name: str, limit: int = 10) -> list[Job]:
        """Return the jobs of this name that still wait, the oldest first."""
        rows = self.connection.execute(
            "SELECT id, name, payload, attempts, run_after FROM jobs"
'''
N_KEYS = 200
# This is nobody's typing. Whatever the model writes is shown: what is hidden cannot be stale.
OPTIONS = {"statistics": False, "minConfidence": 0}

EDITORS = (
    Editor(name="VS Code", wait_s=0.05, cancels=True),
    Editor(name="Neovim", wait_s=0.2, change_wait_s=0.15),
    # What a client without any delay does: the hardest on the server.
    Editor(name="at once", wait_s=0.0),
)


async def measure(editor: Editor, per_second: float, n_keys: int) -> dict[str, Any]:
    """Type into a server of its own; give the figures."""
    text = SAMPLE.read_text(encoding="utf-8")
    uri, line = SAMPLE.as_uri(), text[: text.index(BEFORE_LINE)].count("\n")
    async with await Client.start() as client:
        await client.initialize(options=OPTIONS)
        client.open(uri, "python", text)
        # The model is loaded and has read the file before anybody types.
        while not await _is_warm(client, uri, line):
            await asyncio.sleep(REST_S)
        typist = Typist(client, editor, uri, line)
        await type_keys(typist, keys_of(TEXT, n_keys), per_second)
        answers = await client.last_timings()
        await client.shutdown()
    return {
        "editor": asdict(editor),
        "keys_per_second": per_second,
        "keys": n_keys,
        **summary(typist.asked, answers),
    }


async def _is_warm(client: Client, uri: str, line: int) -> bool:
    """Whether the model answers here without reading anything first."""
    await client.last_timings()
    await client.ask(uri, line, 0)
    (answer,) = await client.last_timings()
    return answer["stop"] not in ("loading", "deadline")


def summary(asked: Sequence[Asked], answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Figures over requests; `answers` is what `keystate/lastTimings` says of them."""
    by_id = {answer["id"]: answer for answer in answers}
    for one in asked:
        one.answered_version = by_id.get(one.id, {}).get("version")
    current = [one for one in asked if one.superseded_s is None and one.typed_s is None]
    superseded = [one for one in asked if one.superseded_s is not None]
    stale = [one for one in asked if one.staleness]
    dropped = [one for one in superseded if one.outcome in ("null", "cancelled")]
    pass_ms = [
        answer["timings_ms"]["decode"] / answer["passes"]["model"]
        for answer in answers
        if answer.get("passes", {}).get("model") and "decode" in answer["timings_ms"]
    ]
    delays_ms = [_ms(one.superseded_s, one.answered_s) for one in dropped]
    latency = partial(_latencies, by_id)
    return {
        "requests": len(asked),
        "typed_through": sum(answer.get("prompt_kind") == "typed" for answer in answers),
        "answers_stale": {
            kind: sum(one.staleness == kind for one in stale)
            for kind in ("unsent", "crossed", "late")
        },
        "ms_to_crossed": _percentiles(
            [_ms(one.superseded_s, one.answered_s) for one in stale if one.staleness == "crossed"]
        ),
        # An editor that cancels does not show what it has cancelled.
        "stale_shown": sum(not one.is_cancelled for one in stale),
        "superseded": {
            "requests": len(superseded),
            **_outcomes(superseded),
            # Answered, with something or nothing, before the server read what is newer.
            "crossed": sum(
                one.outcome in ("items", "empty") and one.answered_version == one.version
                for one in superseded
            ),
            "ms_to_null_or_cancelled": _percentiles(delays_ms),
            "within_longest_pass": sum(ms <= max(pass_ms, default=0.0) for ms in delays_ms),
        },
        "pass_ms": _percentiles(pass_ms),
        "current": {"requests": len(current), **_outcomes(current)},
        "ms_from_last_change": {
            "all": latency(current),
            "with_items": latency([one for one in current if one.outcome == "items"]),
            "from_the_model": latency(current, typed=False),
            "typed_through": latency(current, typed=True),
        },
    }


def _latencies(
    by_id: dict[int, dict[str, Any]], asked: Iterable[Asked], typed: bool | None = None
) -> dict[str, float] | None:
    """From the last change to the answer; `typed`: only with, or without, a model's work."""
    return _percentiles(
        [
            _ms(one.changed_s, one.answered_s)
            for one in asked
            if typed is None or (by_id.get(one.id, {}).get("prompt_kind") == "typed") == typed
        ]
    )


def _ms(start_s: float | None, end_s: float | None) -> float:
    assert start_s is not None, "there was a beginning"
    assert end_s is not None, "all are answered"
    return 1e3 * (end_s - start_s)


def _percentiles(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    found = {name: round(value, 2) for name, value in percentiles(values).items()}
    return {"n": len(values), **found}


def _outcomes(asked: Iterable[Asked]) -> dict[str, int]:
    found = [one.outcome for one in asked]
    return {name: found.count(name) for name in ("items", "empty", "null", "cancelled")}


@click.command()
@click.option("--keys", default=N_KEYS, show_default=True, help="Keys to press in each run.")
@click.option(
    "--rate",
    "rates",
    type=FiniteRange(min=0.1),
    multiple=True,
    default=(10.0, 30.0),
    show_default=True,
)
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures here.")
def main(keys: int, rates: tuple[float, ...], out: Path | None) -> None:
    """Type as editors do, and report what was stale, and how fast answers came."""
    load_before = os.getloadavg()
    runs = [asyncio.run(measure(editor, rate, keys)) for rate in rates for editor in EDITORS]
    figures = {
        "command": shlex.join(["python", "-m", "perf.typing_rates", *sys.argv[1:]]),
        "machine": machine(),
        "load_average": {"before": load_before, "after": os.getloadavg()},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            **{name: version(name) for name in ("keystate", "pygls", "lsprotocol")},
        },
        "file": SAMPLE.name,
        "options": OPTIONS,
        "rest_s": REST_S,
        "keys_between_rests": KEYS_BETWEEN_RESTS,
        "runs": runs,
    }
    if out is not None:
        out.write_text(json.dumps(figures, indent=1) + "\n")
    for run in runs:
        latency = run["ms_from_last_change"]["with_items"] or {}
        click.echo(
            f"{run['editor']['name']}, {run['keys_per_second']:g} a second: "
            f"{run['requests']} requests, {run['superseded']['requests']} superseded, "
            f"{run['answers_stale']} stale, "
            f"{latency.get('p50')} ms p50, {latency.get('p95')} ms p95 from the last change"
        )
    n_late = sum(run["answers_stale"]["late"] for run in runs)
    if n_late:
        raise click.ClickException(f"{n_late} answers were stale, and the server knew")


if __name__ == "__main__":
    main()
