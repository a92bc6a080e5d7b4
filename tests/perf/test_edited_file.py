from __future__ import annotations

import pytest

from perf.edited_file import EditedFile


def at(marked: str) -> EditedFile:
    """A file whose cursor stands where the text has `|`."""
    before, _, after = marked.partition("|")
    return EditedFile(before + after, len(before))


def marked(file: EditedFile) -> str:
    return f"{file.prefix}|{file.suffix}"


@pytest.mark.parametrize(
    ("before", "edit", "after"),
    [
        ("a|b", lambda file: file.insert("xy"), "axy|b"),
        ("f|", lambda file: file.insert_pair("("), "f(|)"),
        ("f(|)", lambda file: file.overtype(), "f()|"),
        ("  f({|})", lambda file: file.enter(), "  f({\n      |\n  })"),
        ("  f(|x)", lambda file: file.enter(), "  f(\n  |x)"),
        ("\tx|", lambda file: file.enter(), "\tx\n\t|"),
        ("abc|d", lambda file: file.delete(2), "a|d"),
        ("a|d", lambda file: file.delete(9), "|d"),
        ("a|bcd", lambda file: file.delete_after(2), "a|d"),
        ("x.some_word |y", lambda file: file.delete_word(), "x.|y"),
        ("x.|y", lambda file: file.delete_word(), "x|y"),
        ("x\n  |y", lambda file: file.delete_word(), "x|y"),
        ("x\n|y", lambda file: file.delete_word(), "x|y"),
        ("ab|cd", lambda file: file.replace(0, 1, "xyz"), "xyzb|cd"),
        ("ab|cd", lambda file: file.replace(3, 4, "xyz"), "ab|cxyz"),
        ("ab|cd", lambda file: file.jump(0), "|abcd"),
    ],
)
def test_an_edit_and_its_undo(before: str, edit: object, after: str) -> None:
    file = at(before)
    assert callable(edit)
    edit(file)
    assert marked(file) == after
    if file.text != at(before).text:
        assert file.undo()
        assert marked(file) == before


def test_only_a_closer_is_overtyped() -> None:
    file = at("f(|x)")
    assert not file.overtype()
    assert marked(file) == "f(|x)"


def test_the_cursor_is_not_edited_away() -> None:
    with pytest.raises(ValueError, match="the cursor at 2 is inside 1 to 3"):
        at("ab|cd").replace(1, 3, "")


def test_jumps_are_taken_back_one_by_one() -> None:
    file = at("ab|cd")
    file.jump(4)
    file.jump(0)
    assert file.jump_back()
    assert file.cursor == 4
    assert file.jump_back()
    assert file.cursor == 2
    assert not file.jump_back()
