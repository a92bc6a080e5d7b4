"""People who type at one engine: what they do, and what is said of how they were served."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from perf.keyboard import BETWEEN_KEYS_MS
from perf.load import Load, host_pid, main, private_host, write_report
from perf.load_figures import fairness, figures, holds, picture, table
from perf.process_usage import PROC
from perf.profile_sample import Run, Sample
from perf.trace_format import Done, Opened
from perf.typists import N_DOCUMENTS, typist

if TYPE_CHECKING:
    from perf.trace_format import Session

LIMIT_S = 50.0


def test_a_typist_goes_to_and_fro_between_five_documents() -> None:
    session = typist(3, 60.0)
    opened = [step.path for step in session.steps if isinstance(step, Opened)]
    visits = [step.path for step in session.steps if isinstance(step, Done)]
    changes = sum(a != b for a, b in pairwise(visits))
    assert len(set(opened)) == len(opened) == N_DOCUMENTS
    assert changes > 2 * N_DOCUMENTS
    assert session == typist(3, 60.0)
    # Nobody else's files or texts.
    others = {step.path for step in typist(4, 60.0).steps}
    assert others.isdisjoint(opened)
    assert session.events[-1].t_ms <= 60e3


def test_typists_type_at_the_published_speed() -> None:
    gaps_ms = []
    for number in range(24):
        steps = [step for step in typist(number, 120.0).steps if isinstance(step, Done)]
        gaps_ms += [
            after.event.t_ms - before.event.t_ms
            for before, after in pairwise(steps)
            if after.path == before.path and after.event.kind == before.event.kind == "type"
        ]
    mean, sd = BETWEEN_KEYS_MS
    assert statistics.median(gaps_ms) == pytest.approx(mean, abs=sd / 2)


def run_of(*latencies_ms: float | None) -> Run:
    """A person's requests; None is one that was superseded."""
    run = Run(command="serve", speed="recorded")
    for ms in latencies_ms:
        sample = Sample(trace="a", kind="type", n_chars=9, start_ms=0.0, latency_ms=ms or 0.0)
        sample.outcome = "cancelled" if ms is None else "items"
        sample.change_ms = None if ms is None else ms + 1
        sample.stages_ms = {} if ms is None else {"queue": 1.0}
        run.samples.append(sample)
    return run


def test_who_waits_longest_and_who_is_answered_less() -> None:
    alike = fairness([run_of(10, 20, 30), run_of(19, 20, 21)])
    assert alike == {"worst_to_best": 1.0, "jain": 1.0}
    unlike = fairness([run_of(10, 20, 30), run_of(60, None, None)])
    assert unlike["worst_to_best"] == 3.0
    # Shares of 1 and 1/3.
    assert unlike["jain"] == pytest.approx((4 / 3) ** 2 / (2 * (1 + 1 / 9)))
    # Somebody who got nothing at all has no median, and shows in the index.
    assert fairness([run_of(10), run_of(None)])["jain"] == 0.5


def level(n_typists: int, ms: float) -> dict[str, Any]:
    runs = [run_of(*[ms] * 9, None) for _ in range(n_typists)]
    return figures(runs, seconds=10.0, cpu_s=5.0, rss_bytes=3 * 2**20, host_rss_bytes=2**20)


def test_figures_are_of_what_was_answered() -> None:
    found = level(2, 40.0)
    assert (found["typists"], found["requests"], found["answered"]) == (2, 20, 18)
    assert found["superseded"] == 2
    assert found["processor"] == 0.5
    # From the change on.
    assert found["latency_ms"] == dict.fromkeys(("p50", "p95", "p99", "mean", "max"), 41.0)


def test_what_holds_is_all_up_to_the_first_that_does_not() -> None:
    levels = [level(n, ms) for n, ms in ((1, 20.0), (2, 50.0), (4, 130.0), (8, 90.0))]
    assert holds(levels, 100.0) == 2
    assert holds(levels, 10.0) == 0
    report = {
        "machine": "m",
        "date": "2026-01-01T00:00",
        "threads": 1,
        "bound_ms": 100.0,
        "holds": 2,
        "levels": levels,
    }
    rows = [line for line in table(report).splitlines() if line.startswith("|")]
    assert [row.count("|") for row in rows] == [rows[0].count("|")] * 6
    assert "percentile: 2 typists." in table(report)
    assert picture(report).count("<circle") == 3 * len(levels)


def test_a_level_within_the_bound_may_not_be_the_last_that_is() -> None:
    report: dict[str, Any] = {
        "machine": "m",
        "date": "2026-01-01T00:00",
        "threads": 1,
        "bound_ms": 100.0,
        "holds": 2,
        "levels": [level(1, 20.0), level(2, 50.0)],
    }
    assert "percentile: 2 typists; no more were tried." in table(report)


class CutOff:
    """Stands for `Load`: measures one level, and is cut off in the next by what is given."""

    cut: BaseException

    def __init__(self, *_: object) -> None:
        self.is_second = False

    async def measure(self, sessions: list[Session]) -> dict[str, Any]:
        if self.is_second:
            raise self.cut
        self.is_second = True
        return level(len(sessions), 20.0)


@pytest.mark.parametrize("cut", [TimeoutError(), KeyboardInterrupt()], ids=["failed", "interrupt"])
def test_a_run_that_is_cut_off_leaves_what_it_had_found(
    cut: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perf.load.Load", CutOff)
    monkeypatch.setattr(CutOff, "cut", cut, raising=False)
    out = tmp_path / "load"
    command = ["--typists", "1", "--typists", "2", "--seconds", "1", "--out", str(out)]
    assert CliRunner().invoke(main, command).exit_code == 1
    report = json.loads(out.with_suffix(".json").read_text())
    assert [found["typists"] for found in report["levels"]] == [1]
    assert report["holds"] == 1
    assert "1 typists; no more were tried." in out.with_suffix(".md").read_text()
    assert out.with_suffix(".svg").read_text().endswith("</svg>\n")


def test_a_report_that_is_cut_off_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_half(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise KeyboardInterrupt

    out = tmp_path / "load"
    found = [level(1, 20.0), level(2, 50.0)]
    write_report(found[:1], threads=1, bound_ms=100.0, out=out)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_half)
        with pytest.raises(KeyboardInterrupt):
            write_report(found, threads=1, bound_ms=100.0, out=out)
    assert json.loads(out.with_suffix(".json").read_text())["holds"] == 1
    write_report(found, threads=1, bound_ms=100.0, out=out)
    assert json.loads(out.with_suffix(".json").read_text())["holds"] == 2
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".md", ".svg"}


@pytest.mark.slow
@pytest.mark.skipif(not (PROC / "self").exists(), reason="reads /proc")
@pytest.mark.skipif(sys.platform == "win32", reason="goes by Unix sockets")
def test_windows_type_at_one_host() -> None:
    async def measured() -> tuple[dict[str, Any], set[int]]:
        async with AsyncExitStack() as stack:
            load = Load(root, 1, stack)
            pids = set()
            for numbers in ((0,), (1, 2)):
                found = await load.measure([typist(n, 3.0) for n in numbers])
                pids.add(host_pid())
            await load.close()
        return found, pids

    with private_host() as root:
        found, pids = asyncio.run(asyncio.wait_for(measured(), LIMIT_S))
    assert len(pids) == 1
    assert found["typists"] == 2
    assert found["errors"] == 0
    assert found["answered"]
    assert found["rss_bytes"] > found["host_rss_bytes"] > 100 * 2**20
