"""Windows over time: a jump back finds those that it left, and the next one is read ahead."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from lsp_server.context import WindowLimits, nearest_window, window_at
from lsp_server.documents import Change, Document
from lsp_server.settings import Settings
from lsp_server.suggestions import Suggester

if TYPE_CHECKING:
    from engine.request import Completion
    from lsp_server.context import Window

TIMEOUT_S = 60
LIMITS = WindowLimits()
LINES_EACH = 6


def definition(n: int) -> str:
    return (
        f"def scaled_{n}(values, limit={n * 7}):\n"
        f"    total = 0\n"
        f"    for value in values:\n"
        f"        total += min(value, limit) * {n}\n"
        f"    return total\n"
        f"\n"
    )


def python(n_definitions: int = 120) -> Document:
    text = "".join(map(definition, range(n_definitions)))
    return Document("file:///workspace/scaled.py", "python", 0, text, "scaled.py")


def end_of(document: Document, n: int) -> int:
    """The end of the line that sums up in the n-th definition."""
    return document.text.index(f" * {n}\n") + len(f" * {n}")


def insert(document: Document, offset: int, text: str) -> int:
    """Insert text at an offset; give the offset behind it."""
    at = document.position_at(offset)
    document.apply(Change(text=text, range=(at, at)))
    return offset + len(text)


def drain(suggester: Suggester) -> None:
    while suggester.engine.step():
        pass


async def complete(suggester: Suggester, document: Document, offset: int) -> Completion:
    """Ask at an offset, and step the engine until nothing is left to do."""
    asked = asyncio.ensure_future(
        suggester.suggest(document, document.position_at(offset), explicit=False, deadline_ms=None)
    )

    async def step() -> Completion:
        while not asked.done():
            suggester.engine.step()
            await asyncio.sleep(0)
        return asked.result().completion

    completion = await asyncio.wait_for(step(), TIMEOUT_S)
    drain(suggester)
    return completion


def typed_lines(n: int) -> list[str]:
    return [f"\n        total += value - {i}" for i in range(n)]


# A jump back


@pytest.mark.asyncio
@pytest.mark.parametrize("inserted", ["", "# a note\n" * 3], ids=["nothing changed", "edit above"])
async def test_a_jump_back_finds_the_windows_it_left(stepped: Suggester, inserted: str) -> None:
    document = python()
    cursor = end_of(document, 60)
    await complete(stepped, document, cursor)
    for line in typed_lines(20):
        cursor = insert(document, cursor, line)
        before = await complete(stepped, document, cursor)
    # Away, to the first lines, where something may be written.
    await complete(stepped, document, insert(document, end_of(document, 1), " + 1"))
    if inserted:
        at = document.line_start(LINES_EACH)
        await complete(stepped, document, insert(document, at, inserted))
    cursor += len(" + 1") + len(inserted)
    back = await complete(stepped, document, cursor)
    assert back.kind == "epoch"
    assert back.prompt_ids == before.prompt_ids
    assert back.n_recomputed == 0
    assert back.token_ids == before.token_ids
    # Windows cut anew would be others, so it is the ones of before that were found.
    stranger = Suggester(stepped.engine, Settings(max_tokens=8))
    anew = await complete(stranger, document, cursor)
    assert anew.prompt_ids != before.prompt_ids


@pytest.mark.asyncio
async def test_jumps_among_several_places_find_each(stepped: Suggester) -> None:
    document = python()
    places = [end_of(document, n) for n in (20, 60, 100)]
    before = []
    for i in range(len(places)):
        await complete(stepped, document, places[i])
        for line in typed_lines(8):
            places[i] = insert(document, places[i], line)
            places[i + 1 :] = [place + len(line) for place in places[i + 1 :]]
            last = await complete(stepped, document, places[i])
        before.append(last)
    for _ in range(2):
        for place, left in zip(places, before, strict=True):
            back = await complete(stepped, document, place)
            assert (back.kind, back.n_recomputed) == ("epoch", 0)
            assert back.prompt_ids == left.prompt_ids


def edges(window: Window) -> tuple[int, int]:
    return window.prefix_start, window.suffix_end


def test_of_the_windows_that_serve_the_nearest_is_taken() -> None:
    document = python()
    near, far = end_of(document, 60), end_of(document, 64)
    windows = [window_at(document, at, LIMITS) for at in (near, far, end_of(document, 5))]
    assert len({edges(window) for window in windows}) == 3
    for order in (windows, windows[::-1]):
        assert nearest_window(document, near + 30, LIMITS, order) is windows[0]
        assert nearest_window(document, far - 30, LIMITS, order) is windows[1]
        assert nearest_window(document, end_of(document, 100), LIMITS, order) is None
    assert nearest_window(document, near, LIMITS, []) is None


@pytest.mark.parametrize(
    ("lines", "serves"),
    [((0, 3), True), ((300, 303), True), ((None, 2), False)],
    ids=["above the window", "inside the window", "across its left edge"],
)
def test_edges_are_carried_over_edits_unless_they_are_gone(
    lines: tuple[int | None, int], serves: bool
) -> None:
    document = python()
    window = window_at(document, end_of(document, 60), LIMITS)
    edge_line = document.line_of(window.prefix_start)
    assert edge_line < 300 < document.line_of(window.cursor)
    first, last = (edge_line - 2, edge_line + 2) if lines[0] is None else (lines[0], lines[1])
    start, end = document.line_start(first), document.line_start(last)
    document.apply(Change(text="", range=(document.position_at(start), document.position_at(end))))
    cursor = end_of(document, 60)
    found = nearest_window(document, cursor, LIMITS, [window])
    assert (found is window) == serves
    if serves:
        n_cut = end - start
        again = window_at(document, cursor, LIMITS, found)
        n_above = n_cut if first < edge_line else 0
        assert edges(again) == (window.prefix_start - n_above, window.suffix_end - n_cut)
        assert again.suffix == window.suffix


# The next window

TYPED = "\n        total += value"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("from_start", "read_ahead"),
    [
        pytest.param(True, True, id="first window"),
        pytest.param(False, True, id="later window"),
        pytest.param(True, False, id="first window, not read ahead"),
        pytest.param(False, False, id="later window, not read ahead"),
    ],
)
async def test_the_keystroke_that_moves_the_window_finds_its_states(
    stepped: Suggester, monkeypatch: pytest.MonkeyPatch, from_start: bool, read_ahead: bool
) -> None:
    """Every change is asked about at once; what is left to read is read after the answer."""
    if not read_ahead:
        monkeypatch.setattr("lsp_server.suggestions.is_nearly_full", lambda *_: False)
    suggester = Suggester(stepped.engine, Settings(max_tokens=1))
    document = python()
    # The first window begins with the file, and has a fifth of its room left.
    cursor = end_of(document, 17 if from_start else 60)
    assert (1900 < cursor < 2400) == from_start
    completions = [await complete(suggester, document, cursor)]
    n_background = []
    move = 0
    while not move or len(completions) < move + 10:
        assert len(completions) < 100, "the window never moves"
        cursor = insert(document, cursor, TYPED)
        suggester.prepare(document, cursor)
        before = background_tokens(suggester)
        completions.append(await complete(suggester, document, cursor))
        n_background.append(background_tokens(suggester) - before)
        if completions[-1].n_prompt < completions[-2].n_prompt - 100:
            assert not move, "it moves again"
            move = len(completions) - 1

    n_inserted = len(suggester.engine.tokenizer.encode(TYPED))
    assert completions[move].n_prompt > 400
    n_recomputed = [completion.n_recomputed for completion in completions]
    assert max(n_recomputed[1:move] + n_recomputed[move + 1 :]) <= n_inserted + 8
    if read_ahead:
        assert n_recomputed[move] <= n_inserted + 8
        assert completions[move].kind == "epoch"
        # It was read once, well before, and then only what was typed.
        assert [n > 100 for n in n_background].count(True) == 1
        assert n_background.index(max(n_background)) < move - 5
    else:
        assert n_recomputed[move] > 400
        assert max(n_background[: move - 1]) <= n_inserted + 8


def background_tokens(suggester: Suggester) -> int:
    return suggester.engine.counters()["background_tokens"]
