"""What answers took, stage by stage: nothing is left out, and nothing counted twice."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import lsp_server.server
from lsp_server.answers import KEPT, Answers
from tests.lsp_server.server_bench import suggestion

if TYPE_CHECKING:
    from tests.lsp_server.server_bench import Bench


def answer(request_id: int) -> dict[str, Any]:
    return {"id": request_id, "timings_ms": {"total": 1.0}}


def test_the_writing_is_added_to_the_answer_it_is_of() -> None:
    answers = Answers()
    answers.sent(1, 9.0, 9.5)
    answers.add(answer(1), made_s=10.0)
    answers.sent(1, 10.25, 11.0)
    # Another request's, such as the one that asks for this.
    answers.sent(2, 12.0, 13.0)
    assert answers.take() == [
        {"id": 1, "timings_ms": {"total": 1.0, "reply": 250.0, "serialize": 750.0}}
    ]
    assert answers.take() == []


def test_no_more_are_kept_than_anyone_asks_for() -> None:
    answers = Answers()
    for n in range(KEPT + 3):
        answers.add(answer(n), made_s=0.0)
    assert [one["id"] for one in answers.take()] == list(range(3, KEPT + 3))


@pytest.mark.asyncio
async def test_reading_ahead_is_told_from_receiving(
    ready_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = ready_bench
    # What the change sets off takes three seconds of this clock, one after the other.
    clock_s = iter(range(1000, 2000, 3))
    monkeypatch.setattr(lsp_server.server, "time", SimpleNamespace(monotonic=clock_s.__next__))
    bench.insert("x", 1)
    await bench.settle()
    assert bench.suggester.prepared
    read_ahead_ms = bench.server.read_ahead_ms
    assert read_ahead_ms(0.0, 5000.0) == 3000.0
    assert read_ahead_ms(1001.0, 5000.0) == 2000.0
    assert read_ahead_ms(0.0, 1001.0) == 1000.0
    assert read_ahead_ms(0.0, 1000.0) == read_ahead_ms(1003.0, 5000.0) == 0.0


@pytest.mark.asyncio
async def test_the_stages_sum_to_the_total(
    ready_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = ready_bench
    looked_at: list[tuple[float, float]] = []

    def half(start_s: float, end_s: float) -> float:
        looked_at.append((start_s, end_s))
        return 1e3 * (end_s - start_s) / 2

    monkeypatch.setattr(bench.server, "read_ahead_ms", half)
    before_s = time.monotonic()
    bench.complete()
    await bench.settle()
    bench.suggester.answers[0].set_result(suggestion("total"))
    await bench.settle()
    (noted,) = bench.server.answers.take()
    stages = noted["timings_ms"]
    # The suggester says that all of it took a millisecond.
    assert stages["receive"] + stages["read_ahead"] + 1.0 == pytest.approx(stages["total"])
    assert stages["receive"] == pytest.approx(stages["read_ahead"])
    assert {"reply", "serialize"} < set(stages)
    ((start_s, end_s),) = looked_at
    assert before_s <= start_s
    assert 1e3 * (end_s - start_s) == pytest.approx(stages["total"] - 1.0)
