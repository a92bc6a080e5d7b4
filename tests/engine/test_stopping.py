from __future__ import annotations

import pytest

from engine.stopping import StopRule


def end_of(multiline: bool, line_before: str, text: str) -> str | None:
    end = StopRule(multiline=multiline, line_before=line_before).end(text)
    return None if end is None else text[:end]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        pytest.param("", None, id="nothing yet"),
        pytest.param("x = 1", None, id="no line break yet"),
        pytest.param("x = 1\n", "x = 1", id="LF"),
        pytest.param("x = 1\r\ny", "x = 1", id="CRLF"),
        pytest.param("x = 1\r", "x = 1", id="half of a CRLF"),
        pytest.param("\n    pass", "", id="starts with a line break"),
        pytest.param("a\u2028b\x0c\x85", None, id="no line breaks to an editor"),
    ],
)
def test_a_single_line_ends_before_its_break(text: str, kept: str | None) -> None:
    assert end_of(False, "    ", text) == kept


@pytest.mark.parametrize(
    ("line_before", "text", "kept"),
    [
        pytest.param("    ", "", None, id="nothing yet"),
        pytest.param("    ", "x = 1\n", None, id="one line may go on"),
        pytest.param("    ", "x = 1\n    y = 2\n    z", None, id="lines beside"),
        pytest.param("    ", "if x:\n        y\n    z", None, id="deeper and back"),
        pytest.param("    ", "x\n\n", "x", id="blank line"),
        pytest.param("    ", "x\n  \t\n", "x", id="blank line with white space"),
        pytest.param("    ", "x\n   ", None, id="blank so far"),
        pytest.param("    ", "x\n  y", "x", id="dedent"),
        pytest.param("    ", "x\n}", "x", id="the block's own closing brace"),
        pytest.param("    ", "x\n    y\nz\n\n", "x\n    y", id="dedent before a blank line"),
        pytest.param("\t", "x\n\ty\nz", "x\n\ty", id="dedent from tabs"),
        pytest.param("", "    x\n    y\nz", "    x\n    y", id="the text brings the indentation"),
        pytest.param("  ", "  x\n  y", "  x", id="the text adds to the indentation"),
        pytest.param("    ", "x\r\n\r\n", "x", id="CRLF, blank line"),
        pytest.param("    ", "x\r\n    y\r\nz", "x\r\n    y", id="CRLF, dedent"),
        pytest.param("    ", "x\r\n    y\r", None, id="CRLF, cut in two"),
        # The line of the cursor stays blank, or is complete already.
        pytest.param("    ", "\n    x\n    y", None, id="blank first line"),
        pytest.param("    ", "\n    x\n\n", "\n    x", id="blank first line, then blank"),
        pytest.param("    ", "\ndef", "", id="blank first line, then dedent"),
        pytest.param("", "\n    x\ny", "\n    x", id="blank first line, then indentation"),
        pytest.param("", "\n\ndef f():\n    x\n\n", "\n\ndef f():\n    x", id="two blank lines"),
        pytest.param("", "\n\n\n", "", id="nothing but blank lines"),
        pytest.param("def f():", "\n    x\n    y", None, id="opens a block"),
        pytest.param("def f():", "\n    x\n\n", "\n    x", id="opens a block, then blank"),
        pytest.param("def f():", "\n\n    x\n", None, id="opens a block with a blank line"),
        pytest.param("  def f():", "\n    x\ny", "\n    x", id="opens a block, then dedent"),
        pytest.param("  def f():", "\ny", "", id="opens no block"),
        pytest.param(
            "    return f(", "\n        x,\n    )\n    ", "\n        x,\n    )", id="closer ends"
        ),
        pytest.param("    return f(", "\n        x,\n    )", None, id="closer may go on"),
        pytest.param("if (x) {", "\n\ta()\n} else {\n\tb()\n", None, id="closes and opens"),
        pytest.param(
            "if (x) {", "\n\ta()\n} else {\n\tb()\n}\nc", "\n\ta()\n} else {\n\tb()\n}", id="brace"
        ),
        pytest.param("if x:", "\n    y\nelse:\n    z\n", None, id="clauses go on"),
        pytest.param("if x:", "\n    y\nelsewhere()\n", "\n    y", id="statement beside a block"),
        pytest.param("if x:", "\n    y\nel", None, id="may become a clause"),
    ],
)
def test_several_lines_end_before_a_blank_line_or_a_dedent(
    line_before: str, text: str, kept: str | None
) -> None:
    assert end_of(True, line_before, text) == kept
    # Found once, the end stays where it is whatever comes; before it, no shorter text has one.
    shortest = next((n for n in range(len(text) + 1) if end_of(True, line_before, text[:n])), None)
    if kept:
        assert shortest is not None
        assert end_of(True, line_before, text[:shortest]) == kept
        assert end_of(True, line_before, text + "\nmore\n\n") == kept


@pytest.mark.parametrize(
    ("line_before", "text", "kept"),
    [
        pytest.param("\tif a", " {\n", None, id="opens"),
        pytest.param("\tif a", " {\n\t\tb()\n\t}\n", " {\n\t\tb()\n\t}", id="to its end"),
        pytest.param("\tif a", " {\r\n\t\tb()\r\n\t}\r\n", " {\r\n\t\tb()\r\n\t}", id="CRLF"),
        pytest.param("\t", "if a { \n\t\tb()\n}", "if a { \n\t\tb()", id="dedent"),
        pytest.param("\tif a", " {\n\tb()\n", " {", id="nothing in it"),
        pytest.param("\tif a", "() {}\n\tb()", "() {}", id="closed at once"),
        pytest.param("\t", "f(\n", "f(", id="another bracket"),
        pytest.param("\tcase a", ":\n", ":", id="no bracket"),
        pytest.param("\tif a ", "{\n\t\tb()\n}", "{\n\t\tb()", id="brace alone"),
    ],
)
def test_a_line_that_opens_a_block_may_go_on_with_it(
    line_before: str, text: str, kept: str | None
) -> None:
    end = StopRule(multiline=False, line_before=line_before, with_block=True).end(text)
    assert (None if end is None else text[:end]) == kept
    # Elsewhere the line is all.
    first_line = text.splitlines()[0]
    assert end_of(False, line_before, text) == first_line


def test_a_block_that_is_cut_has_complete_lines() -> None:
    rule = StopRule(multiline=False, line_before="\tif a", with_block=True)
    assert rule.unfinished(" {\n\t\tb()\n\t\tc") == " {\n\t\tb()"
    assert rule.unfinished(" {\n\t\tb") == " {"
    assert rule.unfinished(" && c == d") == " && c =="


@pytest.mark.parametrize(
    ("multiline", "text", "shown"),
    [
        pytest.param(False, "", "", id="nothing"),
        pytest.param(False, "retu", "", id="part of a word"),
        pytest.param(False, "return self.na", "return self.", id="part of the last word"),
        pytest.param(False, "return nämé", "return", id="not ASCII"),
        pytest.param(False, "f(x)", "f(x)", id="ends with no word"),
        pytest.param(False, "x = ", "x =", id="white space at the end"),
        pytest.param(False, "    ", "", id="white space alone"),
        pytest.param(True, "a b", "a", id="first line of several: words"),
        pytest.param(True, "a\n    b c", "a", id="complete lines"),
        pytest.param(True, "a\n    b\n    c", "a\n    b", id="more complete lines"),
        pytest.param(True, "a b\n", "a b", id="a line just completed"),
        pytest.param(True, "a b\n    ", "a b", id="white space on the next line"),
        pytest.param(True, "a\r\n    b\r\n    c", "a\r\n    b", id="CRLF"),
        pytest.param(True, "a b\r", "a b", id="CRLF cut in two"),
        pytest.param(
            True, "\n    return x", "\n    return", id="blank first line: words of the next"
        ),
        pytest.param(True, "\n    retu", "", id="blank first line, part of a word"),
        pytest.param(True, "\n    return x\n    y", "\n    return x", id="blank first line, lines"),
        pytest.param(True, "\n\n", "", id="blank lines alone"),
        pytest.param(False, "a(b, [c] + ", "a", id="bracket left open"),
        pytest.param(False, "a(b) + c[d] (", "a(b) + c[d]", id="bracket left open behind others"),
        pytest.param(False, 'a = "b c', "a =", id="quote left open"),
        pytest.param(True, "if (a) {\n    b", "if (a) {", id="a complete line opens a block"),
        pytest.param(False, "a, b, ", "a, b", id="comma at the end"),
        pytest.param(False, "1, 2" + ", 2" * 8, "1, 2", id="again and again"),
        pytest.param(False, "m7, " * 8, "m7", id="again and again from the start"),
        pytest.param(False, "join(os.path." * 4, "join", id="again and again, left open"),
        pytest.param(False, "do_it" + "_ten" * 6, "", id="again and again in a word"),
        pytest.param(
            True, "a\n    b = c\n" + "    d = e\n" * 4, "a\n    b = c\n    d = e", id="lines"
        ),
    ],
)
def test_unfinished_shows_complete_lines_or_words(multiline: bool, text: str, shown: str) -> None:
    assert StopRule(multiline=multiline, line_before="    ").unfinished(text) == shown


def _first_loop(text: str, nearby: tuple[str, ...] = ()) -> int | None:
    rule = StopRule(multiline=False, line_before="", nearby=nearby)
    return next((n for n in range(len(text) + 1) if rule.is_loop(text[:n])), None)


@pytest.mark.parametrize(
    ("text", "n"),
    [
        pytest.param("1, " * 9, 24, id="short words"),
        pytest.param("x = [" + "m7, " * 9, 29, id="behind others"),
        pytest.param("join(os.path." * 5, 52, id="long words"),
        pytest.param("aab_aab_aac_" * 4, 48, id="alike within"),
        pytest.param("-" * 80, None, id="ruler"),
        pytest.param("| --- " * 20, None, id="table"),
        pytest.param("0" * 64, None, id="zeros"),
        pytest.param("01" * 32, None, id="pairs"),
        pytest.param("    " * 20, None, id="blanks"),
        pytest.param("0.0, 0.0, 0.0, 1.0", None, id="four numbers"),
        pytest.param("Path(a).parent.parent.parent", None, id="three alike"),
        pytest.param("[0, 0, 0, 0, 0, 0, 0]", None, id="seven short ones"),
    ],
)
def test_a_text_that_says_the_same_again_and_again_is_a_loop(text: str, n: int | None) -> None:
    assert _first_loop(text) == n


def test_what_the_code_nearby_says_again_and_again_is_no_loop() -> None:
    row = "0, " * 20
    assert _first_loop(row, ("x", f"m = [{row}]")) is None
    assert _first_loop(row, ("m = [0, 0, 0]",)) is not None
