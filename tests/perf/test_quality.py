"""Verdicts on texts, and figures over verdicts whose values can be told by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf.cases import Case
from perf.quality import (
    NOTHING,
    Row,
    Verdict,
    copied,
    curve,
    figures,
    judge,
    percentile,
    ratio_to_copy,
    repeats_suffix,
    summary,
    widest,
    wilson,
)


def verdict_on(
    text: str,
    prefix: str = "total = ",
    truth: str = "price * n",
    suffix: str = "\n",
    multiline: bool = False,
    language_id: str = "python",
) -> Verdict:
    case = Case(
        path="a.py",
        language_id=language_id,
        prefix=prefix,
        suffix=suffix,
        truth=truth,
        multiline=multiline,
    )
    return judge(case, text, case.open("file:///a.py"))


def row(exact: bool, confidence: float = 0.5, **changes: Any) -> Row:
    verdict = Verdict(
        has_text=True,
        exact=exact,
        first_line=exact,
        similarity=float(exact),
        worse_parse=False,
        repeats_suffix=False,
    )
    fields: dict[str, Any] = {
        "kind": "mid-word",
        "language_id": "python",
        "multiline": False,
        "model": verdict,
        "copy": NOTHING,
        "confidence": confidence,
        "latency_ms": 10.0,
    }
    return Row(**{**fields, **changes})


class TestVerdict:
    def test_the_truth_is_exact(self) -> None:
        verdict = verdict_on("price * n")
        assert verdict.exact
        assert verdict.first_line
        assert verdict.similarity == 1
        assert verdict.worse_parse is False
        assert not verdict.repeats_suffix

    def test_blanks_at_an_end_are_nothing(self) -> None:
        assert verdict_on("price * n  ").exact
        assert not verdict_on(" price * n").exact

    def test_half_the_truth_is_half_as_similar(self) -> None:
        verdict = verdict_on("price")
        assert not verdict.exact
        # Two times what is common over both lengths.
        assert verdict.similarity == pytest.approx(2 * 5 / (5 + 9))

    def test_no_text_is_no_suggestion(self) -> None:
        assert verdict_on("") == verdict_on(" \n") == NOTHING

    def test_lines_past_a_single_line_do_not_count(self) -> None:
        assert verdict_on("price * n\nother = 1").exact
        assert verdict_on("price * n\nother = 1").similarity == 1

    def test_several_lines_count_to_the_last(self) -> None:
        truth = "a = 1\n    b = 2"
        assert verdict_on("a = 1  \r\n    b = 2\n", truth=truth, multiline=True).exact
        verdict = verdict_on("a = 1\n    b = 2\n    c = 3", truth=truth, multiline=True)
        assert not verdict.exact
        assert verdict.first_line
        assert verdict.similarity < 1

    def test_a_parse_that_it_spoils(self) -> None:
        assert verdict_on("price)", prefix="total = f(", suffix=")\n").worse_parse
        assert not verdict_on("price", prefix="total = f(", suffix=")\n").worse_parse
        # What was wrong before, and is no worse, is none of its doing.
        assert verdict_on("price", prefix="x = )\ntotal = ", suffix="\n").worse_parse is False
        assert verdict_on("price)", language_id="plaintext").worse_parse is None


@pytest.mark.parametrize(
    ("prefix", "text", "suffix"),
    [
        ("for ", "price in prices:", " in prices:\n"),
        ("total = f(", "price, n)", "n)\n"),
        ("total = f(", "price", "price)\n"),
        ("x = 1\nto", "tal = 2", "\n\ntotal = 2\n"),
        ("", "a = 1\nb = 2", "\nb = 2\n"),
    ],
)
def test_repeats(prefix: str, text: str, suffix: str) -> None:
    assert repeats_suffix(prefix, text, suffix)


@pytest.mark.parametrize(
    ("prefix", "text", "suffix"),
    [
        ("for ", "price", " in prices:\n"),
        ("total = f(", "g(price)", ")\n"),
        ("x = ", "12", "2)\n"[1:]),
        ("x = f(", "an", "n + 1)\n"),
        ("x = ", "y", "\n"),
        ("x = ", "y", "\n\nx = z\n"),
        ("f(", ")", "\n)\n"),
        ("f(", "", "\n"),
    ],
)
def test_no_repeats(prefix: str, text: str, suffix: str) -> None:
    assert not repeats_suffix(prefix, text, suffix)


def test_what_stood_there_twice_is_no_repeat() -> None:
    assert not verdict_on("x()", prefix="", truth="x()", suffix="\nx()\n").repeats_suffix
    assert verdict_on("x()", prefix="", truth="y()", suffix="\nx()\n").repeats_suffix


class TestCopying:
    def test_the_longest_match_wins_over_a_nearer_one(self) -> None:
        assert copied("self.price = 1\nx.price = 2\nself.price") == " = 1"

    def test_of_equal_matches_the_nearest(self) -> None:
        assert copied("price = 1\nprice = 2\nprice") == " = 2"

    def test_two_characters_are_no_match(self) -> None:
        assert copied("ab = 1\n#b") == ""
        assert copied("abc = 1\n#bc") == ""
        assert copied("abc = 1\n#abc") == " = 1"
        assert copied("") == copied("abc") == ""

    def test_a_match_at_a_line_end_proposes_nothing(self) -> None:
        assert copied("x = price\ny = price") == ""

    @given(st.text("ab\n", max_size=40), st.integers(1, 3), st.integers(3, 8))
    def test_it_is_what_a_plain_search_finds(self, text: str, fewest: int, most: int) -> None:
        found = ""
        for length in range(fewest, most + 1):
            starts = [
                at
                for at in range(len(text) - length)
                if text[at : at + length] == text[len(text) - length :]
            ]
            if starts:
                found = text[starts[-1] + length :].partition("\n")[0]
        assert copied(text, (fewest, most)) == found


class TestFigures:
    def test_shares(self) -> None:
        right, wrong = row(True).model, row(False).model
        found = figures([right, right, wrong, NOTHING])
        assert found["n"] == 4
        assert found["exact_match"] == found["first_line_match"] == 0.5
        assert found["edit_similarity"] == 0.5
        assert found["shown"] == 0.75
        assert found["precision"] == pytest.approx(2 / 3)
        assert found["parse"] == {"checked": 3, "worse": 0}
        assert found["suffix_repeats"] == 0

    def test_nothing_has_no_precision(self) -> None:
        found = figures([NOTHING, NOTHING])
        assert found["precision"] is found["precision_ci95"] is None
        assert found["exact_match"] == found["shown"] == found["suffix_repeats"] == 0

    def test_wilson(self) -> None:
        # Newcombe 1998, table I.
        assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
        assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=1e-4)
        assert wilson(20, 20)[1] == 1

    def test_percentiles(self) -> None:
        assert [percentile(range(1, 21), percent) for percent in (50, 95, 100)] == [10, 19, 20]
        assert percentile([7], 50) == 7

    def test_times_copying(self) -> None:
        right = row(True).model
        rows = [
            *[row(True, copy=right)] * 30,
            *[row(True)] * 50,
            *[row(False, copy=right)] * 10,
            *[row(False)] * 110,
        ]
        found = ratio_to_copy(rows)
        assert found is not None
        assert found["ratio"] == 2
        low, high = found["ci95"]
        # The delta method on the logarithm of a ratio of paired shares.
        spread = math.exp(1.96 * math.sqrt((50 + 10) / (80 * 40)))
        assert low == pytest.approx(2 / spread, rel=0.05)
        assert high == pytest.approx(2 * spread, rel=0.05)
        assert ratio_to_copy([row(True)]) is None


class TestCurve:
    ROWS = (row(True, 0.9), row(True, 0.8), row(False, 0.8), row(False, 0.2), row(True, 0.1))
    SILENT = row(False, 0.0, model=NOTHING)

    def test_rows_of_equal_confidence_are_shown_together(self) -> None:
        points = curve([*self.ROWS, *[self.SILENT] * 5])
        assert [point["threshold"] for point in points] == [0.9, 0.8, 0.2, 0.1]
        assert [point["shown"] for point in points] == [0.1, 0.3, 0.4, 0.5]
        precisions = [1, 2 / 3, 2 / 4, 3 / 5]
        assert [point["precision"] for point in points] == pytest.approx(precisions)

    def test_the_widest_that_is_precise_enough(self) -> None:
        rows = self.ROWS[:4]
        assert widest(rows, 0.5) == {"threshold": 0.2, "shown": 1.0, "precision": 0.5}
        assert widest(rows, 0.6) == {"threshold": 0.8, "shown": 0.75, "precision": 2 / 3}
        assert widest([row(False)], 0.5) is None
        assert curve([self.SILENT]) == []

    def test_many_rows_make_few_points_and_the_last(self) -> None:
        points = curve([row(n % 2 == 0, n / 2000) for n in range(1, 2001)])
        assert len(points) <= 51
        assert points[-1] == {"threshold": 1 / 2000, "shown": 1.0, "precision": 0.5}


class TestSummary:
    def test_groups_and_thresholds(self) -> None:
        right = row(True).model
        rows = [
            row(True, 0.9, latency_ms=1.0),
            row(False, 0.8, copy=right, latency_ms=2.0),
            row(True, 0.2, kind="comment", copy=right, latency_ms=3.0),
            row(False, 0.1, kind="comment", language_id="go", multiline=True, latency_ms=4.0),
            row(False, 0.0, model=NOTHING, hidden="syntax", latency_ms=5.0),
        ]
        found = summary(rows, 0.15)
        assert found["n"] == 5
        assert found["exact_match"] == 0.4
        assert found["latency_ms"] == {"p50": 3.0, "p95": 5.0}
        assert found["at_threshold"]["threshold"] == 0.15
        assert found["at_threshold"]["shown"] == 0.6
        assert found["at_threshold"]["precision"] == pytest.approx(2 / 3)
        assert found["where_copy_fails"]["n"] == 3
        assert found["where_copy_fails"]["exact_match"] == pytest.approx(1 / 3)
        assert found["times_copy"]["ratio"] == 1
        assert found["baselines"]["copy"]["exact_match"] == 0.4
        assert found["baselines"]["nothing"]["exact_match"] == 0
        assert found["hidden"] == {"syntax": 1}
        assert {kind: group["n"] for kind, group in found["by_kind"].items()} == {
            "comment": 2,
            "mid-word": 3,
        }
        assert found["by_kind"]["comment"]["copy_exact_match"] == 0.5
        assert found["by_language"]["go"]["exact_match"] == 0
        assert found["by_length"]["multi-line"]["n"] == 1
        assert found["half_right"]["shown"] == 0.8

    def test_no_rows(self) -> None:
        with pytest.raises(ValueError, match="no cases were asked"):
            summary([], 0.5)
