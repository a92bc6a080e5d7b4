"""`keystate profile` at our own server: its stages, and that they leave nothing out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

import perf.profile
from lsp_server.cli import main
from perf.profile_summary import STAGES
from perf.trace_format import Session, read_session, write_session

if TYPE_CHECKING:
    from pathlib import Path

N_STEPS = 30


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> dict[str, Any]:
    """Of the beginning of a shipped trace, on a tiny model."""
    folder = tmp_path_factory.mktemp("profile")
    whole = read_session(perf.profile.SHIPPED / "two_files.jsonl")
    write_session(Session(name="part", steps=whole.steps[:N_STEPS]), folder / "part.jsonl")
    options = {"deadlineMs": 60_000, "maxTokens": 8, "threads": 1, "minConfidence": 0}
    result = CliRunner().invoke(
        main,
        [
            *("profile", str(folder / "part.jsonl"), "--json", "--model", str(model_directory)),
            *("--options", json.dumps(options), "--timeout-s", "60"),
        ],
    )
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_every_answer_tells_its_stages(figures: dict[str, Any]) -> None:
    assert figures["model"] == "tiny"
    assert figures["device"] == "cpu"
    assert figures["requests"] == N_STEPS - 2
    assert figures["errors"] == figures["cancelled"] == 0
    assert set(figures["stages_ms"]) <= set(STAGES)
    from_engine = [one for one in figures["samples"] if one["prompt_kind"] != "typed"]
    assert from_engine
    named = {"transport", "receive", "read_ahead", "parse", "context", "queue", "tokenize"}
    named |= {"lookup", "prefill", "heal", "handover", "trim", "reply", "serialize"}
    for sample in from_engine:
        assert named <= set(sample["stages_ms"])
        assert sample["n_prompt"] > 100
    # None is needed along what was computed before.
    assert any(sample["n_passes"] for sample in from_engine)


def test_the_stages_sum_to_what_is_seen_from_outside(figures: dict[str, Any]) -> None:
    for sample in figures["samples"]:
        # What was measured inside lies within what was measured outside.
        assert all(ms >= 0 for ms in sample["stages_ms"].values())
        assert sum(sample["stages_ms"].values()) == pytest.approx(sample["latency_ms"], abs=0.02)


def test_work_is_counted(figures: dict[str, Any]) -> None:
    assert figures["tokens_recomputed"]["p50"] <= 8
    counts = figures["counters"]
    assert sum(n for name, n in counts.items() if name.startswith("answers_")) > 0
    assert figures["first_line_match"] is not None
    assert figures["rss_bytes"] > 2**20
