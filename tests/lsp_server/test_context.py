"""Windows that stay put while the user types, and where a completion may run over lines."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsp_server import context
from lsp_server.context import Window, WindowLimits, header_of, lacks_block, multiline_at, window_at
from lsp_server.documents import MAX_PARSE_LINE_CHARS, Change, Document

LIMITS = WindowLimits(prefix_max_chars=400, suffix_max_chars=200)


def document_of(text: str, language_id: str = "python") -> Document:
    return Document("file:///w/a", language_id, 1, text, path="pkg/a.py")


def edit(document: Document, start: int, end: int, text: str) -> int:
    """Replace [start, end) and return the offset behind the new text."""
    document.apply(
        Change(text=text, range=(document.position_at(start), document.position_at(end)))
    )
    return start + len(text)


def python_functions(n: int) -> str:
    return "".join(f"def function_{i}(x):\n    y = x + {i}\n    return y\n\n\n" for i in range(n))


def starts_definition(document: Document, offset: int) -> bool:
    return document.slice(offset, offset + 4) == "def "


def test_a_short_document_is_one_window() -> None:
    document = document_of("a = 1\nb = 2\n")
    window = window_at(document, 6, LIMITS)
    assert (window.prefix, window.suffix) == ("a = 1\n", "b = 2\n")
    assert (window.prefix_start, window.suffix_end) == (0, 12)


def test_edges_stand_at_definitions() -> None:
    document = document_of(python_functions(100))
    window = window_at(document, 2510, LIMITS)
    assert starts_definition(document, window.prefix_start)
    assert starts_definition(document, window.suffix_end)
    assert 100 <= len(window.prefix) <= 300
    assert 50 <= len(window.suffix) <= 200


def test_edges_stand_at_line_starts_without_a_tree() -> None:
    document = document_of(python_functions(100), "plaintext")
    window = window_at(document, 2510, LIMITS)
    assert document.slice(window.prefix_start - 1, window.prefix_start) == "\n"
    assert document.slice(window.suffix_end - 1, window.suffix_end) == "\n"
    assert 100 <= len(window.prefix) <= 300
    assert 50 <= len(window.suffix) <= 200


@pytest.mark.parametrize("language_id", ["python", "plaintext"])
def test_a_line_longer_than_the_windows_is_cut_by_characters(language_id: str) -> None:
    document = document_of("x" * 5_000_000, language_id)
    window = window_at(document, 2_000_000, LIMITS)
    assert (len(window.prefix), len(window.suffix)) == (200, 150)


@pytest.mark.parametrize("n_before", [150, 250])
def test_a_line_over_half_a_window_still_gives_an_edge(n_before: int) -> None:
    document = document_of("x" * 1000 + "\n" + "y" * n_before, "plaintext")
    assert window_at(document, document.n_chars, LIMITS).prefix == "y" * n_before


def test_a_character_cut_never_splits_a_line_end() -> None:
    document = document_of("x" * 1000 + "\r\n" + "y" * 1000 + "\r\n" + "z" * 9)
    for offset in range(1100, 1300):
        window = window_at(document, offset, LIMITS)
        assert not window.prefix.startswith("\n")
    for offset in range(1800, 2003):
        window = window_at(document, offset, LIMITS)
        assert document.slice(window.suffix_end - 1, window.suffix_end + 1) != "\r\n"


def test_typing_moves_the_left_edge_only_when_the_window_is_full() -> None:
    document = document_of(python_functions(100))
    offset = 2510
    window = window_at(document, offset, LIMITS)
    suffix, edges = window.suffix, [window.prefix_start]
    for _ in range(500):
        offset = edit(document, offset, offset, "x\n"[_ % 20 == 19])
        full = len(window.prefix) == LIMITS.prefix_max_chars
        window = window_at(document, offset, LIMITS, window)
        assert window.suffix == suffix
        assert len(window.prefix) <= 400
        assert (window.prefix_start != edges[-1]) == full
        if full:
            assert window.prefix_start > edges[-1]
            assert 100 <= len(window.prefix) <= 300
            edges.append(window.prefix_start)
    assert len(edges) in (3, 4)


def test_a_header_is_made_where_the_left_edge_is_chosen_and_kept_while_it_stands() -> None:
    made: list[tuple[int, str, str]] = []

    def make_header(document: Document, left: int, prefix: str, suffix: str) -> str:
        made.append((left, prefix, suffix))
        return f"{len(made)}"

    document = document_of(python_functions(100))
    offset = 2510
    limits = WindowLimits(prefix_max_chars=800, suffix_max_chars=200)
    window = window_at(document, offset, limits, None, make_header)
    assert made == [(window.prefix_start, window.prefix, window.suffix)]
    for n in range(300):
        offset = edit(document, offset, offset, "x\n"[n % 20 == 19])
        window = window_at(document, offset, limits, window, make_header)
        assert window.header == "1"
    # What moves the right edge alone leaves the header as it is.
    edit(document, offset, document.n_chars, "")
    window = window_at(document, offset, limits, window, make_header)
    assert (window.header, window.suffix, len(made)) == ("1", "", 1)
    edit(document, window.prefix_start - 5, window.prefix_start + 5, "")
    window = window_at(document, offset - 10, limits, window, make_header)
    assert (window.header, len(made)) == ("2", 2)


def test_without_more_a_header_is_the_files_path() -> None:
    document = document_of(python_functions(100))
    assert window_at(document, 2510, LIMITS).header == "# pkg/a.py\n"


def test_typing_at_the_end_of_the_document() -> None:
    document = document_of(python_functions(10))
    window = window_at(document, document.n_chars, LIMITS)
    start = window.prefix_start
    for char in "x = function_1(2)\n":
        edit(document, document.n_chars, document.n_chars, char)
        window = window_at(document, document.n_chars, LIMITS, window)
        assert (window.prefix_start, window.suffix) == (start, "")


def test_closing_brackets_keep_the_right_edge() -> None:
    document = document_of(python_functions(100))
    offset = 2510
    window = window_at(document, offset, LIMITS)
    suffix = window.suffix
    for _ in range(30):
        offset = edit(document, offset, offset, "(")
        edit(document, offset, offset, ")")
        window = window_at(document, offset, LIMITS, window)
        assert window.suffix.endswith(suffix)
    assert window.suffix == ")" * 30 + suffix


def test_edits_above_shift_the_edges() -> None:
    document = document_of(python_functions(100))
    window = window_at(document, 2510, LIMITS)
    added = "# a line\n# another\n"
    edit(document, 0, 0, added)
    edit(document, 100, 105, "")
    shifted = window_at(document, 2510 + len(added) - 5, LIMITS, window)
    assert (shifted.prefix, shifted.suffix) == (window.prefix, window.suffix)
    assert shifted.prefix_start == window.prefix_start + len(added) - 5


def test_an_edit_across_an_edge_makes_it_new() -> None:
    document = document_of(python_functions(100))
    window = window_at(document, 2510, LIMITS)
    edit(document, window.prefix_start - 3, window.prefix_start + 9, "")
    offset = 2510 - 12
    assert window_at(document, offset, LIMITS, window) == window_at(document, offset, LIMITS)


def test_an_edge_older_than_the_kept_edits_is_new() -> None:
    document = document_of(python_functions(100))
    window = window_at(document, 2510, LIMITS)
    moved = window_at(document, 2460, LIMITS, window)
    assert moved.prefix_start != window_at(document, 2460, LIMITS).prefix_start
    for _ in range(300):
        edit(document, 4000, 4000, "x")
    assert window_at(document, 2460, LIMITS, window) == window_at(document, 2460, LIMITS)


@pytest.mark.parametrize("jump", [1000, 4000])
def test_a_jump_out_of_the_window_is_pure(jump: int) -> None:
    document = document_of(python_functions(100))
    window = window_at(document, 2510, LIMITS)
    assert window_at(document, jump, LIMITS, window) == window_at(document, jump, LIMITS)


def test_a_jump_to_just_below_the_left_edge_finds_context() -> None:
    document = document_of(python_functions(100))
    window = window_at(document, 2510, LIMITS)
    assert len(window_at(document, window.prefix_start + 5, LIMITS, window).prefix) >= 100


def test_moving_down_uses_the_suffix_up() -> None:
    document = document_of(python_functions(100))
    window = window_at(document, 2510, LIMITS)
    first = window.suffix_end
    for offset in range(2511, 2700):
        before = window
        window = window_at(document, offset, LIMITS, before)
        assert len(window.suffix) >= 50
        if window.suffix_end != before.suffix_end:
            assert before.suffix_end - offset < 50
    assert window.suffix_end > first


def test_without_limits_the_windows_are_the_document() -> None:
    text = python_functions(100)
    document = document_of(text)
    limits = WindowLimits(prefix_max_chars=None, suffix_max_chars=None)
    window = window_at(document, 2510, limits)
    edit(document, 2510, 2510, "x")
    edit(document, document.n_chars, document.n_chars, "end")
    window = window_at(document, 2511, limits, window)
    assert (window.prefix, window.suffix) == (text[:2510] + "x", text[2510:] + "end")


def test_limits_are_checked() -> None:
    with pytest.raises(ValueError, match=r"prefix_max_chars is 3, expected at least 16"):
        WindowLimits(prefix_max_chars=3)


pieces = st.lists(
    st.sampled_from(["def f():\n", "    x = 1\r\n", "\r", "\n", "😀", "y" * 30, "(", " "]),
    max_size=40,
).map("".join)
moves = st.tuples(st.integers(0, 400), st.integers(0, 30), pieces, st.integers(0, 500))


@settings(max_examples=200, deadline=None)
@given(pieces, st.lists(moves, max_size=6))
def test_windows_are_the_text_around_the_cursor(
    text: str, edits: list[tuple[int, int, str, int]]
) -> None:
    limits = WindowLimits(prefix_max_chars=64, suffix_max_chars=40)
    document = document_of(text)
    window: Window | None = None
    for start, length, inserted, cursor in edits:
        start = min(start, document.n_chars)
        edit(document, start, min(start + length, document.n_chars), inserted)
        cursor = min(cursor, document.n_chars)
        window = window_at(document, cursor, limits, window)
        assert window.prefix == document.text[window.prefix_start : cursor]
        assert window.suffix == document.text[cursor : window.suffix_end]
        assert len(window.prefix) <= 64
        assert len(window.suffix) <= 40
        assert window == window_at(document, cursor, limits, window)


def test_a_keystroke_costs_the_window_not_the_document() -> None:
    document = document_of(python_functions(40_000))
    offset = document.n_chars // 2
    limits = WindowLimits()
    window = window_at(document, offset, limits)
    for char in "warm up\n":
        offset = edit(document, offset, offset, char)
        window = window_at(document, offset, limits, window)
    tracemalloc.start()
    try:
        for char in "x = function_2(y)":
            offset = edit(document, offset, offset, char)
            window = window_at(document, offset, limits, window)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert document.n_chars > 2_000_000
    assert peak < 200_000  # joining the text once takes over 2 MB


@pytest.mark.parametrize(
    ("language_id", "path", "header"),
    [
        ("python", "pkg/mod.py", "# pkg/mod.py\n"),
        ("typescript", "src/a.ts", "// src/a.ts\n"),
        ("plaintext", "notes", "# notes\n"),
        ("go", "odd\r\nname.go", "// odd name.go\n"),
        ("c", "a\udcff.c", "// a\ufffd.c\n"),
    ],
)
def test_header(language_id: str, path: str, header: str) -> None:
    assert header_of(Document("file:///w/x", language_id, 1, "", path=path)) == header


def test_header_without_a_workspace() -> None:
    assert header_of(Document("file:///w/x/m%20d.py", "python", 1, "")) == "# m d.py\n"


def check(language_id: str, text: str, expected: bool) -> None:
    """`|` is the cursor."""
    offset = text.index("|")
    document = document_of(text.replace("|", ""), language_id)
    assert multiline_at(document, offset) is expected


MULTILINE = {
    "after a colon": ("python", "def f(x):\n    |"),
    "after a colon and blank lines": ("python", "if x:\n\n\n    |\ny = 1\n"),
    "after a colon and a comment": ("python", "for i in x:  # each\n    # one\n    |"),
    "after a docstring": ("python", 'def f(x):\n    """Do.\n\n    It: does.\n    """\n    |'),
    "in a call": ("python", "f(\n    a,\n    |\n)\n"),
    "in an unfinished call": ("python", "x = f(a,\n    |"),
    "in a dict": ("python", "x = {\n    'a': 1,\n    |\n}\n"),
    "in a list of lists": ("python", "x = [\n    [1, 2],\n    |\n]\n"),
    "before closers": ("python", "f(\n    |)\n"),
    "after a brace": ("javascript", "function f() {\n  |\n}\n"),
    "after a brace and a comment": ("javascript", "if (x) { // why\n  |\n}\n"),
    "in an object": ("javascript", "x = {\n  a: 1,\n  |\n};\n"),
    "in a template's code": ("javascript", "x = `a ${f(\n  |\n)}`;\n"),
    "in an arrow function": ("typescriptreact", "const f = () => {\n  |\n};\n"),
    "in an empty class": ("java", "class A {\n    |\n}\n"),
    "in a match": ("rust", "fn f() {\n    match x {\n        |\n    }\n}\n"),
    "in a composite literal": ("go", "package a\n\nvar x = []int{\n\t1,\n\t|\n}\n"),
    "in an initializer": ("c", "int x[] = {\n    1,\n    |\n};\n"),
    "after a label": ("cpp", "class A {\npublic:\n  |\n};\n"),
    "colon, no tree": ("plaintext", "if x:\n    |"),
    "colon and comment, no tree": ("plaintext", "if x:  # why: so\n    # more\n    |"),
    "call, no tree": ("plaintext", "f(\n    a,\n    |\n)"),
}
SINGLE_LINE = {
    "first line": ("python", "|"),
    "in a word": ("python", "def f(x):\n    ret|"),
    "after a statement": ("python", "def f(x):\n    y = 1\n    |"),
    "before code": ("python", "def f(x):\n    |return 1\n"),
    "at the top": ("python", "import a\n|\nimport b\n"),
    "in a docstring": ("python", 'def f(x):\n    """Do:\n    |\n    """\n'),
    "after a colon in a comment": ("python", "x = 1  # so:\n|\n"),
    "after a colon in a string": ("python", "x = 'so:'\n|\n"),
    "after a closed call": ("python", "x = f(\n    1,\n)\n|\n"),
    "after a bracket in a string": ("python", "x = '('\n|\n"),
    "after an abandoned bracket": ("python", "def f():\n    x = g(\ndef h():\n    y = 1\n    |\n"),
    "after a bracket left open in a block": ("javascript", "if (x) { g(\n}\n|"),
    "after a statement in a block": ("javascript", "function f() {\n  a();\n  |\n}\n"),
    "in a class with members": ("java", "class A {\n    int x;\n    |\n}\n"),
    "after a closed block": ("rust", "fn f() {\n    if a {\n    }\n    |\n}\n"),
    "in a block comment": ("c", "/* so:\n|\n*/\n"),
    "in a raw string": ("go", "package a\n\nvar x = `a {\n|\n`\n"),
    "statement, no tree": ("plaintext", "x {\n  a;\n  |\n}"),
    "comment, no tree": ("plaintext", "x\n# so:\n|"),
}


@pytest.mark.parametrize(("language_id", "text"), MULTILINE.values(), ids=MULTILINE)
def test_multiline(language_id: str, text: str) -> None:
    check(language_id, text, True)
    check(language_id, text.replace("\n", "\r\n"), True)


@pytest.mark.parametrize(("language_id", "text"), SINGLE_LINE.values(), ids=SINGLE_LINE)
def test_single_line(language_id: str, text: str) -> None:
    check(language_id, text, False)
    check(language_id, text.replace("\n", "\r\n"), False)


@pytest.mark.parametrize(
    ("language_id", "text", "expected"),
    [
        pytest.param("go", "func f() {\n\tif a|\n}\n", True, id="the function's end"),
        pytest.param("go", "func f() {\n\tif a|\n\tb()\n}\n", True, id="a statement beside"),
        pytest.param("go", "func f() {\n\tif a|\n\n\t\tb()\n\t}\n}\n", False, id="its statement"),
        pytest.param("go", "func f() {\n\tif a|\n\t}\n}\n", False, id="its end"),
        pytest.param("go", "func f(|", True, id="nothing"),
        pytest.param("javascript", "a(() =>|\n)\n", True, id="another bracket's end"),
        pytest.param("javascript", "if (a|)\n", False, id="a rest of the line"),
        pytest.param("javascript", "// if|\n", False, id="a comment"),
        pytest.param("javascript", "/*\n|\n*/\n", False, id="a long comment"),
        pytest.param("rust", "/// why\n|\n", True, id="below a comment"),
        pytest.param("javascript", "\tif (a|\n  b()\n", True, id="two columns, beside a tab"),
        pytest.param("python", "if a|\n", False, id="no braces"),
        pytest.param("plaintext", "if a|\n", False, id="no tree"),
    ],
)
def test_whether_a_block_would_be_closed(language_id: str, text: str, expected: bool) -> None:
    for newline in ("\n", "\r\n"):
        before, after = (part.replace("\n", newline) for part in text.split("|"))
        document = document_of(before + after, language_id)
        assert lacks_block(document, len(before)) is expected


def test_multiline_with_wide_characters_before_the_opener() -> None:
    check("python", "x = '😀é'  # é\nf('😀', (\n    |", True)
    check("python", "x = '😀é('  # é(\n|", False)
    check("python", "if '😀é':  # why\n    |", True)


def test_multiline_anywhere_in_noise() -> None:
    rng = random.Random(1)
    for language_id in ("python", "javascript", "rust", "plaintext"):
        text = "".join(rng.choice("(){}[]:\"'\n\r\t #/a😀\0") for _ in range(400))
        document = document_of(text, language_id)
        for offset in range(document.n_chars + 1):
            multiline_at(document, offset)
            lacks_block(document, offset)


def test_multiline_in_a_huge_line() -> None:
    document = document_of("x" * (MAX_PARSE_LINE_CHARS + 1) + "(\n\n")
    assert document.tree is None
    assert multiline_at(document, document.n_chars - 1)
    assert context.BRACKET_LOOKBACK_CHARS < MAX_PARSE_LINE_CHARS
