from __future__ import annotations

import pytest

from engine.epochs import MAX_CLOSER_CHARS, MAX_DOCUMENTS, MAX_EPOCHS, Epoch, Epochs

BELOW = "\n\n\ndef below():\n    pass\n"


@pytest.mark.parametrize(
    ("suffix", "after_cursor", "holds"),
    [
        pytest.param(BELOW, BELOW, True, id="typing"),
        pytest.param(BELOW, ")" + BELOW, True, id="auto-paired bracket"),
        pytest.param(BELOW, '")' + BELOW, True, id="auto-paired quote in brackets"),
        pytest.param(BELOW, "```" + BELOW, True, id="auto-paired backticks"),
        pytest.param(BELOW, "\n    }" + BELOW, True, id="Enter inside braces"),
        pytest.param(BELOW, "\r\n\t});" + BELOW, True, id="Enter inside braces, CRLF and tab"),
        pytest.param(BELOW, "</div>" + BELOW, False, id="a closing tag has a name"),
        pytest.param(BELOW, "(" + BELOW, False, id="an opening bracket is no closer"),
        pytest.param(BELOW, "x" + BELOW, False, id="code between"),
        pytest.param(BELOW, ") + 1" + BELOW, False, id="code behind a closer"),
        pytest.param(BELOW, BELOW[1:], False, id="the suffix was deleted into"),
        pytest.param(BELOW, BELOW.replace("pass", "return"), False, id="edit below"),
        pytest.param(BELOW, BELOW + "x", False, id="text added at the end"),
        pytest.param(BELOW, ")" + BELOW[:-1] + ")", False, id="same length, other end"),
        pytest.param(")" + BELOW, BELOW, False, id="overtyping what the suffix began with"),
        pytest.param("", "", True, id="end of the file"),
        pytest.param("", "\n", True, id="line break at the end of the file"),
        pytest.param("", "x", False, id="code at the end of the file"),
        pytest.param(BELOW, " " * MAX_CLOSER_CHARS + BELOW, True, id="as many closers as allowed"),
        pytest.param(BELOW, " " * (MAX_CLOSER_CHARS + 1) + BELOW, False, id="one closer too many"),
        pytest.param("))", ")))", True, id="closers before closers"),
    ],
)
def test_holds(suffix: str, after_cursor: str, holds: bool) -> None:
    assert Epoch(suffix=suffix, header="").holds(after_cursor) is holds


def at(epochs: Epochs, after_cursor: str, document: str = "a.py", header: str = "# a.py\n") -> str:
    epoch = epochs.at(document, header=header, after_cursor=after_cursor)
    assert epoch.header == header
    assert epoch.holds(after_cursor)
    return epoch.suffix


def test_one_epoch_while_typing_a_call() -> None:
    epochs = Epochs()
    # print|, print(|), print("|"), print("" |), overtyped to the end
    for closers in ("", ")", '")', ")", ""):
        assert at(epochs, closers + BELOW) == BELOW


def test_an_edit_below_starts_a_new_epoch() -> None:
    epochs = Epochs()
    at(epochs, BELOW)
    assert at(epochs, BELOW + "x = 1\n") == BELOW + "x = 1\n"


def test_a_jump_back_revives_the_old_epoch() -> None:
    epochs = Epochs()
    at(epochs, BELOW)
    assert at(epochs, "pass\n") == "pass\n"
    assert at(epochs, ")" + BELOW) == BELOW


def test_the_newest_of_several_that_hold_is_taken() -> None:
    epochs = Epochs()
    at(epochs, ")" + BELOW)
    at(epochs, BELOW)
    assert at(epochs, "])" + BELOW) == BELOW
    # Used again, the older becomes the newest.
    epochs = Epochs()
    at(epochs, BELOW)
    at(epochs, "x" + BELOW)
    at(epochs, BELOW)
    assert at(epochs, ")" + BELOW) == BELOW


def test_a_changed_header_starts_a_new_epoch_and_the_old_one_is_revived() -> None:
    epochs = Epochs()
    at(epochs, BELOW)
    assert at(epochs, ")" + BELOW, header="# b.py\n") == ")" + BELOW
    assert at(epochs, ")" + BELOW) == BELOW


def test_documents_are_apart() -> None:
    epochs = Epochs()
    at(epochs, BELOW, "a.py")
    assert at(epochs, ")" + BELOW, "b.py") == ")" + BELOW


def test_forget() -> None:
    epochs = Epochs()
    at(epochs, BELOW)
    epochs.forget("a.py")
    epochs.forget("unknown.py")
    assert at(epochs, ")" + BELOW) == ")" + BELOW


@pytest.mark.parametrize(
    ("n_others", "revived"), [(MAX_EPOCHS - 1, True), (MAX_EPOCHS, False)], ids=["kept", "gone"]
)
def test_a_document_keeps_its_last_epochs(n_others: int, revived: bool) -> None:
    epochs = Epochs()
    at(epochs, BELOW)
    for i in range(n_others):
        at(epochs, f"x{i}")
    assert (at(epochs, ")" + BELOW) == BELOW) is revived


@pytest.mark.parametrize(
    ("n_others", "revived"),
    [(MAX_DOCUMENTS - 1, True), (MAX_DOCUMENTS, False)],
    ids=["kept", "gone"],
)
def test_the_last_documents_are_kept(n_others: int, revived: bool) -> None:
    epochs = Epochs()
    at(epochs, BELOW)
    for i in range(n_others):
        at(epochs, "", f"{i}.py")
    assert (at(epochs, ")" + BELOW) == BELOW) is revived


def test_an_epoch_that_is_used_often_takes_no_more_room() -> None:
    epochs = Epochs()
    at(epochs, BELOW)
    for _ in range(MAX_EPOCHS):
        at(epochs, "x" + BELOW)
    assert at(epochs, ")" + BELOW) == BELOW


def test_a_document_in_use_is_kept() -> None:
    epochs = Epochs()
    for i in range(2 * MAX_DOCUMENTS):
        assert at(epochs, ")" * (i > 0) + BELOW) == BELOW
        at(epochs, "", f"{i}.py")
