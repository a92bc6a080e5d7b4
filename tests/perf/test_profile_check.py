"""Work is counted the same every time, and more of it is a failure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from engine.state import RecurrentState
from engine.tokenizer import Tokenizer
from perf import profile_check
from perf.allocations import Allocations
from perf.cache_bench import Bench
from perf.profile import SHIPPED
from perf.profile_check import compared, kind_of_machine, work_counts
from perf.trace_format import read_session

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from engine.mamba2 import Mamba2, Pass

ROOT = Path(__file__).parents[2]
N_EVENTS = 8
MEMORY = {"requests": 2, "allocations": 10, "allocated_bytes": 5_000_000}


@pytest.fixture(scope="module")
def bench(tiny_model: Callable[..., Mamba2]) -> Bench:
    tokenizer = Tokenizer.load(ROOT / "engine" / "embedded")
    model = tiny_model(vocab_size=tokenizer.n_vocab, tie_embeddings=True)
    return Bench(model=model, tokenizer=tokenizer)


def test_counts_are_the_same_on_every_run_and_show_a_cache_that_is_gone(bench: Bench) -> None:
    sessions = [read_session(SHIPPED / "two_files.jsonl")]
    once, again, without = (
        work_counts(sessions, engine, max_events=N_EVENTS)
        for engine in (bench.this, bench.this, bench.none)
    )
    assert once == again
    assert once["two_files"]["requests"] > 0.8 * N_EVENTS
    assert once["two_files"]["passes"] > N_EVENTS
    assert once["two_files"]["allocations"] > once["two_files"]["passes"]
    assert compared(once, again).lines == []
    assert "two_files: tokens_recomputed" in compared(once, without).worse


def test_a_pass_that_allocates_more_is_a_failure(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = [read_session(SHIPPED / "two_files.jsonl")]
    once = work_counts(sessions, bench.this, max_events=N_EVENTS)
    forward = bench.model.forward

    def wasteful(tokens: Tensor, base: RecurrentState) -> Pass:
        return forward(tokens, RecurrentState(base.conv_state.clone(), base.ssm_state))

    monkeypatch.setattr(bench.model, "forward", wasteful)
    check = compared(once, work_counts(sessions, bench.this, max_events=N_EVENTS))
    assert check.worse == ["two_files: allocations", "two_files: allocated_bytes"]


def test_views_and_what_is_written_in_place_allocate_nothing() -> None:
    row = torch.zeros(8)
    with Allocations() as allocations:
        row.view(2, 4)[0].add_(1.0)
        torch.add(row, row, out=row)
        row.expand(2, 8).numel()
        assert (allocations.n, allocations.n_bytes) == (0, 0)
        row + row
        row.double().split(4)
        # Numpy's memory, once.
        array = np.empty(3, np.float32)
        torch.from_numpy(array)
        torch.from_numpy(array[1:])
    row.clone()
    torch.from_numpy(array)
    assert (allocations.n, allocations.n_bytes) == (3, 32 + 64 + 12)


def test_less_work_is_told_and_fails_nothing() -> None:
    check = compared({"a": {"passes": 3, "tokens": 5}}, {"a": {"passes": 2, "tokens": 5}})
    assert check.lines == [("a", "passes", 3, 2)]
    assert check.worse == []
    # What is new has nothing to be compared with.
    assert compared({"a": {"passes": 3}}, {"a": {"hits": 2}, "b": {"passes": 9}}).lines == []


def test_a_kind_of_machine_is_one_model_and_one_torch(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"a")
    first = kind_of_machine(tmp_path)
    assert first == kind_of_machine(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"b")
    assert kind_of_machine(tmp_path) != first


@pytest.fixture
def suite(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bench: Bench
) -> Callable[..., tuple[int, str]]:
    """Runs the command with given counts and times, and no server."""
    sample = {"trace": "a", "kind": "type", "n_chars": 9, "outcome": "items", "latency_ms": 10.0}
    figures: dict[str, Any] = {
        **dict.fromkeys(("latency_ms", "change_latency_ms", "tokens_recomputed", "passes")),
        **dict.fromkeys(("rss_bytes", "cpu_s_per_1000_chars", "model", "server", "device")),
        **dict.fromkeys(("first_line_match", "ratio_completed")),
        **dict.fromkeys(("requests", "cancelled", "errors", "timeouts", "suggested"), 0),
        **{"by_kind": {}, "stages_ms": {}, "start_to_suggestion_s": None, "start_to_ready_s": 1.0},
        "error_messages": {},
        **{"machine": "m", "speed": "max", "samples": [sample], "memory": []},
    }
    monkeypatch.setattr(profile_check, "RECORD", tmp_path / "profile.json")
    monkeypatch.setattr(profile_check, "_bench", lambda: bench)
    monkeypatch.setattr(profile_check, "_times", lambda _: figures)

    def run(n_passes: int, *arguments: str) -> tuple[int, str]:
        counts = {"short": {**MEMORY, "passes": n_passes}}
        monkeypatch.setattr(profile_check, "work_counts", lambda *_: counts)
        result = CliRunner().invoke(profile_check.main, arguments)
        return result.exit_code, result.output

    return run


def test_the_suite_fails_for_more_work_alone(suite: Callable[..., tuple[int, str]]) -> None:
    code, said = suite(3)
    assert code == 0
    assert "nothing is recorded" in said
    assert suite(3, "--record")[0] == 0
    (recorded,) = json.loads(profile_check.RECORD.read_text()).values()
    assert recorded["work"] == {"short": {**MEMORY, "passes": 3}}
    assert recorded["profile"]["samples"][0]["latency_ms"] == 10.0
    code, said = suite(3)
    assert code == 0
    assert "to the token" in said
    assert "a keystroke allocates 5.0 tensors, 2.50 MB in all" in said
    assert "latency p50" in said
    code, said = suite(2)
    assert code == 0
    assert "less work" in said
    code, said = suite(4)
    assert code == 1
    assert "more work than recorded: short: passes" in said
