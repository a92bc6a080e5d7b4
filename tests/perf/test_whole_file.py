"""Commands find out where they can write before they measure, and lose nothing on a full disk."""

from __future__ import annotations

import errno
import json
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from lsp_server.cli import main
from perf import demo
from perf.case_kinds import KINDS
from perf.cases import Case, write_cases
from perf.trace_format import write_trace
from perf.typing_user import Tally
from perf.whole_file import check_place, with_ending, write_whole
from tests.perf.test_completed_code import letters

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPTED = Path(__file__).with_name("scripted_server.py")
SAMPLE = Path(demo.__file__).parent / "samples" / "brackets.jsonl"
LEFT_BYTES = 4096


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def error_of(result: Result) -> str:
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    return line.removeprefix("Error: ")


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can be longer than some bytes: what fits of a write is written, as on a full disk."""
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LEFT_BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fail(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_is_there_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    write_whole(path, "old\n")
    with full_disk(), pytest.raises(OSError, match="too large"):
        write_whole(path, "ü" * LEFT_BYTES)
    assert path.read_text() == "old\n"
    write_whole(path, "new ü\n")
    assert path.read_bytes() == "new ü\n".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_places_for_files(tmp_path: Path) -> None:
    (tmp_path / "there.md").touch()
    check_place(tmp_path / "there.md")
    check_place(tmp_path / "new.md")
    assert [path.name for path in tmp_path.iterdir()] == ["there.md"]
    for path, found in [
        (tmp_path / "missing" / "a.md", "missing: No such file"),
        (tmp_path / "there.md" / "a.md", "there.md: Not a directory"),
        (tmp_path, "is no file, expected the name of one"),
        (Path("/dev/null"), "/dev/null is no file"),
    ]:
        with pytest.raises(ValueError, match=found):
            check_place(path)


def test_a_full_disk_leaves_the_recording(tmp_path: Path) -> None:
    path = tmp_path / "recorded.jsonl"
    shutil.copy(SAMPLE, path)
    assert path.stat().st_size > LEFT_BYTES
    with full_disk():
        result = run("trace", "scrub", path, path)
    assert "too large" in error_of(result)
    assert path.read_bytes() == SAMPLE.read_bytes()
    path.write_bytes(b"no trace")
    assert "not a trace's line" in error_of(run("trace", "scrub", path, path))
    assert path.read_bytes() == b"no trace"


class TestProfile:
    @pytest.fixture
    def arguments(self, tmp_path: Path) -> list[object]:
        write_trace(letters("ab"), tmp_path / "a.jsonl")
        server = f"{sys.executable} {SCRIPTED} good"
        return ["profile", tmp_path / "a.jsonl", "--server", server, "--json"]

    @pytest.mark.parametrize("option", ["--report", "--chrome-trace"])
    def test_it_is_measured_only_where_it_can_be_written(
        self, arguments: list[object], option: str, tmp_path: Path
    ) -> None:
        place = tmp_path / "missing" / "a"
        # The server would be the first to be missed.
        result = run(*arguments, option, place, "--server", "/nonexistent/server")
        assert error_of(result).startswith(f"{place} cannot be written")

    def test_figures_are_printed_whatever_becomes_of_files(
        self, arguments: list[object], tmp_path: Path
    ) -> None:
        (tmp_path / "a.html").write_text("good")
        with full_disk():
            result = run(*arguments, "--report", tmp_path / "a.html")
        assert "too large" in error_of(result)
        assert json.loads(result.stdout)["requests"] == 2
        assert (tmp_path / "a.html").read_text() == "good"


class TestEval:
    @pytest.fixture
    def cases(self, tmp_path: Path) -> Path:
        case = Case(
            path="a.py", language_id="python", prefix="x =", suffix="\n", truth="1", kind=KINDS[0]
        )
        write_cases([case], tmp_path / "cases.jsonl")
        return tmp_path / "cases.jsonl"

    def test_it_is_measured_only_where_it_can_be_written(self, cases: Path, tmp_path: Path) -> None:
        # The model would be the first to be missed.
        asked = ("eval", cases, "--model", "/nonexistent/model", "--report")
        (tmp_path / "r.md").mkdir()
        assert "r.md is no file" in error_of(run(*asked, tmp_path / "r"))
        assert "File exists" in error_of(run(*asked, cases / "r"))
        assert "--report is '.'" in error_of(run(*asked, "."))

    def test_traces_are_read_before_anything_is_measured(self, cases: Path, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text("[]\n")
        asked = ("eval", cases, "--model", "/nonexistent/model", "--trace", tmp_path / "a.jsonl")
        assert "a.jsonl:1: not a trace's line" in error_of(run(*asked))

    def test_figures_are_printed_whatever_becomes_of_files(
        self,
        cases: Path,
        tmp_path: Path,
        model_directory: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("perf.evaluate.write_report", fail)
        asked = ("eval", cases, "--model", model_directory, "--json")
        result = run(*asked, "--report", tmp_path / "r", "--options", '{"maxTokens": 1}')
        assert "No space left" in error_of(result)
        assert json.loads(result.stdout)["n"] == 1


class TestDemo:
    def test_it_is_played_only_where_it_can_be_drawn(self, tmp_path: Path) -> None:
        place = tmp_path / "missing" / "a.svg"
        result = run("demo", "--fast", "--model", "/nonexistent/model", "--picture", place)
        assert error_of(result).startswith(f"{place} cannot be written")

    def test_figures_are_printed_whatever_becomes_of_files(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def replay(*_: object) -> Tally:
            return Tally(n_keystrokes=17)

        monkeypatch.setattr(demo, "_replay", replay)
        monkeypatch.setattr("perf.demo_view.write_whole", fail)
        result = run("demo", "--picture", tmp_path / "a.svg")
        assert "No space left" in error_of(result)
        assert "17, 0 faster than the answer" in result.stdout


@pytest.mark.parametrize("name", ["p0.5", "p0.5.json", "p0.5.svg"])
def test_a_report_s_name_may_have_dots(tmp_path: Path, name: str) -> None:
    """Else the reports for 0.5 and 0.7 are one file."""
    assert with_ending(tmp_path / name, ".md") == tmp_path / "p0.5.md"
