"""Neovim's own `vim.lsp.inline_completion` on the real server, with nothing of ours in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.editors.neovim.conftest import BARE, BEFORE_SETUP, SERVE, SETTINGS, renew, to_lua

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.editors.neovim.terminal import Terminal

LOOP = "for name, payload in "


@pytest.fixture(scope="module")
def started(launch: Callable[..., Terminal]) -> Iterator[Terminal]:
    terminal = launch(
        lambda folder: (
            BEFORE_SETUP + BARE % (to_lua([*SERVE, str(folder / "log")]), to_lua(SETTINGS))
        )
    )
    terminal.until_ready()
    yield terminal
    terminal.close()


@pytest.fixture
def editor(started: Terminal) -> Terminal:
    renew(started)
    return started


def write(editor: Terminal, text: str) -> str:
    editor.press("o")
    editor.type(text)
    editor.until(lambda: editor.line.startswith(text), f"{text!r} has been typed")
    return editor.until_ghost()


def test_ghost_text_tab_and_undo(editor: Terminal) -> None:
    ghost = write(editor, LOOP)
    assert LOOP + ghost.split("\n")[0] in editor.screen()
    editor.press("Tab")
    editor.until(lambda: editor.text.endswith(LOOP + ghost), "Tab has inserted it")
    editor.press("Escape", "u")
    editor.until(lambda: not editor.text.endswith(LOOP + ghost), "undone")


def test_typing_along_shows_the_rest(editor: Terminal) -> None:
    ghost = write(editor, LOOP)
    editor.type(ghost[0])
    editor.until(lambda: editor.line.startswith(LOOP + ghost[0]), "it is typed")
    editor.until(lambda: editor.ghost == ghost[1:], "the rest is shown")


def test_two_suggestions_in_a_line_double_no_bracket(editor: Terminal) -> None:
    editor.press("o")
    for text in ("worker.register(", "; queue.add("):
        editor.press("End")
        editor.type(text)
        editor.until_line_ends(text + ")")
        ghost = editor.until_ghost()
        editor.press("Tab")
        editor.until_line_ends(text + ghost + ")")
        assert editor.line.count("(") == editor.line.count(")")
