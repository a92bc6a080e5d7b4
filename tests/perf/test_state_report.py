"""The report's own parts on a tiny model: that its figures mean what they say."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from engine.tokenizer import Tokenizer
from perf import state_report
from perf.cache_bench import Bench
from perf.percentiles import percentiles
from perf.replay_summary import compare
from perf.state_report import answer, edits_behind, small_budget
from perf.state_report import source_lines as lines_of
from perf.state_tables import markdown
from perf.trace_format import read_trace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from engine.mamba2 import Mamba2
    from perf.trace_format import Trace

SAMPLES = state_report.ROOT / "perf" / "samples"
REPLAYED_COLUMNS = (
    *("n_prompt", "n_recomputed", "n_background", "n_passes", "n_healing_passes", "engine_ms"),
)


@pytest.fixture
def bench(tiny_model: Callable[..., Mamba2]) -> Bench:
    tokenizer = Tokenizer.load(state_report.ROOT / "engine" / "embedded")
    return Bench(model=tiny_model(vocab_size=tokenizer.n_vocab), tokenizer=tokenizer)


def test_going_back_costs_at_most_twice_the_way(bench: Bench) -> None:
    for row in edits_behind(bench):
        assert 0 < row["recomputed"] <= row["bound"], row


def test_a_small_budget_is_held_and_used(bench: Bench) -> None:
    report = small_budget(bench)
    assert 0 < report["most_bytes"] <= report["budget_bytes"]
    counters = report["counters"]
    # Three edits a document; before it was left for the next one, two more but for the first.
    assert report["answers"] == sum(report["sources"].values()) == 2 * (3 * 40 + 2 * 39)
    assert "answers_error" not in counters
    assert counters["cache_spilled"] > counters["cache_evicted"] > 0
    # Each is read anew when its turn comes, and found again while it is edited.
    assert report["sources"]["none"] == counters["cache_misses"] >= 80
    assert report["sources"]["tier0"] == counters["cache_hits_tier0"] >= 160
    assert report["sources"]["tier1"] == counters["cache_hits_tier1"] > 0
    # A trail would be a state and more.
    assert counters["trail_hits"] == counters["trail_bytes"] == 0


def test_what_a_trail_answers_is_a_hit_of_its_own(bench: Bench) -> None:
    engine = bench.this()
    text = lines_of(20)
    answer(engine, text)
    assert engine.counters()["trail_hits"] == 0
    assert answer(engine, text + "value = 1\n").source == "trail"
    counters = engine.counters()
    assert counters["trail_hits"] == counters["cache_misses"] == 1
    assert "cache_hits_tier0" not in counters


@pytest.fixture(scope="module")
def traces() -> list[tuple[Trace, ...]]:
    return state_report.unsteady(1, 40)


def test_caches_differ_in_cost_and_in_nothing_else(
    bench: Bench, traces: list[tuple[Trace, ...]]
) -> None:
    figures = compare(
        traces, bench.caches, settings=state_report.SETTINGS, pace=state_report.EXPLICIT
    )
    for found in figures.values():
        assert found["answers"] == 40
        assert found["different_prompts"] == found["different_answers"] == 0
    this, append_only, none = (found["tokens"]["recomputed"] for found in figures.values())
    assert this < append_only < none == figures["none"]["tokens"]["prompt"]


def test_a_model_of_one_order_answers_from_trunks_without_a_bridge() -> None:
    jumps = read_trace(SAMPLES / "jumps.jsonl")
    figures = state_report.one_order([(replace(jumps, events=jumps.events[:12]),)])
    assert set(figures["this cache"]["by_prompt_kind"]) == {"epoch", "trunk"}
    assert figures["append only"]["different_answers"] == 0


def test_sittings_are_half_of_the_history_and_equally_long() -> None:
    found = state_report.sat_through(4, 30)
    assert [sum(len(trace.events) for trace in sitting) for sitting in found] == [30] * 4
    present = set((state_report.ROOT / "lsp_server").rglob("*"))
    for sitting in found[2:]:
        assert all(state_report.ROOT / "lsp_server" / trace.path in present for trace in sitting)


def test_an_interrupted_run_is_resumed_where_all_else_is_equal(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_read = 0
    fails = True

    def summed(_: object) -> dict[str, int]:
        nonlocal n_read
        n_read += 1
        return {"n": n_read}

    def failing(*_: object, **__: object) -> dict[str, int]:
        if fails:
            raise RuntimeError("out of power")
        return {}

    monkeypatch.setattr(Bench, "load", lambda _: bench)
    monkeypatch.setattr(state_report, "summary", summed)
    for name in ("by_length", "edits_behind", "small_budget", "one_order", "compare"):
        monkeypatch.setattr(state_report, name, failing)
    monkeypatch.setattr(state_report, "markdown", lambda report: json.dumps(report["ahead"]))
    out = tmp_path / "states.json"
    options = [str(out), "--traces=2", "--events=3", "--compared=1", "--compared-events=3"]
    runner = CliRunner()

    assert "out of power" in str(runner.invoke(state_report.main, options).exception)
    assert json.loads(out.read_text())["on_demand"] == {"n": 2}
    fails = False
    resumed = runner.invoke(state_report.main, [*options, "--resume"])
    assert resumed.exit_code == 0
    assert n_read == 2
    assert (tmp_path / "states.md").read_text() == '{"n": 1}'
    # Of other sittings nothing is kept, nor without being asked for.
    assert runner.invoke(state_report.main, [*options, "--resume", "--events=4"]).exit_code == 0
    assert n_read == 4
    assert runner.invoke(state_report.main, [*options, "--events=4"]).exit_code == 0
    assert n_read == 6
    out.write_text('{"a":' * 99_999)
    damaged = runner.invoke(state_report.main, [*options, "--resume"])
    assert damaged.exit_code == 1
    assert "nested too deep, expected an object; without --resume" in damaged.stderr


def test_tables_have_as_many_columns_as_their_heads() -> None:
    figures = {"n": 1, **dict.fromkeys(REPLAYED_COLUMNS, percentiles([2.0]))}
    replayed = {
        **{"events": 1, "answers": 1, "sources": {"none": 1}, "stops": {"line": 1}},
        **{"tokens": {"prompt": 1, "recomputed": 1, "background": 0}, "prompt_over_all": 1.0},
        **{"by_kind": {"editing": figures}, "by_prompt_kind": {"epoch": figures}},
        **{"different_prompts": 0, "different_answers": 0},
    }
    report = {
        **dict.fromkeys(("date", "machine", "threads", "load", "torch", "model"), 1),
        **dict.fromkeys(("commit", "seconds"), 1),
        **dict.fromkeys(("ahead", "on_demand"), replayed),
        **{key: {"this": replayed} for key in ("caches", "caches_automatic", "caches_one_order")},
        "sittings": [{"events": 1, "files": ["a.py"]}],
        "by_length": [
            {
                **{"lines": 1, "prompt_tokens": 1, "recomputed_per_character": 1.0},
                **{"recomputed_max": 1, "latency_ms_p50": 1.0, "ms_per_pass": 1.0},
            }
        ],
        "edits_behind": [{"d": 1, "recomputed": 1, "bound": 10}],
        "small_budget": {"answers": 1, "most_bytes": 1, "budget_bytes": 1, "counters": {}},
    }
    tables = [block for block in markdown(report).split("\n\n") if block.startswith("|")]
    assert len(tables) == 10
    for table in tables:
        header, rule, *rows = table.strip().split("\n")
        assert rows
        assert {line.count("|") for line in (header, rule, *rows)} == {header.count("|")}


def test_a_cache_that_only_appends_reads_again_what_is_behind_the_end(bench: Bench) -> None:
    text = lines_of(60)
    changed = text[:-400] + "x" + text[-400:]
    read = {}
    for name, engine in (("this", bench.this()), ("append", bench.append_only())):
        answer(engine, text)
        typed = answer(engine, text + "value")
        assert typed.n_recomputed <= 2, "typing at the end is cheap in both"
        read[name] = answer(engine, changed).n_recomputed
    assert read["this"] < read["append"] / 2
