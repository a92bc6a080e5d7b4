"""Whether something is shown, what of it, and why not."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import pytest

from engine.declaration import Declaration
from engine.request import Alternative, Completion
from lsp_server import showing
from lsp_server.documents import Change, Document, Position
from lsp_server.settings import Settings
from lsp_server.showing import MAX_WHOLE_LINES, Shown, is_confident, n_errors, shown

if TYPE_CHECKING:
    from lsp_server.suggestions import Suggester, Suggestion

# Of a class per definition, so that there is a lot that can be left out.
LONG = "".join(f"class C{n}:\n    def m(self):\n        return f({n})\n\n\n" for n in range(2000))


def show(text: str, model: str, *, language_id: str = "python", **options: Any) -> Shown:
    above, below = text.split("|")
    document = Document("file:///a", language_id, 0, above + below)
    return shown(document, len(above), model, **options)


@pytest.mark.parametrize(
    ("text", "model"),
    [
        pytest.param("total = sum(|\n", "a, b", id="bracket open before and after"),
        pytest.param("total = |\n", "sum(a", id="half of a call"),
        pytest.param("def f():\n    for |\n", "x in", id="half of a header"),
        pytest.param("def f(|\n", "a, b", id="parameters"),
        pytest.param("x = '|\n", "abc", id="string"),
        pytest.param("if a and |\n    b()\n", "(c or", id="condition"),
        pytest.param("class A:\n    |\n", "def f(self):", id="header alone"),
    ],
)
def test_a_line_that_is_being_written_is_no_worse(text: str, model: str) -> None:
    assert show(text, model) == Shown(text=model)


@pytest.mark.parametrize(
    ("text", "model", "part"),
    [
        pytest.param("x = 1\n|\ny = 2\n", "z = = 3", "", id="nothing of it"),
        pytest.param("x = 1\n|\ny = 2\n", "z = (3", "", id="left open"),
        pytest.param("x = f(1)|\n", ")", "", id="closes nothing"),
        pytest.param("x = f(1)|\n", " + 2)", " + 2", id="up to what closes nothing"),
        pytest.param("if a:\n    |\n", "b = 1\n    c = =", "b = 1", id="whole lines"),
        pytest.param("x = 1\n|\n", 'y = "a', "", id="string left open"),
    ],
)
def test_what_parses_worse_is_cut_or_hidden(text: str, model: str, part: str) -> None:
    assert show(text, model) == Shown(text=part, hidden=None if part else "syntax")


def test_a_language_without_a_parser_is_not_checked() -> None:
    assert show("x = 1\n|\n", "z = = (3", language_id="klingon") == Shown(text="z = = (3")


@pytest.mark.parametrize("text", ["", "  ", "\n\n"])
def test_nothing_said_is_nothing_hidden(text: str) -> None:
    assert show("x = |\n", text) == Shown()


def test_what_stands_there_is_a_repeat() -> None:
    assert show("x = f(|)\n", ")") == Shown(hidden="repeat")
    assert show("x = 1\n|\ny = 2\n", "y = 2") == Shown(hidden="repeat")


@pytest.mark.parametrize(
    ("text", "model", "part"),
    [
        pytest.param(
            "if a:\n    if b:\n        |\n",
            "    c()\n            d()",
            "c()\n        d()",
            id="a level",
        ),
        pytest.param("if a:\n\tif b:\n\t\t|\n", "\tc()\n\t\t\td()", "c()\n\t\td()", id="a tab"),
        pytest.param("if a:\n    b()\n    |\n", "    c()", "c()", id="beside what opens nothing"),
        pytest.param("if a:\n    if b:\n    |\n", "    c()", "    c()", id="not yet deep enough"),
        pytest.param("if a:\n|\n", "    c()", "    c()", id="not indented"),
        pytest.param("if a:\n    b()\n|\n", "    c()", "    c()", id="goes on with the block"),
    ],
)
def test_a_line_that_is_indented_is_not_indented_again(text: str, model: str, part: str) -> None:
    assert show(text, model) == Shown(text=part)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("function f(a) {\n  return a\n    |\n}\n", ".b()"),
        ("function f(a) {\n  return a\n  |\n}\n", "  .b()"),
    ],
)
def test_a_chain_may_be_deeper_than_what_it_goes_on_from(text: str, part: str) -> None:
    assert show(text, "  .b()", language_id="javascript") == Shown(text=part)


@pytest.mark.parametrize(
    ("model", "part"),
    [
        pytest.param("continue\n        # c\n        b()", "continue", id="comment and statement"),
        pytest.param("b()\n        # c\n    d()", "b()\n        # c\n    d()", id="comment alone"),
        pytest.param("b(c,\n      d)\n    e()", "b(c,\n      d)\n    e()", id="in a bracket"),
        pytest.param("b = c + \\\n        d", "b = c + \\\n        d", id="backslash"),
        pytest.param(
            "if b:  # c\n        d()", "if b:  # c\n        d()", id="comment behind the opener"
        ),
        pytest.param('b = """\n      c\n    """', 'b = """\n      c\n    """', id="string"),
    ],
)
def test_no_line_of_python_is_deeper_than_one_that_opens_nothing(model: str, part: str) -> None:
    assert show("for a in b:\n    |\n", model) == Shown(text=part)


def test_in_a_bracket_lines_of_python_are_as_deep_as_they_like() -> None:
    assert show("a = [\n    |\n]\n", "b\n        + c").text == "b\n        + c"


@pytest.mark.parametrize(
    ("text", "model", "part"),
    [
        pytest.param("return <div>|</div>;", ";", "", id="nothing else"),
        pytest.param("return <div|</div>;", ">;", ">", id="tag"),
        pytest.param("return <b onClick={() => |}>x</b>;", "f(a + b);", "f(a + b)", id="brace"),
        pytest.param("return <b onClick={() => { | }}>x</b>;", "f(a);", "f(a);", id="block"),
        pytest.param("return <u>{a.map((b) => |)}</u>;", "f(b);", "f(b)", id="bracket"),
        pytest.param("return <p>|</p>;", "a&nbsp;", "a&nbsp;", id="character"),
        pytest.param("if (a) { | }", "return;", "return;", id="one-line block"),
    ],
)
def test_no_statement_ends_inside_an_expression(text: str, model: str, part: str) -> None:
    code = f"function f(a, b) {{\n  {text}\n}}\n"
    for language_id in ("javascriptreact", "typescriptreact"):
        assert show(code, model, language_id=language_id).text == part


@pytest.mark.parametrize(
    ("text", "model", "part"),
    [
        ('define(a, "b",|)', " () => {", ""),
        ("write(p|)", "r.header {", ""),
        ("jobs.each(|", "(job) => {", "(job) => {\n  })"),
        ("if (a) |}", "{", "{"),
    ],
)
def test_a_block_is_opened_only_where_it_can_be_written(text: str, model: str, part: str) -> None:
    code = f"function f(a, p) {{\n  {text}\n}}\n"
    assert show(code, model, language_id="javascript").text == part


@pytest.mark.parametrize(
    ("text", "model", "part"),
    [
        pytest.param("if (a|", ") {\n    b()", ") {\n    b()\n  }", id="cut in its block"),
        pytest.param("if (a|", ") {\n    b()\n  }", ") {\n    b()\n  }", id="whole"),
        pytest.param("a.f(b|", ", () => {\n    c()", ", () => {\n    c()\n  })", id="call"),
        pytest.param(
            "|",
            "if (a) {\n    while (b) {\n      c()",
            "if (a) {\n    while (b) {\n      c()\n    }\n  }",
            id="two blocks",
        ),
        pytest.param("if (a|\n    b()\n  }", ") {", ") {", id="closed below"),
        pytest.param("if (a|\n  }", ") {", ") {", id="empty below"),
        pytest.param("while (a|\n  b()", ") {", ") {\n  }", id="beside a statement"),
    ],
)
def test_what_opens_a_block_closes_it(text: str, model: str, part: str) -> None:
    for newline in ("\n", "\r\n"):
        code = f"function f(a, b) {{\n  {text}\n}}\n".replace("\n", newline)
        answer = show(code, model, language_id="javascript")
        assert answer.text == part.replace("\n", newline)


@pytest.mark.parametrize(
    ("model", "part"),
    [
        (") -> None:\n    return a", ""),
        ("int,\n    ) -> None:\n    return a", "int,"),
        ("int]\n) -> None:\n    return a", "int]"),
    ],
)
def test_no_bracket_is_closed_over_one_that_is_open(model: str, part: str) -> None:
    text = (
        "def f(\n    a: Union[\n        str,\n        |\n    b: str = '',\n) -> None:\n    pass\n"
    )
    assert show(text, model).text == part


def test_errors_are_counted_one_by_one() -> None:
    def count(text: str) -> int:
        tree = Document("", "python", 0, text).tree
        assert tree is not None
        return n_errors(tree)

    assert count("x = 1\n") == 0
    assert count("x = (1\n") > 0
    # A semicolon that is only missing.
    tree = Document("", "c", 0, "int f(void) { return 1 }\n").tree
    assert tree is not None
    assert n_errors(tree) == 1
    assert count("def f():\n    x = = 1\n\n\ndef g():\n    y = = 1\n") == 2 * count("x = = 1\n")


def test_the_lines_near_the_cursor_are_what_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    document = Document("file:///a.py", "python", 0, LONG)
    assert len(document.lines) >= 10_000
    assert document.tree is not None
    n_lines: list[int] = []

    class Counted(Document):
        def __init__(self, uri: str, language_id: str, version: int | None, text: str) -> None:
            super().__init__(uri, language_id, version, text)
            n_lines.append(len(self.lines))

    monkeypatch.setattr(showing, "Document", Counted)
    at = document.line_start(5002)
    assert shown(document, at, "x = 1\n        ").text
    assert shown(document, at, "x = = 1").hidden == "syntax"
    assert len(n_lines) == 4
    assert max(n_lines) < 200


def test_what_looks_worse_near_the_cursor_is_looked_at_as_a_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As if what the text goes on with had been left out.
    monkeypatch.setattr(showing, "excerpt_at", lambda _document, _offset: ("ok\n\n)\n", 3))
    assert show("x = f(a\n    |\n", ", b") == Shown(text=", b")
    assert show("x = f(a\n" + "# c\n" * MAX_WHOLE_LINES + "    |\n", ", b").hidden == "syntax"


def test_confidence() -> None:
    assert is_confident(math.log(0.5), 0.5 - 1e-9)
    assert not is_confident(math.log(0.5), 0.5 + 1e-9)
    assert not is_confident(-math.inf, 0.1)
    assert is_confident(-math.inf, 0.0)


@pytest.mark.asyncio
class TestSuggester:
    TEXT = "def f(a):\n    b = a\n    return b\n"
    AT = Position(1, 9)

    async def ask(
        self,
        suggester: Suggester,
        monkeypatch: pytest.MonkeyPatch,
        *,
        explicit: bool,
        language_id: str = "python",
        **completion: Any,
    ) -> Suggestion:
        """What is suggested when the engine gives this completion."""

        async def complete(request: Any) -> Completion:
            self.asked = request
            return Completion(**{"text": ".x", "stop": "line", "log_prob": 0.0, **completion})

        self.asked = None
        monkeypatch.setattr(suggester, "_complete", complete)
        document = Document("file:///a.py", language_id, 0, self.TEXT, "a.py")
        work = suggester.suggest(
            document, self.AT, explicit=explicit, deadline_ms=None, n_alternatives=2 * explicit
        )
        return await asyncio.wait_for(work, 30)

    @pytest.mark.parametrize(
        ("declared", "chosen", "probability", "is_shown"),
        [
            (0.3, None, 0.29, False),
            (0.3, None, 0.31, True),
            (0.3, 0.2, 0.21, True),
            (0.0, 0.5, 0.49, False),
            (0.3, 0.0, 0.0, True),
        ],
    )
    async def test_what_is_not_sure_is_for_who_asks(
        self,
        stepped: Suggester,
        monkeypatch: pytest.MonkeyPatch,
        declared: float,
        chosen: float | None,
        probability: float,
        is_shown: bool,
    ) -> None:
        stepped.engine.declaration = Declaration(min_confidence=declared)
        monkeypatch.setattr(stepped, "_settings", Settings(min_confidence=chosen))
        log_prob = math.log(probability) if probability else -math.inf
        automatic = await self.ask(stepped, monkeypatch, explicit=False, log_prob=log_prob)
        assert [item.insert_text for item in automatic.items] == [".x"] * is_shown
        assert automatic.counts["hidden"] == (None if is_shown else "confidence")
        explicit = await self.ask(stepped, monkeypatch, explicit=True, log_prob=log_prob)
        assert explicit.items[0].insert_text == ".x"
        assert explicit.counts["hidden"] is None

    async def test_silent_in_a_language_that_the_model_does_not_know(
        self, stepped: Suggester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stepped.engine.declaration = Declaration(languages=frozenset({"python"}))
        answer = await self.ask(stepped, monkeypatch, explicit=False, language_id="go")
        assert (answer.items, answer.counts["hidden"]) == ((), "language")
        assert self.asked is None
        assert answer.is_wanted
        assert "total" in answer.timings_ms
        assert (await self.ask(stepped, monkeypatch, explicit=False)).items
        assert (await self.ask(stepped, monkeypatch, explicit=True, language_id="klingon")).items

    async def test_nothing_is_read_ahead_in_such_a_language(self, stepped: Suggester) -> None:
        stepped.engine.declaration = Declaration(languages=frozenset({"go"}))
        stepped.prepare(Document("file:///a.py", "python", 0, self.TEXT), 10)
        assert not stepped.engine.step()
        stepped.prepare(Document("file:///a.go", "go", 0, self.TEXT), 10)
        assert stepped.engine.step()

    async def test_alternatives_are_items_that_differ_and_parse(
        self, stepped: Suggester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        others = tuple(
            Alternative(text=text, log_prob=-1.0, stop="line")
            for text in (".x ", " + 1", " = = a", " + 1)", "(1)")
        )
        answer = await self.ask(stepped, monkeypatch, explicit=True, alternatives=others)
        assert [item.insert_text for item in answer.items] == [".x", " + 1", "(1)"]
        assert {(item.start, item.end) for item in answer.items} == {(self.AT, self.AT)}
        assert self.asked.n_alternatives == 2
        await self.ask(stepped, monkeypatch, explicit=False)
        assert self.asked.n_alternatives == 0

    async def test_the_most_probable_item_comes_first(
        self, stepped: Suggester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        others = tuple(
            Alternative(text=text, log_prob=log_prob, stop="line")
            for text, log_prob in ((" + 1", -3.0), ("", -0.5), ("(1)", -1.0), (".y", -2.0))
        )
        answer = await self.ask(
            stepped, monkeypatch, explicit=True, log_prob=-2.0, alternatives=others
        )
        # Of two that are as probable, the answer itself.
        assert [item.insert_text for item in answer.items] == ["(1)", ".x", ".y", " + 1"]
        assert answer.hidden is None

    @pytest.mark.parametrize(
        ("declared", "chosen", "least"), [(0.3, None, 0.3), (0.3, 0.2, 0.2), (0.3, 0.0, 0.0)]
    )
    async def test_no_line_is_looked_for_that_would_not_be_shown(
        self,
        stepped: Suggester,
        monkeypatch: pytest.MonkeyPatch,
        declared: float,
        chosen: float | None,
        least: float,
    ) -> None:
        stepped.engine.declaration = Declaration(min_confidence=declared)
        monkeypatch.setattr(stepped, "_settings", Settings(min_confidence=chosen))
        await self.ask(stepped, monkeypatch, explicit=False)
        assert math.exp(self.asked.search_above) == pytest.approx(least)
        # Who asks is shown any.
        await self.ask(stepped, monkeypatch, explicit=True)
        assert self.asked.search_above == -math.inf

    async def test_what_the_document_moved_on_from_is_not_shown(
        self, stepped: Suggester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        document = Document("file:///a.py", "python", 0, self.TEXT, "a.py")

        async def complete(_request: Any) -> Completion:
            document.apply(Change(text="x = 1\n"))
            return Completion(text="a", stop="line", log_prob=0.0)

        monkeypatch.setattr(stepped, "_complete", complete)
        work = stepped.suggest(document, self.AT, explicit=True, deadline_ms=None)
        answer = await asyncio.wait_for(work, 30)
        assert answer.items == ()
        assert not answer.is_wanted
