"""Buffers without a name, with another one, and with a server that has gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tests.editors.neovim.scripted import items, received, until_received

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.editors.neovim.terminal import Terminal

ABC = items("abc")
N_CLIENTS = "return #vim.lsp.get_clients({ bufnr = 0, name = 'keystate' })"


def names(editor: Terminal, method: str) -> list[str]:
    """The files that the server has received a message of this kind about, without repetition."""
    uris = [one["textDocument"]["uri"] for one in received(editor, method)]
    return list(dict.fromkeys(uri.rsplit("/", 1)[-1] for uri in uris))


def write(editor: Terminal, text: str) -> None:
    editor.press("Escape", "o")
    editor.type(text)
    editor.until_line(text)


def until_at_rest(editor: Terminal) -> None:
    """Wait until whatever the last key leads to has been done."""
    # A timer that was started later, and runs longer, fires after those of either kind.
    editor.lua("_G.rested = false; vim.defer_fn(function() _G.rested = true end, 300)")
    editor.until(lambda: editor.lua("return _G.rested"), "all is at rest")


def test_a_buffer_without_a_name_is_left_alone_until_it_has_one(
    opened: Callable[..., Terminal],
) -> None:
    editor = opened(ABC)
    editor.command("enew")
    editor.command("set filetype=python")
    write(editor, "x")
    until_at_rest(editor)
    assert editor.lua(N_CLIENTS) == 0
    assert names(editor, "textDocument/didOpen") == ["job_queue.py"]
    folder = editor.lua("return vim.fs.dirname(vim.fn.bufname(1))")
    editor.command(f"write {folder}/named.py")
    editor.until(lambda: editor.lua(N_CLIENTS) == 1, "it is attached")
    write(editor, "y")
    assert editor.until_ghost() == "abc"
    assert names(editor, "textDocument/didOpen") == ["job_queue.py", "named.py"]


def test_another_name_is_another_file(opened: Callable[..., Terminal]) -> None:
    editor = opened(ABC)
    editor.command("file other.py")
    editor.until(lambda: names(editor, "textDocument/didOpen")[1:] == ["other.py"], "it is open")
    assert names(editor, "textDocument/didClose") == ["job_queue.py"]
    write(editor, "x")
    assert editor.until_ghost() == "abc"
    editor.command("file secrets.py")
    editor.until(lambda: editor.lua(N_CLIENTS) == 0, "the server has no part in it")
    write(editor, "y")
    assert names(editor, "textDocument/didClose") == ["job_queue.py", "other.py"]
    assert names(editor, "textDocument/didChange") == ["job_queue.py", "other.py"]


def test_after_a_crash_and_changes_a_restarted_server_is_told_of_changes(
    opened: Callable[..., Terminal],
) -> None:
    editor = opened(ABC, "end")
    # Neovim tells of the crash by a message that wants a key.
    editor.lua("vim.notify = function() end")
    folder = Path(editor.lua("return vim.fs.dirname(vim.api.nvim_buf_get_name(0))"))
    editor.type("x")
    editor.until_ghost()
    editor.type("y")
    is_over = "return require('keystate').state().kind == 'error'"
    editor.until(lambda: editor.lua(is_over), "the server has ended")
    write(editor, "z")
    (folder / "answers.json").write_text(json.dumps(ABC))
    editor.command("Keystate restart")
    until_received(editor, "textDocument/didOpen")
    write(editor, "w")
    assert editor.until_ghost() == "abc"
    changes = [
        change["text"]
        for one in received(editor, "textDocument/didChange")
        for change in one["contentChanges"]
    ]
    assert changes[-1] == "w"
    opening = received(editor, "textDocument/didOpen")[-1]["textDocument"]["text"]
    assert opening.endswith("xy\nz\n")
    assert received(editor, "textDocument/didChange")[-1]["contentChanges"][0]["range"] == {
        "start": {"line": editor.cursor[0] - 1, "character": 0},
        "end": {"line": editor.cursor[0] - 1, "character": 0},
    }


def test_a_buffer_that_is_wiped_out_while_something_is_shown_goes_quietly(
    opened: Callable[..., Terminal],
) -> None:
    editor = opened(ABC)
    editor.lua("vim.keymap.set('i', '<C-t>', '<Cmd>bwipeout!<CR>')")
    editor.type("x")
    editor.until_ghost()
    editor.press("C-t")
    editor.until(lambda: editor.lua("return vim.api.nvim_buf_get_name(0)") == "", "it is gone")
    until_at_rest(editor)
    assert editor.lua("return vim.fn.execute('messages')") == ""


def test_nothing_is_asked_about_a_buffer_that_was_left(opened: Callable[..., Terminal]) -> None:
    editor = opened(ABC)
    editor.lua(
        """
        local folder = vim.fs.dirname(vim.api.nvim_buf_get_name(0))
        vim.cmd.split(folder .. "/other.py")
        vim.api.nvim_buf_set_lines(0, 0, -1, false, { "one", "two three" })
        vim.api.nvim_win_set_cursor(0, { 2, 4 })
        vim.cmd.wincmd("w")
        """
    )
    editor.until(lambda: "other.py" in names(editor, "textDocument/didOpen"), "it is open")
    editor.type("x")
    editor.until_line("x")
    # What a key leads to, and the other window before it is asked.
    editor.lua("vim.api.nvim_exec_autocmds('CursorMovedI', { buffer = 0 }); vim.cmd.wincmd('w')")
    until_at_rest(editor)
    asked_about = "textDocument/inlineCompletion"
    there = {"line": 1, "character": 4}
    uris = [
        one["textDocument"]["uri"]
        for one in received(editor, asked_about)
        if one["position"] == there
    ]
    assert [uri.rsplit("/", 1)[-1] for uri in uris] == ["other.py"]
