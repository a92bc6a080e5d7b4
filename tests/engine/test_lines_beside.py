from __future__ import annotations

import pytest

from engine.lines_beside import MAX_PLACES, LinesBeside, line_above, line_below

TEXT = b"""\
def one():
    first = take(1)
    return all_of(it)

def two():
\tsecond = take(2)

\treturn all_of(it)
"""


BELOW, ABOVE = b"return all_of(it)", b"from pen import ink"


def rests(text: bytes, lines: LinesBeside, written: bytes = b"") -> dict[bytes, float]:
    """How lines go on, with their shares."""
    return {
        text[place:].partition(b"\n")[0]: share for place, share in lines.places(written).items()
    }


@pytest.mark.parametrize(
    ("below", "line"),
    [
        ("\nx = 1\n", "x = 1"),
        ("  \n\n \n\tx = 1 \ny\n", "x = 1"),
        (")\nx = 1\n", ""),
        ("\nx = 1", ""),
        ("\n\n", ""),
        ("", ""),
    ],
)
def test_the_line_below(below: str, line: str) -> None:
    assert line_below(below) == line


@pytest.mark.parametrize(
    ("before", "line"),
    [
        ("x = 1\n", "x = 1"),
        ("\tx = 1 \n \n\n  y", "x = 1"),
        ("x = 1", ""),
        ("\n \n y", ""),
        ("", ""),
    ],
)
def test_the_line_above(before: str, line: str) -> None:
    assert line_above(before) == line


@pytest.mark.parametrize(
    ("begun", "written", "found"),
    [
        pytest.param(b"    ", b"", {b"first = take(1)": 1.0}, id="indented alike"),
        pytest.param(b"    s", b"", {b"econd = take(2)": 1.0}, id="indented otherwise"),
        pytest.param(b"", b"", {b"    first = take(1)": 0.5, b"\tsecond = take(2)": 0.5}, id="all"),
        pytest.param(b"    fi", b"rst = take", {b"(1)": 1.0}, id="written"),
        pytest.param(b"    first = take(1)", b"", {b"": 1.0}, id="whole"),
        pytest.param(b"    third", b"", {}, id="none"),
        pytest.param(b"    ", b"first = take(1)\n", {}, id="the line is done"),
    ],
)
def test_lines_go_on_as_one_has_begun(
    begun: bytes, written: bytes, found: dict[bytes, float]
) -> None:
    text = TEXT + b"\0"
    assert rests(text, LinesBeside.above(text, BELOW, begun), written) == found
    # The same lines below another one.
    text = text.replace(b"():\n", b"():\n  from pen import ink \n\n")
    assert rests(text, LinesBeside.below(text, ABOVE, begun), written) == found


def test_shares_are_of_places() -> None:
    text = b"a = 1\nend()\n" * 3 + b"b = 2\nend()\n"
    found = {b"a = 1": 0.75, b"b = 2": 0.25}
    assert rests(text, LinesBeside.above(text, b"end()", b"")) == found
    text = b"x\na = 1\n" * 3 + b"x\nb = 2\n"
    assert rests(text, LinesBeside.below(text, b"x", b"")) == found


def test_the_nearest_place_of_a_line_is_given() -> None:
    text = b"a = 1\nend()\n" * 3
    assert LinesBeside.above(text, b"end()", b"a").places(b"") == {len(text) - 11: 1.0}
    text = b"x\na = 1\n" * 3
    assert LinesBeside.below(text, b"x", b"a").places(b"") == {len(text) - 5: 1.0}


def test_lines_can_be_left_out() -> None:
    lines = LinesBeside.above(TEXT, BELOW, b"", {b"first = take(1)"})
    assert rests(TEXT, lines) == {b"\tsecond = take(2)": 1.0}
    lines = LinesBeside.below(TEXT, b"def two():", b"", {b"second = take(2)"})
    assert rests(TEXT, lines) == {}


def test_texts_do_not_stand_beside_each_other() -> None:
    text = b"a = 1\n\0end()\nb = 2\n\0\nend()\n\n\0c = 3\n"
    assert rests(text, LinesBeside.above(text, b"end()", b"")) == {}
    assert rests(text, LinesBeside.below(text, b"end()", b"")) == {b"b = 2": 1.0}


def test_a_line_that_is_not_whole_is_none() -> None:
    text = b"a = 1\n\0x\nb = 2\0x\nc = "
    assert rests(text, LinesBeside.below(text, b"x", b"")) == {}


def test_a_line_without_its_break_has_none_beside_it() -> None:
    text = b"},{\nfoo(\n}\n},"
    assert rests(text, LinesBeside.below(text, b"}", b"")) == {}


def test_other_lines_that_hold_it_do_not_count() -> None:
    text = b"a\nnot end()\nb\nend() or\nc\n  end()  \nd\n"
    assert rests(text, LinesBeside.above(text, b"end()", b"")) == {b"c": 1.0}
    assert rests(text, LinesBeside.below(text, b"end()", b"")) == {b"d": 1.0}


def test_so_many_places_are_looked_at() -> None:
    text = b"far = 1\nend()\n" + b"near = 2\nend()\n" * MAX_PLACES
    assert rests(text, LinesBeside.above(text, b"end()", b"")) == {b"near = 2": 1.0}
    text = b"end()\nfar = 1\n" + b"end()\nnear = 2\n" * MAX_PLACES
    assert rests(text, LinesBeside.below(text, b"end()", b"")) == {b"near = 2": 1.0}


def test_beside_no_line_stands_none() -> None:
    assert rests(TEXT, LinesBeside.above(TEXT, b"", b"")) == {}
    assert rests(TEXT, LinesBeside.below(TEXT, b"", b"")) == {}
