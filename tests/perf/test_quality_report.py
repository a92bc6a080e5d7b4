"""Reports of made-up results: figures where they belong, and a picture that is XML."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from perf.quality import NOTHING, Row, Verdict, summary
from perf.quality_report import main, markdown, table, write_report
from perf.svg_sheet import BASELINE_COLOUR, COLOURS

if TYPE_CHECKING:
    from pathlib import Path

RUN = {
    "date": "2026-11-22",
    "cases": "cases.jsonl",
    "model": "embedded",
    "device": "cpu",
    "machine": "x86_64, 2 cores",
    "threads": 1,
    "prompt_kind": "trunk",
    "automatic": False,
    "deadline_ms": None,
    "workspace": "heldout.npz",
    "without": ["copying"],
    "also": ["outline"],
    "options": {},
    "ms_per_case": 300.0,
}


def result_of(n_right: int, n: int, kind: str = "mid-word") -> dict[str, Any]:
    """A result in which the first so many of n are right, and copying is right in the last."""

    def verdict(exact: bool) -> Verdict:
        return Verdict(
            has_text=True,
            exact=exact,
            first_line=exact,
            similarity=0.25,
            worse_parse=False,
            repeats_suffix=False,
        )

    rows = [
        Row(
            kind=kind,
            language_id="python",
            multiline=False,
            model=verdict(number < n_right),
            copy=verdict(True) if number == n - 1 else NOTHING,
            confidence=1 - number / n,
            latency_ms=12.0,
        )
        for number in range(n)
    ]
    return {**summary(rows, 0.5), "run": RUN}


def cells(text: str, start: str) -> list[str]:
    """The first table row that starts with this cell."""
    row = next(line for line in text.split("\n") if line.startswith(f"| {start} |"))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_figures_stand_in_their_columns() -> None:
    text = markdown({"now": result_of(5, 20)}, "quality.svg")
    assert cells(text, "now")[:5] == ["now", "20", "25.0% (11.2%–46.9%)", "25.0%", "0.250"]
    assert cells(text, "copy")[:3] == ["copy", "20", "5.0% (0.9%–23.6%)"]
    assert cells(text, "nothing")[2].startswith("0.0%")
    assert (
        "| now | 0.500 | 55.0% | 45.5% (21.3%–72.0%) | 0.00% | 0 of 11 | 50.0% at 0.550 |" in text
    )
    assert "| now, all | 0 | 100.0% | 25.0%" in text
    assert cells(text, "mid-word")[1:5] == ["now", "20", "25.0% (11.2%–46.9%)", "5.0%"]
    assert (
        "from the trunk; files beside it open, the project's others there; without copying" in text
    )
    assert "(quality.svg)" in text
    assert "replayed" not in text


def test_results_stand_side_by_side() -> None:
    results = {
        "one": result_of(5, 20),
        "two": result_of(10, 20),
        "three": result_of(4, 8, "comment"),
    }
    text = markdown(results, "quality.svg")
    assert text.count("| one | 20 | 25.0%") == 4
    assert text.count("| two | 20 | 50.0%") == 4
    # Baselines of the same cases stand there once.
    assert text.count("\n| copy | 20 |") == 1
    assert "| copy, cases of three | 8 |" in text
    assert "cases of two" not in text
    assert "| comment | three | 8 | 50.0%" in text


def test_replayed_typing_has_a_table() -> None:
    traces = {"n": 3, "typed_chars": 1000, "completed_chars": 250, "ratio_completed": 0.25}
    result = result_of(5, 20) | {"traces": traces | {"shown": 40, "accepted": 20}}
    assert "| now | 3 | 1,000 | 25.0% | 40 | 20 |" in markdown({"now": result}, "quality.svg")


def test_nothing_shown_has_no_precision() -> None:
    result = result_of(0, 4)
    result["at_threshold"] |= {"precision": None, "precision_ci95": None, "shown": 0.0}
    text = markdown({"now": result}, "quality.svg")
    assert "| now | 0.500 | 0.0% | – |" in text
    assert text.count("–%") == 0


def test_no_results() -> None:
    with pytest.raises(ValueError, match="no results"):
        markdown({}, "quality.svg")


def test_the_terminal_has_the_same_figures() -> None:
    shown = table({"now": result_of(5, 20)})
    names, first = (map(str, shown.columns[n].cells) for n in (0, 1))
    figures = dict(zip(names, first, strict=True))
    assert figures["exact match"] == "25.0% (11.2%–46.9%)"
    assert figures["shown"] == "55.0%"
    assert figures["precision"].startswith("45.5%")


def test_the_picture_is_drawn_to_scale(tmp_path: Path) -> None:
    write_report({"<a & b>": result_of(5, 20), "two": result_of(10, 20)}, tmp_path / "quality")
    root = ElementTree.parse(tmp_path / "quality.svg").getroot()
    name = "{http://www.w3.org/2000/svg}"
    lines = root.findall(f"{name}polyline")
    assert [line.get("stroke") for line in lines] == list(COLOURS[:2])
    points = [tuple(map(float, pair.split(","))) for pair in (lines[1].get("points") or "").split()]
    # All of the first half are right: the curve of "two" is level up to there, and falls.
    assert len({y for _, y in points[:10]}) == 1
    assert points[0][1] < points[-1][1]
    assert points[0][0] < points[-1][0]
    bars = {
        bar.get("fill"): float(bar.get("width") or 0)
        for bar in root.findall(f"{name}rect")
        if bar.get("fill") in (*COLOURS, BASELINE_COLOUR)
    }
    assert bars[COLOURS[1]] == pytest.approx(2 * bars[COLOURS[0]])
    assert bars[BASELINE_COLOUR] == pytest.approx(bars[COLOURS[0]] / 5)
    texts = [each.text for each in root.findall(f"{name}text")]
    assert "<a & b>" in texts
    assert "mid-word (20)" in texts


def test_the_command_reads_results(tmp_path: Path) -> None:
    for name, n_right in (("one", 5), ("two", 10)):
        (tmp_path / f"{name}.json").write_text(json.dumps(result_of(n_right, 20)))
    labelled = [f"epoch={tmp_path / 'one.json'}", f"p=0.5={tmp_path / 'two.json'}"]
    done = CliRunner().invoke(main, [str(tmp_path / "sub" / "quality"), *labelled])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "sub" / "quality.md").read_text()
    assert "| epoch | 20 | 25.0%" in text
    assert "| p=0.5 | 20 | 50.0%" in text
    assert (tmp_path / "sub" / "quality.svg").exists()
    assert CliRunner().invoke(main, [str(tmp_path / "x"), "one.json"]).exit_code == 2


@pytest.mark.parametrize(
    "content",
    [None, b"[]", b"{", b"\xff", b'{"a":' * 99_999],
    ids=["missing", "list", "cut", "bytes", "nested"],
)
def test_what_is_no_result_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    result = tmp_path / "one.json"
    if content is not None:
        result.write_bytes(content)
    done = CliRunner().invoke(main, [str(tmp_path / "x"), f"one={result}"])
    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == 1
    assert str(result) in done.stderr
