"""What the plugin makes of each kind of answer, and what it tells the server of it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from tests.editors.neovim.conftest import watch
from tests.editors.neovim.scripted import (
    NOTHING,
    asked,
    items,
    received,
    until_asked,
    until_received,
)
from tests.editors.neovim.terminal import PLUGIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.editors.neovim.terminal import Terminal

COMMAND = {"title": "accepted", "command": "keystate.accepted", "arguments": ["one"]}


def test_shown_and_accepted_are_told(opened: Callable[..., Terminal]) -> None:
    editor = opened(items("first second", command=COMMAND), NOTHING)
    editor.type("x")
    assert editor.until_ghost() == "first second"
    (shown,) = until_received(editor, "textDocument/didShowCompletion")
    assert shown["item"]["insertText"] == "first second"
    editor.press("M-Right")
    editor.until_line("xfirst")
    (part,) = until_received(editor, "textDocument/didPartiallyAcceptCompletion")
    assert part["acceptedLength"] == len("first")
    assert part["item"] == shown["item"]
    assert received(editor, "workspace/executeCommand") == []
    editor.until(lambda: editor.ghost == " second", "the rest is shown")
    editor.press("Tab")
    editor.until_line("xfirst second")
    (command,) = until_received(editor, "workspace/executeCommand")
    assert command == {"command": "keystate.accepted", "arguments": ["one"]}
    assert len(received(editor, "textDocument/didShowCompletion")) == 1


def test_lengths_are_utf_16(opened: Callable[..., Terminal]) -> None:
    editor = opened(items("😀é b"), NOTHING)
    editor.type("é")
    assert editor.until_ghost() == "😀é b"
    (request,) = asked(editor)
    assert request["position"]["character"] == 1
    editor.press("M-Right")
    editor.until_line("é😀é")
    (part,) = until_received(editor, "textDocument/didPartiallyAcceptCompletion")
    assert part["acceptedLength"] == 3


def test_lines_are_accepted_one_by_one(opened: Callable[..., Terminal]) -> None:
    editor = opened(items("one:\n    two\n    three"), NOTHING)
    editor.type("x")
    editor.until_ghost()
    editor.press("M-C-Right")
    editor.until_line("xone:")
    editor.until(lambda: editor.ghost == "\n    two\n    three", "the rest is shown")
    editor.press("M-C-Right")
    editor.until_line("    two")
    editor.until(lambda: editor.ghost == "\n    three", "the rest is shown")
    assert len(asked(editor)) == 1
    editor.press("Tab")
    editor.until(lambda: editor.text.endswith("xone:\n    two\n    three"), "all is there")


def test_alternatives_are_asked_for_and_cycled(opened: Callable[..., Terminal]) -> None:
    editor = opened(items("one"), items("one", "two", "three"), NOTHING)
    editor.type("x")
    assert editor.until_ghost() == "one"
    editor.press("M-]")
    editor.until(lambda: editor.ghost == "two", "the second is shown")
    assert [one["context"]["triggerKind"] for one in asked(editor)] == [2, 1]
    for key, text in (("M-]", "three"), ("M-]", "one"), ("M-[", "three"), ("M-[", "two")):
        editor.press(key)
        editor.until_is("ghost", text)
    # An alternative that has begun to be typed goes on; others are passed over.
    editor.type("t")
    editor.until(lambda: editor.ghost == "wo", "the rest is shown")
    editor.press("M-]")
    editor.until(lambda: editor.ghost == "hree", "the one that goes on from there is shown")
    editor.press("Tab")
    editor.until_line("xthree")


def test_asked_for_by_hand(opened: Callable[..., Terminal]) -> None:
    editor = opened(NOTHING, items("asked"))
    editor.type("x")
    until_asked(editor, 1)
    editor.press("M-\\")
    assert editor.until_ghost() == "asked"
    assert asked(editor)[-1]["context"]["triggerKind"] == 1


def test_text_behind_the_cursor_is_replaced(opened: Callable[..., Terminal]) -> None:
    def at(character: int) -> dict[str, int]:
        return {"line": 183, "character": character}

    editor = opened(items("abc)", range={"start": at(2), "end": at(3)}), NOTHING)
    editor.type("f(")
    editor.until_line("f()")
    editor.until_ghost()
    editor.press("Tab")
    editor.until_line("f(abc)")


def test_brackets_closed_while_typing_along_are_not_doubled(
    opened: Callable[..., Terminal],
) -> None:
    editor = opened(items("call(a)"), NOTHING)
    editor.type("x")
    editor.until_ghost()
    editor.type("call(")
    editor.until_line("xcall()")
    editor.until(lambda: editor.ghost.rstrip(")") == "a", "the rest is shown")
    editor.press("Tab")
    editor.until_line("xcall(a)")


def test_null_and_nothing_show_nothing(opened: Callable[..., Terminal]) -> None:
    editor = opened(None, NOTHING, items("late"))
    editor.type("x")
    until_asked(editor, 1)
    assert editor.ghost == ""
    editor.type("y")
    until_asked(editor, 2)
    assert editor.ghost == ""
    editor.press("Tab")
    editor.until_line("xy[was] ")


def test_after_a_change_in_another_line_the_server_is_asked_anew(
    opened: Callable[..., Terminal],
) -> None:
    editor = opened(items("old"), items("new"))
    editor.type("x")
    editor.until_is("ghost", "old")
    editor.press("Up", "End")
    editor.type("y")
    editor.until_line_ends("y")
    watch(editor)
    editor.press("Down", "End")
    editor.until_line("x")
    editor.until_is("ghost", "new")
    assert "old" not in [shown for _, shown in editor.lua("return _G.seen")]
    row, column = editor.cursor
    places = [one["position"] for one in asked(editor)]
    assert places.count({"line": row - 1, "character": column}) == 2


def test_asked_for_while_disabled_nothing_is_asked(opened: Callable[..., Terminal]) -> None:
    editor = opened(items("abc"))
    editor.command("Keystate disable")
    editor.press("A", "M-\\")
    editor.command("Keystate enable")
    editor.press("A")
    editor.type("x")
    editor.until_ghost()
    assert {one["context"]["triggerKind"] for one in asked(editor)} == {2}


def test_status_is_shown(opened: Callable[..., Terminal]) -> None:
    editor = opened(NOTHING)
    assert editor.lua("return require('keystate').state().kind") == "ready"
    say = (
        "vim.lsp.get_clients({ name = 'keystate' })[1]:request('keystate/say', ..., function() end)"
    )
    editor.lua(say, {"kind": "busy", "model": "tiny", "device": "cpu"})
    editor.until(lambda: editor.lua("return require('keystate').status()") == "keystate ⋯", "busy")
    editor.lua(say, {"kind": "error", "message": "no model"})
    editor.until(lambda: editor.lua("return require('keystate').status()") == "keystate !", "error")
    state = editor.lua("return require('keystate').state()")
    assert state == {"kind": "error", "message": "no model", "model": "tiny", "device": "cpu"}
    editor.command("Keystate status")
    editor.until(lambda: "model: tiny" in editor.screen(), "the message is shown")


def test_jumps_and_settings_are_told(opened: Callable[..., Terminal]) -> None:
    editor = opened(
        NOTHING,
        settings={"maxTokens": 8, "exclude": ["gen/"]},
        secret_names=["my_*[a-c].py"],
    )
    editor.press("Escape")
    editor.type("100G")
    editor.until(
        lambda: any(
            moved["position"]["line"] == 99 for moved in received(editor, "keystate/cursorMoved")
        ),
        "the jump is told",
    )
    (opening,) = received(editor, "initialize")
    # What is not sent is not read from the disk, either, whatever the case of its letters.
    exclude = ["gen/", "[mM][yY]_*[a-c].[pP][yY]"]
    assert opening["initializationOptions"] == {
        "maxTokens": 8,
        "shareEngine": "auto",
        "exclude": exclude,
    }
    assert opening["capabilities"]["experimental"] == {"keystateStatus": True}
    editor.lua("require('keystate').configure(...)", {"maxTokens": 9})
    told = until_received(editor, "workspace/didChangeConfiguration")
    editor.until(
        lambda: (
            received(editor, "workspace/didChangeConfiguration")[-1]
            == {"settings": {"keystate": {"maxTokens": 9, "exclude": exclude}}}
        ),
        f"the setting is told, not only {told}",
    )


def test_accept_can_be_called_from_any_mapping(opened: Callable[..., Terminal]) -> None:
    editor = opened(items("abc"), keys=False)
    editor.lua(
        """
        vim.keymap.set("i", "<C-l>", function()
          return require("keystate").accept() and "" or "none"
        end, { expr = true })
        """
    )
    editor.type("x")
    editor.until_ghost()
    editor.lua("require('keystate').dismiss()")
    editor.press("C-l")
    editor.until_line("xnone")
    editor.until_ghost()
    editor.press("C-l")
    editor.until_line("xnoneabc")


def test_the_server_of_the_checkout_is_found(opened: Callable[..., Terminal]) -> None:
    editor = opened(NOTHING)
    on_path = shutil.which("keystate") is not None
    built = PLUGIN.parents[1] / ".venv" / "bin" / "keystate"
    command = editor.lua("return require('keystate.options').defaults().cmd")
    assert command[0] == (str(built) if built.exists() and not on_path else "keystate")
    assert command[1] == "serve"


def test_wrong_options_are_named(opened: Callable[..., Terminal]) -> None:
    editor = opened(NOTHING)
    problems = editor.lua(
        "local _, problems = require('keystate.options').read(...) return problems",
        {
            "debounce_ms": "50",
            "ghost": "own",
            "ghost_text": "own",
            "share_engine": "sometimes",
            "keys": {"accept": 1, "tab": "x"},
        },
    )
    assert [problem.split(",")[0].split(" (")[0] for problem in problems] == [
        'ghost_text is "own"',
        "keys.accept is a number",
        "option debounce_ms is a string",
        'share_engine is "sometimes"',
        "unknown key keys.tab",
        "unknown option ghost",
    ]


def test_line_ends_of_another_system_are_not_shown(opened: Callable[..., Terminal]) -> None:
    editor = opened(items("one:\r\n    two"), NOTHING)
    editor.lua("vim.bo.fileformat = 'dos'")
    editor.type("x")
    assert editor.until_ghost() == "one:\n    two"
    editor.press("Tab")
    editor.until(lambda: editor.text.endswith("xone:\n    two"), "all is there")


def test_what_is_shown_is_taken_though_one_between_was_passed_over(
    opened: Callable[..., Terminal],
) -> None:
    editor = opened(items("tone", "a", "ttwo"), NOTHING)
    editor.type("x")
    editor.until_is("ghost", "tone")
    editor.type("t")
    editor.until_line("xt")
    # Neovim asks 200 ms later, and is answered from what is kept.
    editor.lua("_G.rested = false; vim.defer_fn(function() _G.rested = true end, 300)")
    editor.until(lambda: editor.lua("return _G.rested"), "all is at rest")
    editor.press("M-]")
    editor.until_is("ghost", "two")
    editor.press("Tab")
    editor.until_line("xttwo")
