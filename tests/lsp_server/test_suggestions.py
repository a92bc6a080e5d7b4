"""The way from document to suggestion, with an engine that the tests step by hand."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest

from engine.request import Completion
from lsp_server.documents import Change, Document, Position
from lsp_server.settings import Settings
from lsp_server.suggestions import (
    Suggester,
    Suggestion,
    forget_saved_states,
    usable_device,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.asyncio

TEXT = "import os\n\n\ndef total(items):\n    result = 0\n    for item in items:\n        # \n"
END = Position(6, 10)


def python(text: str) -> Document:
    return Document("file:///a.py", "python", 0, text, "a.py")


async def run(suggester: Suggester, work: asyncio.Task[Suggestion]) -> Suggestion:
    while not work.done():
        suggester.engine.step()
        await asyncio.sleep(0)
    return work.result()


def ask(
    suggester: Suggester, document: Document, position: Position = END, **options: Any
) -> asyncio.Task[Suggestion]:
    options = {"explicit": False, "deadline_ms": None, **options}
    return asyncio.ensure_future(suggester.suggest(document, position, **options))


async def test_the_item_stands_at_the_cursor(stepped: Suggester) -> None:
    suggestion = await run(stepped, ask(stepped, python(TEXT)))
    (item,) = suggestion.items
    assert item.start == item.end == END
    assert "\n" not in item.insert_text
    # Past the line's end, the cursor is at the end.
    again = await run(stepped, ask(stepped, python(TEXT), Position(6, 999)))
    assert again.items == suggestion.items


async def test_prepare_leaves_nothing_to_read(stepped: Suggester) -> None:
    document = python(TEXT)
    document.apply(Change(text="s", range=(END, END)))
    edit = document.last_edit
    assert edit is not None
    stepped.prepare(document, edit.new_end)
    while stepped.engine.step():
        pass
    suggestion = await run(stepped, ask(stepped, document, Position(6, 11)))
    assert suggestion.completion.n_recomputed == 0
    assert suggestion.completion.n_prompt > 10


async def test_the_edges_of_windows_stay_while_typing(stepped: Suggester) -> None:
    lines = "".join(f"value_{n} = {n}\n" for n in range(600))
    document = python(lines + "\n" + lines)
    n_recomputed = []
    for column, character in enumerate("total = value_1 + 2"):
        at = Position(600, column)
        document.apply(Change(text=character, range=(at, at)))
        suggestion = await run(stepped, ask(stepped, document, Position(600, column + 1)))
        n_recomputed.append(suggestion.completion.n_recomputed)
    assert n_recomputed[0] > 500
    assert max(n_recomputed[1:]) <= 1 + 8


async def test_cancelling_frees_the_engine(stepped: Suggester) -> None:
    work = ask(stepped, python(TEXT))
    await asyncio.sleep(0)
    stepped.engine.step()
    work.cancel()
    await asyncio.wait([work])
    assert work.cancelled()
    n_steps = 0
    while stepped.engine.step():
        n_steps += 1
    assert n_steps <= 1
    assert stepped.engine.counters()["answers_cancel"] == 1


async def test_an_engine_that_hangs_is_not_waited_for(
    stepped: Suggester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lsp_server.suggestions.GRACE_MS", 1.0)
    work = ask(stepped, python(TEXT), deadline_ms=1.0)
    await asyncio.wait([work])
    assert work.result().items == ()
    assert work.result().completion.stop == "deadline"


async def test_raw_is_neither_stopped_nor_trimmed(stepped: Suggester) -> None:
    suggestion = await run(stepped, ask(stepped, python(TEXT), raw=True))
    assert suggestion.completion.n_generated == 8
    assert suggestion.items[0].insert_text == suggestion.completion.text


async def test_the_model_sees_unix_lines_and_the_document_gets_its_own(
    stepped: Suggester, monkeypatch: pytest.MonkeyPatch
) -> None:
    unix = await run(stepped, ask(stepped, python(TEXT)))
    dos = await run(stepped, ask(stepped, python(TEXT.replace("\n", "\r\n"))))
    assert dos.completion.prompt_ids == unix.completion.prompt_ids

    async def complete(_request: Any) -> Completion:
        return Completion(text="turn a\n        b", stop="block")

    monkeypatch.setattr(stepped, "_complete", complete)
    dos = await run(stepped, ask(stepped, python(TEXT.replace("\n", "\r\n"))))
    assert dos.items[0].insert_text == "turn a\r\n        b"


async def test_forgetting_a_document_drops_its_window(stepped: Suggester) -> None:
    document = python(TEXT)
    await run(stepped, ask(stepped, document))
    assert document.uri in stepped._windows
    stepped.forget(document.uri)
    assert stepped._windows == {}


@pytest.mark.usefixtures("suggester")
async def test_what_was_loaded_is_spared_the_garbage_collector(
    tmp_path: Path, model_directory: Path
) -> None:
    loaded = Suggester.load(Settings(model=str(model_directory), device="cpu", save_states=False))
    assert gc.isenabled()
    # Torch's alone are many times as many.
    assert gc.get_freeze_count() > 10_000
    loaded.close()
    assert gc.get_freeze_count() == 0
    with pytest.raises(ValueError, match=str(tmp_path)):
        Suggester.load(Settings(model=str(tmp_path)))
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


async def test_devices() -> None:
    assert usable_device("auto") is None
    assert usable_device("cpu") == "cpu"
    with pytest.raises(ValueError, match="device is 'toaster', expected one that works here"):
        usable_device("toaster")
    with pytest.raises(ValueError, match="device is 'meta', expected one that computes"):
        usable_device("meta")


@pytest.mark.parametrize(
    "error", [ImportError("no module habana " * 50), NotImplementedError("no backend\n" * 50)]
)
async def test_what_torch_says_of_a_device_is_one_short_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("torch.empty", fail)
    with pytest.raises(ValueError, match="device is 'hpu', expected one that works here: no ") as e:
        usable_device("hpu")
    assert len(str(e.value)) < 300
    assert "\n" not in str(e.value)


async def test_without_a_home_folder_there_are_no_states(
    model_directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("pathlib.Path.home", fail)
    loaded = Suggester.load(Settings(model=str(model_directory), device="cpu"))
    loaded.close()
    assert loaded.engine._saving.states is None
    (record,) = [record for record in caplog.records if "not kept" in record.message]
    assert "no home folder" in record.message
    forget_saved_states()
