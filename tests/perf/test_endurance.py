"""An hour of typing in figures: growth, drift and errors are told from what is none."""

from __future__ import annotations

import json
import math
import random
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from perf import endurance
from perf.endurance_figures import growth, last_to_first, latency_blocks, plays_of
from perf.profile import SHIPPED
from perf.profile_sample import Run, Sample
from perf.trace_format import Session, read_session

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from perf.profile_run import Plan

MIB = 2**20


@pytest.fixture(scope="module")
def shipped() -> list[Session]:
    return [read_session(SHIPPED / f"{name}.jsonl") for name in ("short", "two_files")]


def test_rounds_last_as_long_as_asked_and_open_each_folder_twice(shipped: list[Session]) -> None:
    both_ms = sum(list(endurance._times_ms(session))[-1] for session in shipped)
    found = endurance.rounds(shipped, 3 * both_ms / 60e3, "round", 1.0)
    assert [session.name for session in found] == [
        f"round/{round_}/{name}"
        for round_ in ("000/0", "000/1", "001/0")
        for name in ("short", "two_files")
    ]
    first, *_, last = found
    assert last.steps[0].path.startswith("round/001/")
    assert first.events == shipped[0].events
    quick = endurance.rounds(shipped, both_ms / 60e3 / 4, "warm-up", 4.0)
    assert len(quick) == 2
    assert quick[0].events[-1].t_ms == round(shipped[0].events[-1].t_ms / 4)


def test_growth_is_from_the_second_tenth_to_the_last() -> None:
    # What the first tenth and single looks show is no growth.
    flat = [(float(n), MIB * (50 if n < 100 else 99 if n == 150 else 100)) for n in range(1000)]
    assert growth(flat) == {
        "second_tenth_bytes": 100 * MIB,
        "last_tenth_bytes": 100 * MIB,
        "max_bytes": 100 * MIB,
        "growth": 0.0,
    }
    leaking = [(at_s, n_bytes + int(at_s) * MIB // 500) for at_s, n_bytes in flat]
    assert growth(leaking)["growth"] == pytest.approx(0.016, abs=0.002)


def blocks(dice: random.Random, ratio: float) -> list[tuple[float, list[float]]]:
    """Sixty blocks whose values reach this ratio at the end; each block has a noise of its own."""
    found = []
    for n in range(60):
        drift, noise = math.log(ratio) * n / 60, dice.gauss(0, 0.05)
        found.append((float(n), [drift + noise + dice.gauss(0, 0.3) for _ in range(40)]))
    return found


@pytest.mark.parametrize(("ratio", "is_noise"), [(1.0, True), (1.3, False), (0.75, False)])
def test_drift_is_told_from_noise(ratio: float, is_noise: bool) -> None:
    found = last_to_first(blocks(random.Random(3), ratio))
    assert found is not None
    # Two thirds of the time lie between the middles of the first and the last third.
    assert found.ratio == pytest.approx(ratio ** (2 / 3), abs=0.05)
    assert found.low < found.ratio < found.high
    assert found.is_noise == is_noise


def test_a_block_that_was_slow_as_a_whole_widens_the_interval() -> None:
    even = blocks(random.Random(3), 1.0)
    uneven = [(at_s, [log + (at_s % 2) for log in logs]) for at_s, logs in even]
    narrow, wide = last_to_first(even), last_to_first(uneven)
    assert narrow is not None
    assert wide is not None
    assert wide.high / wide.low > 1.5 * narrow.high / narrow.low
    assert last_to_first(even[:5]) is None


def replayed(sessions: list[Session], *, leak: float = 0.0, slowing: float = 0.0) -> Run:
    """What a replay would have given: a second a key, and a session's own latency."""
    run = Run(command="serve", speed="recorded")
    at_s, dice = 0.0, random.Random(1)
    for session in sessions:
        for event in session.events[:20]:
            slow = 30.0 if session.name.endswith("two_files") else 10.0
            sample = Sample(
                trace=session.name,
                kind=event.kind,
                n_chars=event.t_ms,
                start_ms=1e3 * at_s,
                outcome="items",
                latency_ms=slow * (1 + slowing * at_s) * dice.uniform(0.9, 1.1),
                suggested_chars=1,
            )
            run.samples.append(sample)
            run.memory.append((at_s, round(MIB * 800 * (1 + leak * at_s))))
            run.processor.append((at_s, 0.2 * at_s))
            at_s += 1.0
    run.seconds = at_s
    return run


def test_sessions_of_other_lengths_are_no_drift(shipped: list[Session]) -> None:
    # The slower session is played at the end alone, twice.
    names = [(n, session) for n in range(9) for session in shipped]
    names += [(n, shipped[1]) for n in range(9, 11)]
    moved = [endurance._moved(session, f"round/{n:03}", 0, 1.0) for n, session in names]
    plays = plays_of(replayed(moved), endurance.name_without_number)
    assert len(plays) == 20
    assert {play.name for play in plays} == {"short 0", "two_files 0"}
    assert [play.end_s - play.start_s for play in plays] == [20.0] * 20
    found = last_to_first(latency_blocks(plays))
    assert found is not None
    assert found.ratio == pytest.approx(1.0, abs=0.03)


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[int, str, dict[str, Any]]]:
    """Runs the command on replays that are given, and no server."""

    def run(**faults: Any) -> tuple[int, str, dict[str, Any]]:
        problem = faults.pop("problem", None)

        def profile(plan: Plan, **_: Any) -> Coroutine[Any, Any, Run]:
            async def done() -> Run:
                replay = replayed(list(plan.sessions), **faults)
                if problem is not None:
                    replay.samples[-1].outcome, replay.samples[-1].problem = "error", problem
                return replay

            return done()

        monkeypatch.setattr(endurance, "profile", profile)
        out = tmp_path / "endurance"
        options = ("--minutes", "30", "--warm-up-minutes", "1", "--out", str(out))
        result = CliRunner().invoke(endurance.main, options)
        report = json.loads(out.with_suffix(".json").read_text())
        assert out.with_suffix(".svg").read_text().startswith("<svg")
        return result.exit_code, result.output, report

    return run


def test_an_hour_in_which_nothing_happens_is_well(
    command: Callable[..., tuple[int, str, dict[str, Any]]],
) -> None:
    code, said, report = command()
    assert code == 0
    assert report["errors"] == 0
    assert report["memory"]["growth"] == 0
    assert report["drift"]["latency"]["is_noise"]
    # The warm-up does not count.
    assert report["requests"] < len(replayed(warmed_up()).samples) * 30
    assert report["documents"] > report["sessions"]
    assert "+0.00%" in said


def warmed_up() -> list[Session]:
    shipped = [read_session(path) for path in sorted(SHIPPED.glob("*.jsonl"))]
    return endurance.rounds(shipped, 1.0, endurance.WARM_UP, endurance.WARM_UP_FACTOR)


@pytest.mark.parametrize(
    ("faults", "complaint"),
    [({"leak": 2e-5}, "memory grew"), ({"problem": "not today"}, "1 requests failed")],
    ids=["leak", "error"],
)
def test_growth_and_errors_fail(
    command: Callable[..., tuple[int, str, dict[str, Any]]],
    faults: dict[str, Any],
    complaint: str,
) -> None:
    code, said, _ = command(**faults)
    assert code == 1
    assert complaint in said


def test_slowing_down_is_said(command: Callable[..., tuple[int, str, dict[str, Any]]]) -> None:
    code, said, report = command(slowing=2e-3)
    assert code == 0
    assert report["drift"]["latency"]["low"] > 1
    assert "more than noise" in said


def test_growing_faster_is_no_slowing_down(
    command: Callable[..., tuple[int, str, dict[str, Any]]],
) -> None:
    code, said, report = command(slowing=-2e-4)
    assert code == 0
    assert report["drift"]["latency"]["high"] < 1
    assert "less than at first" in said
