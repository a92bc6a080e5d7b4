from __future__ import annotations

import random

import pytest

from lsp_server.documents import Change, Document
from perf.typing_user import BRISK, FULL_SPEED, _first_keystroke, cut_out

FUNCTION = "def f{n}(x):\n    y = x + {n}\n\n    return y\n\n\n"


def python(text: str) -> Document:
    return Document("file:///a.py", "python", 0, text, "a.py")


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("n_chars", [1, 60, 10_000])
def test_cut_out_takes_whole_lines_and_typing_them_gives_the_text_back(
    newline: str, n_chars: int
) -> None:
    text = "".join(FUNCTION.format(n=n) for n in range(12)).replace("\n", newline)
    document = python(text)
    offset, missing = cut_out(document, n_chars)
    assert missing.startswith("def ")
    assert not missing.endswith(("\n", "\r"))
    assert 0.4 * len(text) < offset < 0.8 * len(text)
    assert document.text == text[:offset] + text[offset + len(missing) :]
    while missing:
        keystroke = _first_keystroke(missing)
        at = document.position_at(offset)
        document.apply(Change(text=keystroke, range=(at, at)))
        offset, missing = offset + len(keystroke), missing.removeprefix(keystroke)
    assert document.text == text


def test_cut_out_takes_about_what_it_is_told() -> None:
    text = "".join(FUNCTION.format(n=n) for n in range(50))
    _, missing = cut_out(python(text), 200)
    assert 180 <= len(missing) <= 320


@pytest.mark.parametrize("text", ["", "x\n", "x\ny", "\n\n\nx\n"])
def test_cut_out_wants_three_lines(text: str) -> None:
    with pytest.raises(ValueError, match="expected 3 or more"):
        cut_out(python(text), 100)


@pytest.mark.parametrize(
    ("text", "keystroke"),
    [
        ("ab", "a"),
        ("  ab", "  "),
        ("\n    ab", "\n    "),
        ("\r\n\tab", "\r\n\t"),
        ("\n\n  a", "\n"),
        ("🎉 a", "🎉"),
        (" ", " "),
    ],
)
def test_enter_brings_the_indentation(text: str, keystroke: str) -> None:
    assert _first_keystroke(text) == keystroke


def test_pauses() -> None:
    dice = random.Random(0)
    assert all(0.04 < BRISK.next_s("a", dice) < 0.12 for _ in range(100))
    assert all(0.09 < BRISK.next_s("\n  ", dice) < 0.23 for _ in range(100))
    assert FULL_SPEED.next_s("a", dice) == 0
