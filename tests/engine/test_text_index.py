from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.lines_beside import line_above
from engine.text_index import (
    DEPTH,
    MAX_PLACES,
    MIN_MATCH_BYTES,
    PASSAGE_BYTES,
    PLACES_PER_LENGTH,
    TextIndex,
)

FILES = (
    "def area(width, height):\n    return width * height\n",
    "total = area(3, 4)\nprint(total)\n",
    "größe = area(5, 6)\n",
)


def longest_match(texts: tuple[str, ...], end: str) -> int:
    """How many bytes of a text's end stand together in any of the texts."""
    wanted = end.encode()[-DEPTH:]
    return max(
        (n for n in range(len(wanted) + 1) if any(wanted[-n or n :] in t.encode() for t in texts)),
        default=0,
    )


def test_what_follows_the_longest_match_comes_first() -> None:
    index = TextIndex(FILES)
    first, *others = index.passages("x = 1\ntotal = area(")
    assert first == FILES[1]
    # Shorter matches: of " = area(" and of "area(".
    assert set(others) == {FILES[0], FILES[2]}


def test_texts_left_out_give_nothing() -> None:
    index = TextIndex(FILES)
    assert index.passages("total = area(", without={1, 0}) == (FILES[2],)
    assert index.passages("total = area(", without={0, 1, 2}) == ()


def test_the_longest_match_is_that_of_the_texts_that_are_left() -> None:
    end = "abcdefghijklmnopqrstuvwxyz0123456789ABCD"
    near, far = f"?{end[-12:]} near\n", f"?{end[-16:]} far\n"
    # Thirds of the 40 bytes of the text itself are 26, 17 and 11: these do not tell them apart.
    assert TextIndex([end, near, far]).passages(end, near=0, without={0}) == (far, near)


@pytest.mark.parametrize(
    ("after", "passages"),
    [
        pytest.param("\n    return all_of(it)\n", ("two = 2\n\nreturn all_of(it)\n",), id="one"),
        pytest.param(
            "  \n\n\treturn all_of(it) \n", ("two = 2\n\nreturn all_of(it)\n",), id="blanks"
        ),
        pytest.param(")\nreturn all_of(it)\n", (), id="something behind the cursor"),
        pytest.param("\nreturn all_of(it)", (), id="perhaps half a line"),
        pytest.param("\nall_of(it)\n", (), id="the end of a line"),
        pytest.param("\n" + "y" * 70 + "\n", ("yes\n" + "y" * 70 + "\n",), id="a long line"),
        pytest.param("\n" + "z" + "y" * 70 + "\n", (), id="another long line"),
        pytest.param("\n  \n", (), id="no line"),
    ],
)
def test_what_stands_above_the_line_below(after: str, passages: tuple[str, ...]) -> None:
    texts = [
        "two = 2\n\nreturn all_of(it)\nthree = 3\n",
        "yes\n" + "y" * 70 + "\nno\n",
        "x" * PASSAGE_BYTES + "\nreturn all_of(it)\n",
    ]
    index = TextIndex(texts)
    assert index.passages("", after, without={2}) == passages
    if passages[:1] == ("two = 2\n\nreturn all_of(it)\n",):
        # A line of which the start is not seen is none.
        assert index.passages("", after)[1] == "return all_of(it)\n"


@pytest.mark.parametrize(
    ("before", "passages"),
    [
        pytest.param("def f():\n\n\t#", ("def f():\n    y = 1\n",), id="one"),
        pytest.param("def f():#", (), id="perhaps half a line"),
        pytest.param("f():\n#", (), id="the end of a line"),
        pytest.param("y" * 70 + "\n#", ("  " + "y" * 70 + "\nlast\n",), id="a long line"),
        pytest.param("z" + "y" * 70 + "\n#", (), id="another long line"),
    ],
)
def test_what_stands_below_the_line_above(before: str, passages: tuple[str, ...]) -> None:
    texts = ["first\ndef f():\n    y = 1\n", "no\n  " + "y" * 70 + "\nlast\n"]
    assert TextIndex(texts).passages(before) == passages


@pytest.mark.parametrize("end", ["", "a", "no such thing anywhere @@@@@", "(3\0"])
def test_nothing_alike_gives_nothing(end: str) -> None:
    assert TextIndex(FILES).passages(end) == ()
    assert TextIndex([]).passages(end) == ()
    assert TextIndex([""]).passages(end) == ()


def test_a_passage_ends_with_its_text_and_between_characters() -> None:
    text = "ß" * 100 + "anchor" + "ü" * 200
    other = "anchored\n"
    first, second = TextIndex([text, other]).passages("the anchor", near=0)
    # From the line's start on, and 160 bytes of what is behind it.
    assert first == "ß" * 100 + "anchor" + "ü" * 80
    assert second == other


def test_of_equal_matches_the_nearest_texts_are_taken() -> None:
    texts = [f"value = compute({n})\n" for n in range(3 * PLACES_PER_LENGTH)]
    passages = TextIndex(texts).passages("value = compute(", near=10)
    assert [texts.index(passage) for passage in passages] == [10, 9, 11, 8, 12, 7, 13, 6]


def test_what_stands_everywhere_says_nothing() -> None:
    text = "    x,\n" * (MAX_PLACES + 1)
    index = TextIndex([text, "the only    x,\n    y\n"])
    assert index.passages("the only    x,\n    ")
    # All that is shorter stands in too many places.
    assert index.passages("    x,\n    ") == ()


def test_a_passage_stands_once() -> None:
    (passage,) = TextIndex(["abcabcabcabc\n"]).passages("abcabc")
    assert passage == "abcabcabcabc\n"


@settings(max_examples=200, deadline=None)
@given(
    texts=st.lists(st.text("ab\nß", max_size=90), max_size=4).map(tuple),
    end=st.text("ab\nß", max_size=90),
)
def test_the_longest_match_is_found(texts: tuple[str, ...], end: str) -> None:
    n = longest_match(texts, end)
    passages = TextIndex(texts).passages(end)
    if n >= MIN_MATCH_BYTES:
        assert end.encode()[-n:] in passages[0].encode()
    else:
        assert not passages or line_above(end)


def test_no_match_goes_from_one_text_to_another() -> None:
    index = TextIndex(["one\n", "def f():\n    return 1\n"])
    # But for the line below the one above.
    assert index.passages("x\n    return 1\n\0") == ("    return 1\n",)
    assert index.passages("    return 1\n\0\x00one\n#") == ()


def test_a_passage_begins_with_a_whole_line() -> None:
    text = "x = 1\n" + "    name = " + "y" * DEPTH + "(\n  z)\n"
    (passage,) = TextIndex([text]).passages("y" * DEPTH + "(")
    assert passage == text[6:]
    # Unless it is a long one.
    (passage,) = TextIndex(["x" * 2 * PASSAGE_BYTES + text]).passages("= " + "y" * DEPTH + "(")
    assert passage == text[6:]
    (passage,) = TextIndex(["x" * 2 * PASSAGE_BYTES + "y" * DEPTH + "(\n"]).passages("y" * 70 + "(")
    assert passage == "y" * (DEPTH - 1) + "(\n"


def test_thousands_of_texts_can_be_left_out() -> None:
    index = TextIndex([f"value = compute({n})\n" for n in range(1500)])
    (passage,) = index.passages("value = compute(", without=set(range(1500)) - {700})
    assert passage == "value = compute(700)\n"


def test_long_texts_are_searched_to_full_depth() -> None:
    dice = random.Random(5)
    # Few characters, so that all strings of up to ten stand somewhere else too.
    texts = ["".join(dice.choices("ab", k=4000)) for _ in range(3)]
    index = TextIndex(texts)
    for _ in range(50):
        text = dice.choice(texts)
        place = dice.randrange(DEPTH, len(text) - PASSAGE_BYTES)
        first = index.passages("c" + text[place - DEPTH : place])[0]
        assert first.endswith(text[place - DEPTH : place + PASSAGE_BYTES])


def test_it_holds_five_bytes_for_each_of_its_texts() -> None:
    index = TextIndex(["x" * 1000])
    assert index.n_bytes == 1001 + 4 * 1002
