from __future__ import annotations

import pytest

from lsp_server.indentation import indent_unit, reindented


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        pytest.param("", None, id="nothing"),
        pytest.param("a = 1\nb = 2\n", None, id="flat"),
        pytest.param("if a:\n    b\n", "    ", id="four"),
        pytest.param("if (a) {\n  b;\n}\n", "  ", id="two"),
        pytest.param("int f(\n\tint a) {\n\tb;\n}\n", "\t", id="tabs"),
        pytest.param("if a:\n\n    b\n", "    ", id="blank line between"),
        pytest.param("f(a,\n  b)\nif c:\n    d\n", "    ", id="aligned arguments"),
        pytest.param("/*\n * a\n */\nif (b) {\n\tc;\n}\n", "\t", id="comment's stars"),
        pytest.param("if a:\n  b\nif a:\n\tb\nif a:\n\tb\n", "\t", id="most of a mixture"),
        pytest.param("if a:\n     b\n", None, id="five is no level"),
    ],
)
def test_unit(text: str, unit: str | None) -> None:
    assert indent_unit(text.splitlines(keepends=True)) == unit


@pytest.mark.parametrize(
    ("before", "text", "unit", "expected"),
    [
        pytest.param("if a:", "\n  b", None, "\n  b", id="unclear"),
        pytest.param("\tif a {", "\n        b\n    }", "\t", "\n\t\tb\n\t}", id="fours to tabs"),
        pytest.param("\tif a {", "\n    b\n  }", "\t", "\n\t\tb\n\t}", id="twos to tabs"),
        pytest.param("if a {", "\n  b {\n    c", "\t", "\n\tb {\n\t\tc", id="twos from the left"),
        pytest.param("\t", "a\n\t    b", "\t", "a\n\t\tb", id="tab and spaces"),
        pytest.param("\t", "a(\n\t  b", "\t", "a(\n\t  b", id="aligned behind tabs"),
        pytest.param("", "    a\n    b", "\t", "\ta\n\tb", id="first line's own"),
        pytest.param("\t", "    a\n\t\tb", "\t", "\ta\n\t\tb", id="first line's part"),
        pytest.param("if a:", "\n\tb\n\t\tc", "  ", "\n  b\n    c", id="tabs to twos"),
        pytest.param("  if a:", "\n      b", "  ", "\n    b", id="four to two"),
        pytest.param("    if a:", "\n      b\n", "    ", "\n        b\n", id="two to four"),
        pytest.param("  if a:", "\n    b", "  ", "\n    b", id="as it is"),
        pytest.param(
            "  if a {", "\n      b(\n        c)", "  ", "\n    b(\n      c)", id="aligned"
        ),
        pytest.param("  f(a,", "\n    b)", "  ", "\n    b)", id="no block"),
        pytest.param("  ", "a\n  b", "    ", "a\n  b", id="no step"),
        pytest.param("\t", "if a:\n\t\t\tb", "\t", "if a:\n\t\tb", id="two tabs to one"),
        pytest.param(
            "\tif a {",
            "\n\t\t\tb(c,\n\t\t\t  d)\n\t}",
            "\t",
            "\n\t\tb(c,\n\t\t  d)\n\t}",
            id="and aligned",
        ),
        pytest.param("\tf(a,", "\n\t\t\tb)", "\t", "\n\t\t\tb)", id="two tabs, no block"),
    ],
)
def test_reindented(before: str, text: str, unit: str | None, expected: str) -> None:
    assert reindented(before, text, unit) == expected
    assert reindented(before, expected, unit) == expected
