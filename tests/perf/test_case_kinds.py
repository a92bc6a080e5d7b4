"""What is taken out at a cursor, told on short files: ‸ is the cursor, what is cut stands in ⟦⟧."""

from __future__ import annotations

import pytest

from lsp_server.documents import Document
from perf.case_kinds import KINDS, LINE_KINDS, MAX_TRUTH_LINES, cut, kind_at, line_cut

LANGUAGES = {"py": "python", "go": "go", "rs": "rust", "ts": "typescript", "": "plaintext"}


def check_kind(marked: str, kind: str, extension: str = "py") -> None:
    """The cursor's kind; the file is parsed as a whole."""
    before, after = marked.split("‸")
    document = Document("", LANGUAGES[extension], 0, before + after)
    assert kind_at(document, len(before)) == kind


def check_cut(kind: str, marked: str, extension: str = "py", multiline: bool = False) -> None:
    """What a case of this kind takes out, for a cursor at ‸."""
    plain = marked.replace("⟦", "").replace("⟧", "")
    offset = plain.index("‸")
    document = Document("", LANGUAGES[extension], 0, plain.replace("‸", ""))
    found = cut(document, offset, kind)
    assert found is not None
    start, end, found_kind, found_multiline = found
    shown = document.text[:start] + "⟦" + document.text[start:end] + "⟧" + document.text[end:]
    assert shown == marked.replace("‸", "")
    assert (found_kind, found_multiline) == (kind, multiline)


def check_no_cut(kind: str, marked: str, extension: str = "py") -> None:
    before, after = marked.split("‸")
    document = Document("", LANGUAGES[extension], 0, before + after)
    assert cut(document, len(before), kind) is None


@pytest.mark.parametrize(
    ("marked", "kind"),
    [
        ("total =‸ 1\n", "end-of-line"),
        ("tot‸al = 1\n", "mid-word"),
        ("if x:\n    ‸total = 1\n", "after-indentation"),
        ("if x:\n  ‸  total = 1\n", "after-indentation"),
        ("self.‸total = 1\n", "after-dot"),
        ("items[0].‸total = 1\n", "after-dot"),
        ("x = 1.‸5\n", "end-of-line"),
        ("x = 1.‸e5\n", "end-of-line"),
        ("', '.‸join(x)\n", "after-dot"),
        ("pattern = '.‸env'\n", "end-of-line"),
        ("print(‸total)\n", "in-call"),
        ("print(a, ‸total)\n", "in-call"),
        ("print‸(total)\n", "end-of-line"),
        ("print(tot‸al)\n", "mid-word"),
        ("x = 1  # how‸ much\n", "comment"),
        ("x = 1 ‸ # how much\n", "end-of-line"),
        ("def f():\n    '''How‸ much.'''\n", "docstring"),
        ("def f():\n    '''How\n\n    ‸much.\n    '''\n", "docstring"),
        ("x = 'how‸ much'\n", "end-of-line"),
        ("class A(‸B):\n    pass\n", "end-of-line"),
        ("f(lambda: ‸ 1)\n", "in-call"),
    ],
)
def test_kinds_of_cursors(marked: str, kind: str) -> None:
    check_kind(marked, kind)


@pytest.mark.parametrize(
    ("extension", "marked", "kind"),
    [
        ("go", "package a\n\nfunc f() { g(‸1) }\n", "in-call"),
        ("go", "package a\n\n// How‸ much.\n", "comment"),
        ("rs", "fn f() { g(‸1); }\n", "in-call"),
        ("rs", "/// How‸ much.\nfn f() {}\n", "comment"),
        ("ts", "on(() => {\n  f‸ = 1;\n});\n", "end-of-line"),
        ("ts", "on(‸x);\n", "in-call"),
        ("ts", "x = y?.‸z;\n", "after-dot"),
        ("ts", "x = [...‸z];\n", "end-of-line"),
        ("", "some (‸text)\n", "end-of-line"),
    ],
)
def test_kinds_in_other_languages(extension: str, marked: str, kind: str) -> None:
    check_kind(marked, kind, extension)


def test_the_rest_of_the_line_is_cut_without_its_end() -> None:
    document = Document("", "python", 0, "x = 12\r\ny\r\n")
    assert line_cut(document, 4) == (4, 6, "end-of-line", False)
    assert line_cut(document, 6) is None
    blank = Document("", "python", 0, "x   \n")
    assert line_cut(blank, 1) is None


def test_a_kind_is_cut_where_it_is_and_nowhere_else() -> None:
    check_cut("end-of-line", "x = ‸⟦12⟧\n")
    check_no_cut("mid-word", "x = ‸12\n")
    # The cursor goes to the end of the indentation.
    check_cut("after-indentation", "if x:\n    ⟦y = ‸1⟧\n")


def test_a_statement_is_cut_to_its_end() -> None:
    check_cut("after-indentation", "if x:\n    ⟦‸f(\n        1,\n    )⟧\n    y\n", multiline=True)
    check_cut("after-indentation", "⟦‸f(\n    1,\n);⟧\ng();\n", "ts", multiline=True)
    # What has a body is not one suggestion.
    check_cut("after-indentation", "⟦‸for x in y:⟧\n    z\n")
    check_cut("after-indentation", "if x {\n    ⟦‸for {⟧\n        z()\n    }\n}\n", "go")


def test_the_first_statement_of_a_body_is_not_the_body() -> None:
    text = "package a\n\nfunc f() {\n\t⟦‸g()⟧\n\th()\n}\n"
    check_cut("after-indentation", text, "go")


def test_an_expression_is_cut_that_has_something_behind_it() -> None:
    check_cut("mid-line", "f(a, ‸⟦b + c⟧)\n")
    check_cut("mid-line", "if x ‸⟦> 3⟧:\n    y\n")
    check_cut("mid-line", "x = [f(‸⟦y)⟧ for y in z]\n")
    check_no_cut("mid-line", "x = ‸y\n")
    check_no_cut("mid-line", "x = y  # a ‸(b) c\n")


def test_bodies_are_cut_without_braces_and_docstrings() -> None:
    check_cut("empty-body", "def f(x):\n    ⟦y = ‸x\n    return y⟧\n\n\nz\n", multiline=True)
    check_cut("empty-body", 'def f(x):\n    """Doc."""\n    ⟦return ‸x⟧\n', multiline=True)
    check_cut("empty-body", "if x:\n    ⟦‸y⟧\nelse:\n    z\n", multiline=True)
    check_cut("empty-body", "if x:\n    y\nelse:\n    ⟦‸z⟧\n", multiline=True)
    check_cut("empty-body", "func f() {\n\t⟦x ‸:= 1\n\tg(x)⟧\n}\n", "go", multiline=True)
    check_cut("empty-body", "fn f() -> u8 {\n    ⟦let x = ‸1;\n    x⟧\n}\n", "rs", multiline=True)
    check_cut("empty-body", "f(() => {\n  ⟦g(‸);⟧\n});\n", "ts", multiline=True)


def test_no_body_where_it_has_no_lines_of_its_own() -> None:
    check_no_cut("empty-body", "def f(): return ‸1\n")
    check_no_cut("empty-body", "x = ‸1\n")
    long = "".join(f"    x{n} = 1\n" for n in range(MAX_TRUTH_LINES + 1))
    check_no_cut("empty-body", "def f():\n    ‸y\n" + long)


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="kind is 'middle', expected one of comment"):
        cut(Document("", "python", 0, "x\n"), 0, "middle")
    assert set(LINE_KINDS) < set(KINDS)
