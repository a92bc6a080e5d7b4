"""A line of the screenful says what was suggested, and what stood there if that was another."""

import pytest

from perf.cases import Case
from perf.screenful import WIDTH, is_right, line_of


def case(prefix: str, truth: str) -> Case:
    return Case(path="a.py", language_id="python", prefix=prefix, suffix="\n", truth=truth)


@pytest.mark.parametrize(
    ("truth", "text", "line"),
    [
        ("x + 1)", "x + 1)", "return int(‹x + 1)›"),
        ("x + 1)", "y)", "return int(‹y)›  # x + 1)"),
        ("x)\nnext()", "x)", "return int(‹x)›"),
    ],
    ids=["right", "wrong", "first line of several"],
)
def test_line(truth: str, text: str, line: str) -> None:
    asked = case("def f(x):\n    return int(", truth)
    assert line_of(asked, text) == line
    assert is_right(asked, text) == ("#" not in line)


def test_a_long_line_loses_its_start() -> None:
    line = line_of(case("a" * 300, "b"), "b")
    assert len(line) == WIDTH
    assert line.endswith("aa‹b›")
