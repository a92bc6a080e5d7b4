from __future__ import annotations

from typing import Any

import pytest

from lsp_server.documents import Document
from lsp_server.excerpt import _BODIES, MAX_LINES, NEAR_LINES, _far_rows, excerpt_at
from lsp_server.showing import n_errors

PYTHON = "".join(
    f"class C{c}:\n"
    + "".join(f"    def m{c}_{m}(self):\n        return [{m}]\n\n" for m in range(60))
    for c in range(20)
)
JAVA = "".join(
    f"class C{c} {{\n"
    + "".join(f"    int m{c}_{m}() {{\n        return {m};\n    }}\n" for m in range(60))
    + "}\n"
    for c in range(20)
)
GO = "package a\n" + "".join(
    f"func f{f}() {{\n" + "".join(f"\tg({n})\n" for n in range(200)) + "}\n" for f in range(20)
)
TABLE = "x = {\n" + "".join(f"    {n}: '{n}',\n" for n in range(4000)) + "}\n"
TEXTS = {"python": PYTHON, "java": JAVA, "go": GO}


def errors(language_id: str, text: str) -> int:
    tree = Document("", language_id, 0, text).tree
    assert tree is not None
    return n_errors(tree)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.37, 0.5, 0.81, 1.0])
@pytest.mark.parametrize("language_id", TEXTS)
def test_the_lines_near_by_in_a_text_that_parses(language_id: str, share: float) -> None:
    text = TEXTS[language_id]
    document = Document("", language_id, 0, text)
    assert document.tree is not None
    offset = int(len(text) * share)
    excerpt, at = excerpt_at(document, offset)
    row = document.line_of(offset)
    assert excerpt.count("\n") < 6 * NEAR_LINES
    near = document.lines[max(row - NEAR_LINES // 2, 0) : row + NEAR_LINES // 2]
    assert "".join(near) in excerpt
    assert text[:offset].endswith(excerpt[:at][-200:])
    assert text[offset:].startswith(excerpt[at:][:200])
    assert errors(language_id, excerpt) == 0
    assert errors(language_id, excerpt[:at] + " ) ] } " + excerpt[at:]) > 0


def test_a_short_text_is_whole() -> None:
    document = Document("", "python", 0, "x = 1\ny = 2\n")
    assert excerpt_at(document, 8) == (document.text, 8)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("\n" * 500, id="blank"),
        pytest.param("# comment\n" * 500, id="comments"),
        pytest.param("x = '''\n" + "text\n" * 500 + "'''\n", id="string"),
        pytest.param("x = '''\n" + "text\n" * 500, id="open string"),
        pytest.param("x = (\n" + "1 +\n" * 3000 + "1)\n", id="deep"),
        pytest.param("(\n" * 800, id="brackets"),
    ],
)
def test_texts_without_statements(text: str) -> None:
    document = Document("", "python", 0, text)
    for offset in (0, len(text) // 3, len(text)):
        excerpt, at = excerpt_at(document, offset)
        assert text[:offset].endswith(excerpt[:at][-20:])
        assert text[offset:].startswith(excerpt[at:][:20])


@pytest.mark.parametrize("row", [1, 2000, 4000])
def test_a_table_keeps_its_brackets(row: int) -> None:
    document = Document("", "python", 0, TABLE)
    offset = document.line_start(row)
    excerpt, at = excerpt_at(document, offset)
    assert excerpt.count("\n") < 6 * NEAR_LINES
    assert errors("python", excerpt) == 0
    assert excerpt[at:].startswith(f"    {row - 1}: ")


def test_a_broken_text_is_short_too() -> None:
    text = TABLE.replace("    2000: '2000',\n", "    2000: '2000\n")
    document = Document("", "python", 0, text)
    excerpt, at = excerpt_at(document, text.index("'2000\n") + 5)
    assert excerpt.count("\n") <= MAX_LINES
    assert excerpt.startswith("x = {\n")
    assert excerpt.endswith("}\n")
    assert excerpt[:at].endswith("'2000")


class Guarded:
    """A node or cursor that lets nobody ask what tree-sitter would look for from the root on."""

    def __init__(self, guarded: Any) -> None:
        self._guarded = guarded

    def __getattr__(self, name: str) -> Any:
        assert name not in ("parent", "next_sibling", "prev_sibling"), name
        found = getattr(self._guarded, name)
        if name == "walk":
            return lambda: Guarded(found())
        return Guarded(found) if name == "node" and found is not None else found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Guarded) and self._guarded == other._guarded


def test_deep_nesting_is_walked_down_once() -> None:
    n = 500
    document = Document("", "javascript", 0, "x(\n" * n + "[\n1,\n" * n + "]" * n + ")" * n)
    assert document.tree is not None
    root: Any = document.tree.root_node
    for row in (0, n // 2, n, 2 * n):
        guarded: Any = Guarded(root)
        assert list(_far_rows(guarded, row, _BODIES)) == list(_far_rows(root, row, _BODIES))
