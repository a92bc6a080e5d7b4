"""The file of numbers, and the command that prints it."""

from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from lsp_server.cli import main
from lsp_server.file_lock import lock
from lsp_server.private_files import statistics_path
from lsp_server.statistics import (
    MAX_DAYS,
    MAX_LANGUAGES,
    NAMES,
    Statistics,
    load_statistics,
    save_statistics,
    totals,
)

TODAY = date.today().isoformat()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return statistics_path()


def test_numbers_add_up_in_a_file_of_the_users_alone(path: Path) -> None:
    assert path == Path(os.environ["XDG_STATE_HOME"]) / "keystate" / "statistics.json"
    assert load_statistics(path) == {}
    for _ in range(2):
        counted = Statistics()
        counted.add("python", shown=2, accepted=1)
        counted.add("go", shown=1, accepted=0)
        assert save_statistics(path, counted.take())
        assert counted.take() == {}
    days = load_statistics(path)
    assert days == {TODAY: {"python": {"shown": 4, "accepted": 2}, "go": {"shown": 2}}}
    assert totals(days)["python"] == {**dict.fromkeys(NAMES, 0), "shown": 4, "accepted": 2}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {file.suffix for file in path.parent.iterdir()} == {".json", ".lock"}


def test_windows_that_write_at_once_lose_nothing(path: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        saved = threads.map(
            lambda _: save_statistics(path, {TODAY: {"python": {"shown": 1}}}), range(8)
        )
        n_saved = sum(saved)
    assert n_saved > 0
    assert load_statistics(path)[TODAY]["python"]["shown"] == n_saved


def test_old_days_and_odd_languages_are_bounded(path: Path) -> None:
    first = date(2026, 1, 1)
    days = {
        (first + timedelta(days=n)).isoformat(): {"c": {"shown": 1}} for n in range(MAX_DAYS + 5)
    }
    save_statistics(path, days)
    kept = load_statistics(path)
    assert len(kept) == MAX_DAYS
    assert min(kept) == (first + timedelta(days=5)).isoformat()
    counted = Statistics()
    for n in range(100):
        counted.add(f"{n} {'x' * 1000}", shown=1)
    (languages,) = counted.take().values()
    assert len(languages) == MAX_LANGUAGES
    assert max(map(len, languages)) == 40
    assert languages["other"]["shown"] == 100 - (MAX_LANGUAGES - 1)


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", '{"days": 1}', '{"days": {"2026-11-22": [1]}}', "[" * 100_000),
        '{"days": {"yesterday": {"c": {"shown": 1}}}}',
        '{"days": {"2026-11-22": {"c": {"shown": "1", "accepted": -1, "code": 1, "x": true}}}}',
    ],
    ids=["empty", "half", "list", "number", "no languages", "deep", "no day", "no numbers"],
)
def test_what_is_not_ours_is_nothing(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert not any(
        counts for languages in load_statistics(path).values() for counts in languages.values()
    )
    assert save_statistics(path, {TODAY: {"c": {"shown": 1}}})
    assert load_statistics(path)[TODAY]["c"] == {"shown": 1}


def test_a_window_that_does_not_let_go_is_not_waited_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lsp_server.statistics.LOCK_TRIES", 2)
    assert save_statistics(path, {TODAY: {"c": {"shown": 1}}})
    with path.with_suffix(".lock").open("a") as held:
        lock(held)
        assert not save_statistics(path, {TODAY: {"c": {"shown": 1}}})
    assert save_statistics(path, {TODAY: {"c": {"shown": 1}}})
    assert load_statistics(path)[TODAY]["c"] == {"shown": 2}


def test_a_folder_that_cannot_be_made(path: Path) -> None:
    path.parent.parent.mkdir(parents=True)
    path.parent.write_text("a file")
    assert not save_statistics(path, {TODAY: {"c": {"shown": 1}}})


class TestCommand:
    def fill(self, path: Path) -> None:
        yesterday = (date.today() - timedelta(days=1)).isoformat()
        python = {
            **{"shown": 40, "accepted": 10, "partially_accepted": 3, "accepted_chars": 400},
            **{"checked_30s_chars": 100, "retained_30s_chars": 75},
        }
        days = {
            TODAY: {"python": python},
            yesterday: {"go": {"shown": 10, "accepted_chars": 100}},
        }
        save_statistics(path, days)

    def test_a_table_and_a_chart(self, path: Path) -> None:
        self.fill(path)
        result = CliRunner().invoke(main, ["stats"], env={"COLUMNS": "100"})
        assert result.exit_code == 0, result.output
        lines = [line.split() for line in result.output.splitlines()]
        assert ["python", "40", "10", "(25%)", "3", "400", "75%"] in lines
        assert ["go", "10", "0", "(0%)", "0", "100"] in lines
        assert ["all", "50", "10", "(20%)", "3", "500", "75%"] in lines
        assert [TODAY, "█" * 40, "400"] in lines
        bars = [line for line in lines if line and line[0].startswith("20")]
        assert len(bars) == 14
        assert bars[-2][1:] == ["█" * 10, "100"]

    def test_json(self, path: Path) -> None:
        self.fill(path)
        result = CliRunner().invoke(main, ["stats", "--json"])
        printed = json.loads(result.output)
        assert printed["file"] == str(path)
        assert printed["by_language"]["python"]["acceptance"] == 0.25
        assert printed["by_language"]["go"]["retained_5min"] is None
        assert printed["total"]["accepted_chars"] == 500
        assert printed["days"][TODAY]["python"]["shown"] == 40

    def test_nothing_yet(self, path: Path) -> None:
        result = CliRunner().invoke(main, ["stats"])
        assert (result.exit_code, result.output) == (0, f"nothing was counted yet ({path})\n")
