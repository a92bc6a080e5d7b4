"""The report's own parts on a tiny model: that its figures mean what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine.tokenizer import Tokenizer
from perf import state_report
from perf.state_report import AppendOnlyEngine, Bench, answer, edits_behind, small_budget
from perf.state_report import source_lines as lines_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.mamba2 import Mamba2


@pytest.fixture
def bench(tiny_model: Callable[..., Mamba2]) -> Bench:
    bench = Bench.__new__(Bench)
    bench.tokenizer = Tokenizer.load(state_report.ROOT / "engine" / "embedded")
    bench.model = tiny_model(vocab_size=bench.tokenizer.n_vocab)
    return bench


def test_going_back_costs_at_most_twice_the_way(bench: Bench) -> None:
    for row in edits_behind(bench):
        assert 0 < row["recomputed"] <= row["bound"], row


def test_a_small_budget_is_held_and_used(bench: Bench) -> None:
    report = small_budget(bench)
    assert 0 < report["most_bytes"] <= report["budget_bytes"]
    counters = report["counters"]
    assert (
        counters["answers_limit"] + counters.get("answers_line", 0) + counters.get("answers_eos", 0)
        == 80
    )
    assert counters["cache_spilled"] > 0
    assert counters["cache_misses"] > 40


def test_a_cache_that_only_appends_reads_again_what_is_behind_the_end(bench: Bench) -> None:
    text = lines_of(60)
    changed = text[:-400] + "x" + text[-400:]
    read = {}
    for name, engine in (
        ("this", bench.this()),
        ("append", AppendOnlyEngine(bench.model, bench.tokenizer)),
    ):
        answer(engine, text)
        typed = answer(engine, text + "value")
        assert typed.n_recomputed <= 2, "typing at the end is cheap in both"
        read[name] = answer(engine, changed).n_recomputed
    assert read["this"] < read["append"] / 2
