"""What is typed along a suggestion is answered with its rest, and the engine is not asked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine import epochs
from engine.engine import Engine
from engine.request import Completion
from lsp_server import type_through
from lsp_server.documents import Change, Document, Position
from lsp_server.settings import Settings
from lsp_server.suggestions import Item, Suggester, Suggestion
from lsp_server.type_through import MAX_KEPT, Kept, TypeThrough
from tests.lsp_server.server_bench import URI, Bench

TIMEOUT_S = 60
SHOWN = "tal(items, start=0)"


def test_the_engine_and_the_server_agree_what_editors_insert() -> None:
    """Written twice: the server does not import the engine, which takes seconds."""
    assert type_through.CLOSERS == epochs.CLOSERS


def marked(text: str) -> tuple[str, int]:
    """Give a text without its cursor, and where the cursor was."""
    before, after = text.split("|")
    return before + after, len(before)


def edit_between(old: str, new: str, cursor: int) -> Change:
    """The edit that makes one text the other; what stands behind the cursor stays if it can."""
    n_behind = 0
    while n_behind < min(len(old), len(new) - cursor) and old[-1 - n_behind] == new[-1 - n_behind]:
        n_behind += 1
    old_end, new_end = len(old) - n_behind, len(new) - n_behind
    start = 0
    while start < min(old_end, new_end) and old[start] == new[start]:
        start += 1
    document = Document("", "python", 0, old)
    ends = (document.position_at(start), document.position_at(old_end))
    return Change(text=new[start:new_end], range=ends)


def check(before: str, edits: list[str], rest: str | None, shown: str = SHOWN) -> None:
    """`shown` is shown at the cursor of `before`; the text then becomes each of `edits`."""
    text, offset = marked(before)
    document = Document("file:///a.py", "python", 0, text)
    through = TypeThrough()
    through.keep(document, offset, offset, (shown,), "epoch")
    for edit in edits:
        text, offset = marked(edit)
        document.apply(edit_between(document.text, text, offset))
    found, _ = through.rests(document, offset, offset, is_outdated=lambda _: False)
    assert (found[0] if found else None) == rest


@pytest.mark.parametrize(
    ("edits", "rest"),
    [
        ([], SHOWN),
        (["x = tot|\n"], "al(items, start=0)"),
        (["x = tot|\n", "x = total|\n"], "(items, start=0)"),
        (["x = total(it|)\n"], "ems, start=0"),
        (["x = total(items, start=0|)\n"], None),
        (["x = total(items, start=0)|\n"], None),
        (["x = tox|\n"], None),
        (["x = tox|\n", "x = to|\n"], SHOWN),
        (["x = tota|\n", "x = to|\n"], SHOWN),
        (["x = tot|\n", "x = t|\n", "x = to|\n"], SHOWN),
        (["x = t|\n"], None),
        (["x = tot|al\n"], None),
        (["import a\nx = tot|\n"], None),
        (["x = tot|\ny = 1\n"], None),
        (["x = tot|" + ")" * 65 + "\n"], None),
    ],
    ids=[
        *("as shown", "one character", "more", "a bracket is closed", "up to its bracket"),
        *("all of it", "another way", "back from there", "backspace", "further back"),
        *("before its place", "cursor elsewhere", "edit above", "edit below", "not only closers"),
    ],
)
def test_the_rest(edits: list[str], rest: str | None) -> None:
    check("x = to|\n", edits, rest)


@pytest.mark.parametrize("edited", ["a = 2\nx = to|\ny = 1\n", "a = 1\nx = to|\ny = 2\n"])
def test_another_text_around_the_line_is_another_place(edited: str) -> None:
    before = "a = 1\nx = to|\ny = 1\n"
    check(before, [edited], None)
    # Once it was another, nobody looks whether it is the same again.
    check(before, [edited, before], None)


def test_enter_and_indentation_go_along() -> None:
    shown = ":\n        return 1\n    return 2"
    check(
        "    if x|\n", ["    if x:|\n", "    if x:\n        |\n"], "return 1\n    return 2", shown
    )


def test_enter_inside_braces() -> None:
    check("f = {|}\n", ["f = {\n    |\n}\n"], "a: 1", "\n    a: 1")


@pytest.mark.parametrize(
    ("edit", "rest"),
    [
        ("\tif (a) {|}\nb\n", "\n\t\tc()\n\t"),
        ("\tif (a) {\n\t\t|\n\t}\nb\n", "c()"),
        ("\tif (a) {\n\t\t|\nb\n", "c()\n\t}"),
    ],
)
def test_a_block_that_is_opened_in_the_middle_of_a_line(edit: str, rest: str) -> None:
    check("\tif (a|\nb\n", [edit], rest, ") {\n\t\tc()\n\t}")


def test_line_ends_are_the_documents() -> None:
    check("x|\r\n", ["x(\r\n    |\r\n"], "a)", "(\r\n    a)")


def test_in_the_middle_of_a_line() -> None:
    check("f(|, b)\n", ["f(ite|, b)\n"], "ms", "items")
    check("f(|, b)\n", ["f(ite|, c)\n"], None, "items")


def test_a_menu_entry_taken_over_the_word() -> None:
    document = Document("file:///a.py", "python", 0, "x = to\n")
    through = TypeThrough()
    through.keep(document, 6, 6, (SHOWN,), "epoch")
    document.apply(Change(text="total", range=(Position(0, 4), Position(0, 6))))
    found, _ = through.rests(document, 9, 9, is_outdated=lambda _: False)
    assert found == ["(items, start=0)"]


def test_what_is_selected_counts_as_typed() -> None:
    document = Document("file:///a.py", "python", 0, "x = to\n")
    through = TypeThrough()
    through.keep(document, 6, 6, (SHOWN,), "epoch")
    for chosen, expected in (("total", ["(items, start=0)"]), ("tofu", [])):
        found, _ = through.rests(document, 4, 6, chosen, is_outdated=lambda _: False)
        assert found == expected


def test_the_newest_wins_and_few_are_kept() -> None:
    document = Document("file:///a.py", "python", 0, "\n" * 100)
    through = TypeThrough()
    through.keep(document, 0, 0, ("old",), "epoch")
    through.keep(document, 0, 0, ("new", "news"), "epoch", "tag")
    assert through.rests(document, 0, 0, is_outdated=lambda _: False) == (["new", "news"], "tag")
    for offset in range(1, MAX_KEPT + 1):
        through.keep(document, offset, offset, ("x",), "epoch")
    assert through.rests(document, 0, 0, is_outdated=lambda _: False) == ([], None)


def test_an_outdated_one_is_dropped_for_good() -> None:
    document = Document("file:///a.py", "python", 0, "\n")
    through = TypeThrough()
    through.keep(document, 0, 0, ("x",), "trunk")

    def is_trunk(kept: Kept) -> bool:
        return kept.kind == "trunk"

    assert through.rests(document, 0, 0, is_outdated=is_trunk) == ([], None)
    assert through.rests(document, 0, 0, is_outdated=lambda _: False) == ([], None)


def answer(text: str, kind: str = "epoch") -> Suggestion:
    at = Position(0, 0)
    completion = Completion(text=text, stop="line", kind=kind)
    items = (Item(insert_text=text, start=at, end=at, log_prob=0.0),) if text else ()
    return Suggestion(items=items, completion=completion, timings_ms={"total": 1.0})


async def answered(bench: Bench, character: int, *texts: str, trigger: int = 2, **kind: str) -> Any:
    """Ask, and give the first item's text; `texts` is what the engine says if it is asked."""
    n_asked = len(bench.suggester.asked)
    request = bench.complete(0, character, trigger)
    await bench.settle()
    if texts:
        assert len(bench.suggester.asked) == n_asked + 1
        bench.suggester.answers[-1].set_result(answer(texts[0], **kind))
        await bench.settle()
    else:
        assert len(bench.suggester.asked) == n_asked
    items = bench.result(request)["items"]
    return items[0]["insertText"] if items else None


def change(bench: Bench, start: int, end: int, text: str) -> None:
    ends = {"start": {"line": 0, "character": start}, "end": {"line": 0, "character": end}}
    changes = [{"range": ends, "text": text}]
    document = {"uri": URI, "version": 1}
    bench.tell("textDocument/didChange", {"textDocument": document, "contentChanges": changes})


class TestServer:
    pytestmark = pytest.mark.asyncio

    async def test_typed_along_then_elsewhere_then_back(self, ready_bench: Bench) -> None:
        bench = ready_bench
        assert await answered(bench, 5, "23 + y") == "23 + y"
        change(bench, 5, 5, "2")
        assert await answered(bench, 6) == "3 + y"
        change(bench, 6, 6, "9")
        assert await answered(bench, 7, "9") == "9"
        change(bench, 6, 7, "")
        assert await answered(bench, 6) == "3 + y"
        change(bench, 5, 6, "")
        assert await answered(bench, 5) == "23 + y"
        change(bench, 5, 5, "23 + y")
        assert await answered(bench, 11, " + z") == " + z"
        *_, last = bench.server.answers.take()
        assert last["stop"] == "line"
        assert bench.server.type_through.n_answers == 3

    async def test_who_asks_gets_a_new_answer(self, ready_bench: Bench) -> None:
        await answered(ready_bench, 5, "23")
        change(ready_bench, 5, 5, "2")
        assert await answered(ready_bench, 6, "4", trigger=1) == "4"
        assert await answered(ready_bench, 6) == "4"

    async def test_what_it_took_is_nothing(self, ready_bench: Bench) -> None:
        await answered(ready_bench, 5, "23")
        await answered(ready_bench, 5)
        asked, typed = ready_bench.server.answers.take()
        assert typed.keys() == asked.keys()
        assert (typed["prompt_kind"], typed["stop"]) == ("typed", "typed")
        assert not any((*typed["tokens"].values(), *typed["passes"].values()))

    async def test_a_file_opened_anew_knows_nothing(self, ready_bench: Bench) -> None:
        await answered(ready_bench, 5, "23")
        document = {"uri": URI, "languageId": "python", "version": 0, "text": "x = 1\n"}
        ready_bench.tell("textDocument/didOpen", {"textDocument": document})
        assert await answered(ready_bench, 5, "45") == "45"

    @pytest.mark.parametrize("kind", ["trunk", "bridge"])
    async def test_a_makeshift_is_prolonged_until_the_epoch_is_read(
        self, ready_bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: str
    ) -> None:
        reading = [True]
        monkeypatch.setattr(
            ready_bench.suggester, "is_reading", lambda _: reading[0], raising=False
        )
        await answered(ready_bench, 5, "234", kind=kind)
        change(ready_bench, 5, 5, "2")
        assert await answered(ready_bench, 6) == "34"
        reading[0] = False
        change(ready_bench, 6, 6, "3")
        assert await answered(ready_bench, 7, "9") == "9"


def selected(
    bench: Bench, start: int, end: int, text: str, character: int, trigger: int = 2
) -> int:
    ends = {"start": {"line": 0, "character": start}, "end": {"line": 0, "character": end}}
    return bench.ask(
        "textDocument/inlineCompletion",
        {
            "textDocument": {"uri": URI},
            "position": {"line": 0, "character": character},
            "context": {
                "triggerKind": trigger,
                "selectedCompletionInfo": {"range": ends, "text": text},
            },
        },
    )


class TestSelected:
    pytestmark = pytest.mark.asyncio

    async def opened(self, bench: Bench) -> None:
        document = {"uri": URI, "languageId": "python", "version": 0, "text": "pri\ny = 1\n"}
        bench.tell("textDocument/didOpen", {"textDocument": document})
        await bench.settle()

    async def test_the_item_goes_on_from_it_in_its_range(self, ready_bench: Bench) -> None:
        await self.opened(ready_bench)
        request = selected(ready_bench, 0, 3, "print", 3)
        await ready_bench.settle()
        text, position, _, _ = ready_bench.suggester.asked[-1]
        assert (text, position) == ("print\ny = 1\n", Position(0, 5))
        assert ready_bench.server.documents.get(URI).text == "pri\ny = 1\n"  # type: ignore[union-attr]
        ready_bench.suggester.answers[-1].set_result(answer("(y)"))
        await ready_bench.settle()
        (item,) = ready_bench.result(request)["items"]
        ends = {"start": {"line": 0, "character": 0}, "end": {"line": 0, "character": 3}}
        assert (item["insertText"], item["range"]) == ("print(y)", ends)

    async def test_nothing_more_is_no_item(self, ready_bench: Bench) -> None:
        await self.opened(ready_bench)
        request = selected(ready_bench, 0, 3, "print", 3)
        await ready_bench.settle()
        ready_bench.suggester.answers[-1].set_result(answer(""))
        await ready_bench.settle()
        assert ready_bench.result(request) == {"items": []}

    async def test_what_makes_another_word_of_it_is_no_item(self, ready_bench: Bench) -> None:
        await self.opened(ready_bench)
        assert await answered(ready_bench, 3, "nter(y)") == "nter(y)"
        n_asked = len(ready_bench.suggester.asked)
        request = selected(ready_bench, 0, 3, "print", 3)
        await ready_bench.settle()
        # Not prolonged by what was shown before, either.
        assert len(ready_bench.suggester.asked) == n_asked + 1
        ready_bench.suggester.answers[-1].set_result(answer("er(y)"))
        await ready_bench.settle()
        assert ready_bench.result(request) == {"items": []}
        request = selected(ready_bench, 0, 3, "print(", 3)
        await ready_bench.settle()
        ready_bench.suggester.answers[-1].set_result(answer("y)"))
        await ready_bench.settle()
        (item,) = ready_bench.result(request)["items"]
        assert item["insertText"] == "print(y)"

    async def test_then_typed_along_with_and_without_the_menu(self, ready_bench: Bench) -> None:
        await self.opened(ready_bench)
        selected(ready_bench, 0, 3, "print", 3)
        await ready_bench.settle()
        ready_bench.suggester.answers[-1].set_result(answer("(y)"))
        await ready_bench.settle()
        change(ready_bench, 3, 3, "n")
        request = selected(ready_bench, 0, 4, "print", 4)
        await ready_bench.settle()
        (item,) = ready_bench.result(request)["items"]
        assert item["insertText"] == "print(y)"
        assert item["range"]["end"]["character"] == 4
        assert await answered(ready_bench, 4) == "t(y)"
        # Another entry of the menu is another text.
        selected(ready_bench, 0, 4, "printer", 4)
        await ready_bench.settle()
        assert ready_bench.suggester.asked[-1][0] == "printer\ny = 1\n"

    async def test_one_for_another_place_is_not_followed(self, ready_bench: Bench) -> None:
        await self.opened(ready_bench)
        selected(ready_bench, 0, 2, "print", 3)
        await ready_bench.settle()
        assert ready_bench.suggester.asked[-1][:2] == ("pri\ny = 1\n", Position(0, 3))


TEXT = "import os\n\n\ndef total(items):\n    result = 0\n    for item in items:\n        re\n"


@pytest.fixture
def stepped() -> Suggester:
    """The embedded model: the tokens it writes are those that its text is read as."""
    return Suggester(Engine.load(device="cpu"), Settings(max_tokens=16))


class TestRealEngine:
    pytestmark = pytest.mark.asyncio

    async def begin(self, stepped: Suggester) -> tuple[Bench, str]:
        """Open a text, ask at the end of its last line, and give what is shown there."""
        bench = Bench(stepped)
        await bench.initialized({"deadlineMs": 60_000, "minConfidence": 0})
        await bench.load()
        document = {"uri": URI, "languageId": "python", "version": 0, "text": TEXT}
        bench.tell("textDocument/didOpen", {"textDocument": document})
        request = bench.complete(6, 10, trigger=1)
        await self.run(bench, stepped, request)
        item, *_ = bench.result(request)["items"]
        assert len(item["insertText"]) > 1, "the text has a part and a rest"
        return bench, item["insertText"]

    async def run(self, bench: Bench, stepped: Suggester, *requests: int) -> None:
        """Step the engine until the requests are answered, and nothing is left to do."""

        async def step() -> None:
            while stepped.engine.step() or not all(map(bench.answers, requests)):
                await bench.settle()
            await bench.settle()
            while stepped.engine.step():
                pass

        await asyncio.wait_for(step(), TIMEOUT_S)

    def insert(self, bench: Bench, character: int, text: str) -> None:
        at = {"line": 6, "character": character}
        changes = [{"range": {"start": at, "end": at}, "text": text}]
        document = {"uri": URI, "version": 1}
        bench.tell("textDocument/didChange", {"textDocument": document, "contentChanges": changes})

    async def test_typing_along_asks_the_engine_nothing(self, stepped: Suggester) -> None:
        bench, shown = await self.begin(stepped)
        try:
            before = stepped.engine.counters()
            self.insert(bench, 10, shown[0])
            request = bench.complete(6, 11)
            await bench.settle()
            # Not one step of the engine.
            assert bench.result(request)["items"][0]["insertText"] == shown[1:]
            after = stepped.engine.counters()
        finally:
            bench.close()
        assert {name: n for name, n in after.items() if name.startswith("answers")} == {
            name: n for name, n in before.items() if name.startswith("answers")
        }
        assert bench.server.type_through.n_answers == 1

    async def test_a_makeshift_is_prolonged_until_the_epoch_is_read(
        self, stepped: Suggester
    ) -> None:
        bench = Bench(stepped)
        try:
            await bench.initialized({"deadlineMs": 60_000, "minConfidence": 0})
            await bench.load()
            below = "".join(
                f"\n\ndef scaled_{n}(item):\n    return item * {n}\n" for n in range(40)
            )
            document = {"uri": URI, "languageId": "python", "version": 0, "text": TEXT + below}
            bench.tell("textDocument/didOpen", {"textDocument": document})
            request = bench.complete(6, 10)
            while not bench.answers(request):
                stepped.engine.step()
                await bench.settle()
            shown = bench.result(request)["items"][0]["insertText"]
            # The epoch is still to be read.
            self.insert(bench, 10, shown[0])
            request = bench.complete(6, 11)
            await bench.settle()
            assert bench.result(request)["items"][0]["insertText"] == shown[1:]
            await self.run(bench, stepped)
            self.insert(bench, 11, shown[1])
            await self.run(bench, stepped, bench.complete(6, 12))
            kinds = [answer["prompt_kind"] for answer in bench.server.answers.take()]
        finally:
            bench.close()
        assert kinds[0] in ("trunk", "bridge")
        assert kinds[1:] == ["typed", "epoch"]

    async def test_accepting_reads_ahead_at_its_end_and_costs_no_pass(
        self, stepped: Suggester
    ) -> None:
        bench, shown = await self.begin(stepped)
        try:
            before = stepped.engine.counters()
            self.insert(bench, 10, shown)
            await self.run(bench, stepped)
            ahead = stepped.engine.counters()
            request = bench.complete(6, 10 + len(shown))
            await self.run(bench, stepped, request)
            *_, counts = bench.server.answers.take()
        finally:
            bench.close()
        # The trail of what was written is what is accepted.
        assert ahead["trail_hits"] > before["trail_hits"]
        assert ahead["background_passes"] == before["background_passes"]
        assert ahead["background_tokens"] == before["background_tokens"]
        assert counts["prompt_kind"] == "epoch"
        assert counts["tokens"]["recomputed"] == 0

    async def test_a_menu_entry_leaves_the_documents_windows_alone(
        self, stepped: Suggester
    ) -> None:
        bench, _ = await self.begin(stepped)
        try:
            windows = list(stepped._windows[URI])
            ends = {"start": {"line": 6, "character": 8}, "end": {"line": 6, "character": 10}}
            request = bench.ask(
                "textDocument/inlineCompletion",
                {
                    "textDocument": {"uri": URI},
                    "position": {"line": 6, "character": 10},
                    "context": {
                        "triggerKind": 1,
                        "selectedCompletionInfo": {"range": ends, "text": "result"},
                    },
                },
            )
            await self.run(bench, stepped, request)
            *_, counts = bench.server.answers.take()
            items = bench.result(request)["items"]
        finally:
            bench.close()
        assert stepped._windows[URI] == windows
        assert counts["prompt_kind"] == "epoch"
        assert items
        for item in items:
            assert item["range"] == ends
            assert item["insertText"].startswith("result")
            assert item["insertText"] != "result"
