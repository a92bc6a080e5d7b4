from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from hypothesis import settings

from engine.tokenizer import Tokenizer
from perf import fuzz_states
from perf.pure_prompt import EpochLedger, holds

if TYPE_CHECKING:
    from pathlib import Path

SMALL = settings(fuzz_states.SETTINGS, max_examples=3, stateful_step_count=5)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_states, "SETTINGS", SMALL)
    # It would stay with the tests after it.
    monkeypatch.setattr(os, "nice", lambda by: by)


def test_figures_are_recorded(tmp_path: Path) -> None:
    out = tmp_path / "results" / "state_machine.json"
    arguments = ["--steps", "20", "--seed", "5", "--out", str(out)]
    result = CliRunner().invoke(fuzz_states.main, arguments)
    assert result.exit_code == 0, result.output
    record = json.loads(out.read_text())
    assert record["n_steps"] >= 20
    assert record["n_steps"] == sum(record["rules"].values())
    assert record["is_whole"]
    assert (record["first_seed"], record["error"]) == (5, "")
    assert record["last_seed"] > 5
    assert min(record["memory"].values()) > fuzz_states.MIN_MEMORY


def test_a_wrong_answer_is_recorded_with_its_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tokenizer, "last_boundary", lambda self, text: len(text))
    out = tmp_path / "state_machine.json"
    result = CliRunner().invoke(fuzz_states.main, ["--seed", "5", "--out", str(out)])
    assert result.exit_code == 1
    record = json.loads(out.read_text())
    assert record["failed_seed"] == 5
    assert "prompt of this text" in record["error"]
    assert not record["is_whole"]


@pytest.mark.parametrize(
    ("frozen", "after_cursor", "expected"),
    [
        ("\nx", "\nx", True),
        ("\nx", ")\n    }\nx", True),
        ("\nx", "y)\nx", False),
        ("\nx", "\ny", False),
        ("", "", True),
        ("", " " * 64, True),
        ("", " " * 65, False),
        ("abc", "c", False),
    ],
)
def test_an_epoch_holds_behind_closers(frozen: str, after_cursor: str, expected: bool) -> None:
    assert holds(frozen, after_cursor) is expected


def test_the_newest_epoch_that_holds_is_revived() -> None:
    ledger = EpochLedger()
    asked = ["\nx", "\ny", ")\nx", ")\n)\nx"]
    assert [ledger.suffix("a", "", after) for after in asked] == ["\nx", "\ny", "\nx", "\nx"]
    assert ledger.suffix("a", "other", ")\nx") == ")\nx"
    assert ledger.suffix("b", "", ")\nx") == ")\nx"
    ledger.forget("a")
    assert ledger.suffix("a", "", ")\nx") == ")\nx"
