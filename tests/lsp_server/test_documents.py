"""Documents against a naive model of text: one string, edited in UTF-16 units."""

from __future__ import annotations

import logging
import re
import time
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsp_server import documents, syntax
from lsp_server.documents import (
    MAX_PARSE_LINE_CHARS,
    REPARSE_BUDGET_S,
    Change,
    Document,
    Documents,
    Edit,
    Position,
)
from lsp_server.syntax import PARSE_BUDGET_S, SYNTAXES, parse, parser_text

if TYPE_CHECKING:
    from tree_sitter import Tree

    from lsp_server.syntax import Syntax


def document_of(text: str, language_id: str = "plaintext") -> Document:
    return Document("file:///w/a", language_id, 1, text)


def change(line: int, character: int, end_line: int, end_character: int, text: str) -> Change:
    return Change(text=text, range=(Position(line, character), Position(end_line, end_character)))


def naive_lines(text: str) -> list[str]:
    """Lines without their ends."""
    return re.split(r"\r\n|\r|\n", text)


def naive_offset(text: str, position: Position) -> int:
    """LSP's rules by hand: count units line by line, clamp to the line, then to the text."""
    offset = 0
    for number, line in enumerate(naive_lines(text)):
        if number == position.line:
            units = 0
            for char in line:
                units += 2 if ord(char) > 0xFFFF else 1
                if units > position.character:
                    break
                offset += 1
            return offset
        offset += len(line)
        offset += 2 if text[offset : offset + 2] == "\r\n" else 1
    return len(text)


def naive_apply(text: str, edit: Change) -> str:
    if edit.range is None:
        return edit.text
    start, end = sorted(naive_offset(text, position) for position in edit.range)
    return text[:start] + edit.text + text[end:]


texts = st.text(st.sampled_from("ab \t😀é漢\0\n\n\r\x0b\u2028"), max_size=12).flatmap(
    lambda text: st.sampled_from([text, text + "\r\n", "\r\n" + text, "x\ny\r\n" + text])
)
positions = st.builds(Position, st.integers(0, 6), st.integers(0, 9))
changes = st.builds(
    lambda text, start, end: Change(text=text, range=(start, end)), texts, positions, positions
)
whole_text_changes = st.builds(lambda text: Change(text=text), texts)


@settings(max_examples=400, deadline=None)
@given(texts, st.lists(st.one_of(changes, changes, changes, whole_text_changes), max_size=8))
def test_edits_equal_a_naive_string(text: str, edits: list[Change]) -> None:
    document = document_of(text)
    for edit in edits:
        expected = naive_apply(text, edit)
        applied = document.apply(edit)
        assert document.text == "".join(document.lines) == expected
        assert (
            text[: applied.start] + expected[applied.start : applied.new_end]
            == (expected[: applied.new_end])
        )
        assert expected[applied.new_end :] == text[applied.old_end :]
        text = expected
        assert document.n_chars == len(text)
        assert [line.rstrip("\r\n") for line in document.lines] == naive_lines(text)


@settings(max_examples=300, deadline=None)
@given(texts, st.lists(changes, max_size=3), positions)
def test_positions_equal_the_naive_ones(text: str, edits: list[Change], position: Position) -> None:
    document = document_of(text)
    for edit in edits:
        document.offset_at(position)  # so that offsets are known before the edit
        text = naive_apply(text, edit)
        document.apply(edit)
    assert document.offset_at(position) == naive_offset(text, position)
    for offset in range(len(text) + 1):
        there = document.position_at(offset)
        between = text[offset - 1 : offset + 1] == "\r\n"
        assert naive_offset(text, there) == offset - between


@settings(max_examples=200, deadline=None)
@given(texts, st.lists(changes, max_size=3), st.integers(0, 30), st.integers(0, 30))
def test_slices(text: str, edits: list[Change], start: int, end: int) -> None:
    document = document_of(text)
    for edit in edits:
        text = naive_apply(text, edit)
        document.apply(edit)
    start, end = min(start, len(text)), min(end, len(text))
    assert document.slice(start, end) == text[start:end]


def spans(document: Document) -> list[tuple[object, ...]]:
    """Every node of the tree with its place."""
    found: list[tuple[object, ...]] = []
    assert document.tree is not None
    nodes = [document.tree.root_node]
    while nodes:
        node = nodes.pop()
        start, end = node.start_point, node.end_point
        found.append((node.type, node.start_byte, node.end_byte, tuple(start), tuple(end)))
        nodes += node.children
    return found


CODE = {
    "python": "@d\nclass A(B):\n    def f(self, x):\n        return f'{x} é'  # 😀\nx = [1, 2]\n",
    "javascript": "// 😀\nexport class A {\n  m(x) { return `é ${x}`; }\n}\nconst f = () => {};\n",
    "typescript": "interface I<T> { a: T }\nexport type X = { a: number } | string; // 😀\n",
    "typescriptreact": "const C = (p: P) => { return <div a={1}>{p.x} é</div>; };\n",
    "go": "package a\n// 😀\nfunc (a *A) F(x int) error {\n\treturn f(`é`, x)\n}\n",
    "rust": "/// 😀\nimpl<'a> S<'a> {\n    fn f(&self) -> u8 { match x { _ => 'é' } }\n}\n",
    "java": 'package a;\n/** 😀 */\n@A class X {\n  String f(int a) { return "é"; }\n}\n',
    "c": "#include <a.h>\nstruct s { int a; }; // 😀\nint f(char *b) { return 'c'; }\n",
    "cpp": "template <typename T> class A : B { int f() { return 1; } };\n// 😀é\n",
}


@pytest.mark.parametrize("language_id", CODE)
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_the_tree_follows_edits(language_id: str, newline: str, data: st.DataObject) -> None:
    code = CODE[language_id].replace("\n", newline)
    snippets = st.sampled_from(["", "x", "(", ")", "{", "}", '"', "\n", "\r", "\r\n", "é😀", code])
    document = document_of(code, language_id)
    assert document.tree is not None
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, document.n_chars))
        end = min(start + data.draw(st.sampled_from([0, 0, 1, 5, 40])), document.n_chars)
        edit_range = (document.position_at(start), document.position_at(end))
        document.apply(Change(text=data.draw(snippets), range=edit_range))
        if data.draw(st.booleans()):
            assert document.tree is not None
    fresh = document_of(document.text, language_id)
    assert fresh.tree is not None
    has_error = fresh.tree.root_node.has_error
    assert document.tree.root_node.has_error == has_error
    assert document.tree.root_node.end_byte == len(document.text.encode())
    # Where the text is broken tree-sitter recovers differently, depending on what it reuses.
    if not has_error:
        assert str(document.tree.root_node) == str(fresh.tree.root_node)
        assert spans(document) == spans(fresh)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
def test_rows_of_the_tree_are_lines(newline: str) -> None:
    document = document_of("x = 1\n\ny = '😀'\nz = 3".replace("\n", newline), "python")
    assert document.tree is not None
    rows = [node.start_point.row for node in document.tree.root_node.children]
    assert rows == [0, 2, 3]
    document.apply(change(0, 0, 0, 0, f"a{newline}"))
    rows = [node.start_point.row for node in document.tree.root_node.children]
    assert rows == [0, 1, 3, 4]


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (change(0, 1, 0, 1, "\r"), "a\r\nb"),
        (change(0, 99, 0, 99, "x"), "ax\nb"),
        (change(9, 9, 9, 9, "x"), "a\nbx"),
        (change(1, 0, 0, 1, ""), "ab"),
        (change(0, 0, 9, 0, ""), ""),
        (Change(text="new"), "new"),
    ],
    ids=["cr before lf", "past the line", "past the end", "backwards", "all", "whole text"],
)
def test_edits_at_the_edges(edit: Change, text: str) -> None:
    document = document_of("a\nb")
    document.apply(edit)
    assert document.text == text


def test_an_lf_after_a_lone_cr_joins_it() -> None:
    document = document_of("a\rb", "python")
    document.apply(change(1, 0, 1, 0, "\n"))
    assert document.lines == ["a\r\n", "b"]


def test_a_position_inside_a_surrogate_pair_is_before_it() -> None:
    document = document_of("a😀b")
    assert [document.offset_at(Position(0, n)) for n in range(6)] == [0, 1, 1, 2, 3, 3]
    assert [document.position_at(n).character for n in range(4)] == [0, 1, 3, 4]


def test_unpaired_surrogates_become_replacement_characters_of_the_same_width() -> None:
    document = document_of("a\ud83db")
    document.apply(change(0, 2, 0, 2, "\ude00"))
    assert document.text == "a\ufffd\ufffdb"
    assert document.position_at(4) == Position(0, 4)
    document.text.encode()


def test_the_last_edit_tells_where_the_user_types() -> None:
    document = document_of("a = 1\nb = 2\n")
    assert document.last_edit is None
    edit = document.apply(change(1, 4, 1, 5, "call(\n  x"))
    assert document.last_edit is edit
    assert edit == Edit(start=10, old_end=11, new_end=19)
    assert document.position_at(edit.new_end) == Position(2, 3)


def test_a_whole_text_change_is_an_edit_of_what_differs() -> None:
    document = document_of("a = 1\r\nb = 2\r\nc = 3\r\n", "python")
    assert document.apply(Change(text="a = 1\r\nb = 20\r\nc = 3\r\n")) == Edit(
        start=12, old_end=12, new_end=13
    )
    assert document.tree is not None
    same = document.text
    document.apply(Change(text=same))
    assert document.text == same


def test_a_whole_text_change_of_a_line_end() -> None:
    document = document_of("x = 1\r\ny = 2\n", "python")
    assert document.tree is not None
    edit = document.apply(Change(text="x = 1\r\ry = 2\n"))
    # The \r ends a line by itself now, and so is not what it was.
    assert edit == Edit(start=5, old_end=7, new_end=7)
    assert spans(document) == spans(document_of(document.text, "python"))


@settings(max_examples=200, deadline=None)
@given(texts, texts)
def test_whole_text_changes_keep_the_tree_in_step(old: str, new: str) -> None:
    document = document_of(old, "python")
    assert document.tree is not None
    document.apply(Change(text=new))
    assert document.text == new
    assert document.tree.root_node.end_byte == len(new.encode())


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (change(0, 0, 0, 0, "xyz"), 7),
        (change(0, 0, 0, 2, ""), 2),
        (change(1, 1, 1, 1, "xyz"), 4),
        (change(1, 2, 1, 2, "xyz"), 4),
        (change(1, 0, 1, 1, ""), None),
        (change(0, 0, 2, 0, ""), None),
    ],
    ids=["above", "deleted above", "at it", "below", "up to it", "across"],
)
def test_offsets_are_carried_over_edits(edit: Change, expected: int | None) -> None:
    document = document_of("ab\ncde\nf")
    revision = document.revision
    document.apply(edit)
    assert document.carry(4, revision) == expected
    assert document.carry(4, document.revision) == 4


def test_offsets_are_carried_over_no_more_edits_than_are_kept() -> None:
    document = document_of("ab")
    for _ in range(256):
        document.apply(change(0, 0, 0, 0, "x"))
    assert document.carry(1, 0) == 257
    document.apply(change(0, 0, 0, 0, "x"))
    assert document.carry(1, 0) is None


@pytest.mark.parametrize(("text", "newline"), [("a\r\nb\n", "\r\n"), ("a\rb", "\r"), ("a", "\n")])
def test_newline(text: str, newline: str) -> None:
    assert document_of(text).newline == newline


def test_a_document_is_not_parsed_while_a_line_is_huge() -> None:
    document = document_of("x = 1\n", "python")
    document.apply(change(1, 0, 1, 0, "y" * (MAX_PARSE_LINE_CHARS + 1)))
    assert document.tree is None
    document.apply(change(0, 0, 0, 1, "w"))
    assert document.tree is None
    document.apply(change(1, 0, 1, 9, "z"))
    assert document.tree is not None
    assert str(document.tree.root_node) == str(parsed(document.text))


def test_a_huge_document_is_not_parsed() -> None:
    assert document_of("x = 1\n" * 400_000, "python").tree is None


def parsed(text: str) -> object:
    tree = document_of(text, "python").tree
    assert tree is not None
    return tree.root_node


def test_other_languages_have_no_tree() -> None:
    assert document_of("x = 1\n", "brainfuck").tree is None


class SlowParses:
    """Stands before the parser, and breaks off what has less than `takes_s`. Time stands still."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        self.takes_s = 0.0
        self.budgets_s: list[float] = []
        monkeypatch.setattr(documents, "parse", self._parse)

    def document(self, text: str) -> Document:
        return Document("file:///w/a.py", "python", 1, text, clock=lambda: self.now_s)

    def _parse(self, syntax: Syntax, lines: list[str], old: Tree | None, budget_s: float) -> object:
        self.budgets_s.append(budget_s)
        return parse(syntax, lines, old) if budget_s >= self.takes_s else None


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> SlowParses:
    return SlowParses(monkeypatch)


def parsed_alone(document: Document) -> object:
    tree = parse(SYNTAXES["python"], document.lines)
    assert tree is not None
    return tree.root_node


def test_a_key_that_takes_long_to_parse_is_followed_by_lines(slow: SlowParses) -> None:
    document = slow.document("x = 1\ny = 2\n")
    assert document.tree is not None
    document.apply(change(0, 4, 0, 4, "a"))
    assert document.tree is not None
    assert slow.budgets_s == [PARSE_BUDGET_S, REPARSE_BUDGET_S]
    slow.takes_s = 0.2
    slow.budgets_s.clear()
    for text in ("f(", "[", '"""', "a"):
        document.apply(change(0, 5, 0, 5, text))
        slow.now_s += 0.9
        assert document.tree is None
        assert document.tree is None
    assert slow.budgets_s == [REPARSE_BUDGET_S]
    # Now it has rested for a second, and the parse may take that long.
    slow.now_s += 0.1
    assert document.tree is not None
    assert slow.budgets_s == [REPARSE_BUDGET_S, PARSE_BUDGET_S]
    assert str(document.tree.root_node) == str(parsed_alone(document))
    # With each burst of typing one key is tried, until it is quick once more.
    document.apply(change(0, 5, 0, 5, "b"))
    assert document.tree is None
    slow.now_s += 1.0
    assert document.tree is not None
    slow.takes_s = 0.01
    document.apply(Change(text="x = 1\ny = 2\n"))
    assert document.tree is not None
    assert str(document.tree.root_node) == str(parsed_alone(document))
    assert slow.budgets_s[2:] == [REPARSE_BUDGET_S, PARSE_BUDGET_S, REPARSE_BUDGET_S]


@pytest.mark.parametrize("whole", [False, True], ids=["keys", "whole texts"])
def test_what_takes_too_long_at_rest_is_rarely_tried(slow: SlowParses, whole: bool) -> None:
    slow.takes_s = 2.0
    document = slow.document("x")
    for n in range(100):
        change_ = Change(text=f"y{n}") if whole else change(0, 0, 0, 0, "y")
        document.apply(change_)
        assert document.tree is None
        slow.now_s += 1
    assert slow.budgets_s == [PARSE_BUDGET_S]
    slow.now_s += 24
    assert document.tree is None
    assert slow.budgets_s == [PARSE_BUDGET_S] * 2
    # The same text is not tried again.
    slow.now_s += 100
    assert document.tree is None
    assert slow.budgets_s == [PARSE_BUDGET_S] * 2
    slow.takes_s = 0.0
    document.apply(change(0, 0, 0, 0, "z"))
    slow.now_s += 25
    assert document.tree is not None


def test_typing_below_an_open_string_reads_no_more_than_its_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the parser itself, which without a budget reads the rest of the text for each key."""
    monkeypatch.setattr(documents, "REPARSE_BUDGET_S", 1e-9)
    n_read = 0

    def counted(text: str) -> bytes:
        nonlocal n_read
        n_read += len(text)
        return parser_text(text)

    now_s = 0.0
    text = "\n" + "def f(a):\n    return [a, 'b']\n" * 2000
    document = Document("file:///w/a.py", "python", 1, text, clock=lambda: now_s)
    assert document.tree is not None
    monkeypatch.setattr(syntax, "parser_text", counted)
    for n, char in enumerate('x = f([1, """abc'):
        document.apply(change(0, n, 0, n, char))
        assert document.tree is None
    assert n_read < len(text) // 4
    now_s += 1
    assert document.tree is not None
    assert n_read > len(text) // 2
    assert str(document.tree.root_node) == str(parsed(document.text))


@pytest.mark.parametrize("char", ["x", "é", "😀", "\0", "("])
def test_a_5_mb_line_is_edited_in_no_time(char: str) -> None:
    text = char * 5_000_000
    start = time.process_time()
    document = document_of(text, "python")
    for n in range(5):
        middle = Position(0, 2_000_000 + 2 * n)
        document.apply(Change(text="ab", range=(middle, middle)))
        assert document.last_edit is not None
        assert document.position_at(document.last_edit.new_end).character == middle.character + 2
        assert document.tree is None
    assert document.n_chars == 5_000_010
    assert time.process_time() - start < 2  # 0.3 s


def test_nul_bytes_are_text() -> None:
    document = document_of("a = '\0'\n\0\0", "python")
    document.apply(change(1, 1, 1, 1, "b\0"))
    assert document.text == "a = '\0'\n\0b\0\0"
    assert document.tree is not None


def test_an_edit_costs_its_lines_not_the_document() -> None:
    document = document_of("x = 1\n" * 300_000)
    document.apply(change(150_000, 0, 150_000, 0, "a"))
    document.position_at(document.n_chars // 2)
    tracemalloc.start()
    try:
        for n in range(20):
            document.apply(change(150_000, n, 150_000, n, "b"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100_000  # the text is 1.8 MB


def test_store() -> None:
    store = Documents()
    opened = store.open("file:///w/a.py", "python", 1, "x", path="a.py")
    assert store.get("file:///w/a.py") is opened
    changed = store.change(opened.uri, 2, [change(0, 0, 0, 0, "a"), change(0, 1, 0, 1, "b")])
    assert changed is opened
    assert (opened.text, opened.version) == ("abx", 2)
    assert store.open(opened.uri, "python", 1, "anew") is store.get(opened.uri) is not opened
    assert store.close(opened.uri) is not None
    assert store.get(opened.uri) is None
    assert store.close(opened.uri) is None


def test_a_change_of_an_unopened_document_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert Documents().change("file:///w/a.py", 2, [Change(text="secret")]) is None
    assert "file:///w/a.py" in caplog.text
    assert "secret" not in caplog.text


def test_a_draft_leaves_its_document_alone() -> None:
    document = Document("file:///a.py", "python", 0, "def f():\n    pass\n")
    assert document.tree is not None
    document.apply(Change(text="g", range=(Position(0, 4), Position(0, 5))))
    assert document.tree is not None
    draft = document.drafted(Change(text="return\n", range=(Position(1, 4), Position(1, 8))))
    assert (draft.is_draft, document.is_draft) == (True, False)
    assert draft.text == "def g():\n    return\n\n"
    assert document.text == "def g():\n    pass\n"
    assert document.edits_since(0) == draft.edits_since(0)[:1]  # type: ignore[index]
    assert (document.revision, draft.revision) == (1, 2)
    for one in (document, draft):
        fresh = Document("file:///a.py", "python", 0, one.text)
        assert one.tree is not None
        assert fresh.tree is not None
        assert str(one.tree.root_node) == str(fresh.tree.root_node)
        assert one.tree.root_node.end_byte == fresh.tree.root_node.end_byte
        assert one.position_at(one.n_chars) == fresh.position_at(fresh.n_chars)
