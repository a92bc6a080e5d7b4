"""What a user of the plugin sees, in a real Neovim, from the real server and its own model."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.editors.neovim.conftest import SERVE, plugin_init, renew, watch
from tests.editors.neovim.terminal import PLUGIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.editors.neovim.terminal import Terminal

# The sample goes on from here with `read_jobs(args.add):`, and the model with it.
LOOP = "for name, payload in "
# What would ask for, or draw, a suggestion in this buffer.
OWN_EVENTS = """
  local drawing = require("keystate.view").is_builtin()
    and vim.lsp.inline_completion.is_enabled({ bufnr = 0 })
  local ok, own = pcall(vim.api.nvim_get_autocmds, { group = "keystate.typing:" .. vim.fn.bufnr() })
  return drawing or (ok and #own > 0)
"""
# Open a buffer of a kind, or a file of a name.
OPEN = """
  local kind, name = ...
  vim.cmd.new()
  vim.bo.buftype = kind
  if name ~= "" then vim.api.nvim_buf_set_name(0, name) end
  vim.bo.filetype = "python"
  return vim.api.nvim_get_current_buf()
"""


def write(editor: Terminal, text: str) -> str:
    """Write a line at the end, as a user does; gives the ghost text that follows."""
    editor.press("o")
    editor.type(text)
    editor.until(lambda: editor.line.startswith(text), f"{text!r} has been typed")
    return editor.until_ghost()


def first_line(text: str) -> str:
    return text.split("\n", 1)[0]


def until_at_rest(editor: Terminal) -> None:
    """Wait until whatever the last key leads to has been asked, and answered."""
    # A timer that was started later, and runs longer, fires after those of either kind.
    editor.lua("_G.rested = false; vim.defer_fn(function() _G.rested = true end, 300)")
    is_at_rest = """
        local client = vim.lsp.get_clients({ name = "keystate" })[1]
        return _G.rested and vim.tbl_isempty(client.requests)
    """
    editor.until(lambda: editor.lua(is_at_rest), "all is at rest")


def n_answers(editor: Terminal) -> int:
    """How many requests the server has answered since this was last asked."""
    return len(editor.ask("keystate/lastTimings"))


def test_ghost_text_is_on_the_screen_and_tab_inserts_it(editor: Terminal) -> None:
    ghost = write(editor, LOOP)
    assert LOOP + first_line(ghost) in editor.screen()
    assert editor.text.endswith(LOOP)
    editor.press("Tab")
    editor.until(lambda: editor.text.endswith(LOOP + ghost), "Tab has inserted it")
    row, column = editor.cursor
    lines = (LOOP + ghost).split("\n")
    assert (row, column) == (editor.text.count("\n") + 1, len(lines[-1]))


def test_undo_takes_back_what_was_accepted_and_leaves_what_was_typed(editor: Terminal) -> None:
    ghost = write(editor, LOOP)
    typed = editor.line
    editor.press("Tab")
    editor.until(lambda: editor.line.startswith(LOOP + first_line(ghost)), "Tab inserted it")
    editor.press("Escape", "u")
    editor.until_line(typed)
    editor.press("u")
    editor.until(lambda: not editor.text.endswith(typed), "the second undo takes back the typing")


def test_a_word_and_a_line_are_accepted_and_the_rest_stays(editor: Terminal) -> None:
    ghost = write(editor, LOOP)
    n_answers(editor)
    editor.press("M-Right")
    taken = editor.until(lambda: editor.line.removeprefix(LOOP), "a word is accepted")
    assert [taken] == re.findall(r"\w+|\W+", ghost)[:1]
    assert len(taken) < len(ghost)
    assert editor.until_ghost("the rest is shown") == ghost[len(taken) :]
    # The rest came from the client: nobody was asked.
    assert n_answers(editor) == 0
    editor.press("M-C-Right")
    editor.until(lambda: editor.line.startswith(LOOP + first_line(ghost)), "the line is accepted")


def test_typing_along_asks_for_nothing(editor: Terminal) -> None:
    ghost = write(editor, LOOP)
    n_answers(editor)
    generated = editor.ask("keystate/counters")
    along = ghost[:8]
    assert len(along) < len(ghost), f"too little to type along: {ghost!r}"
    assert "(" not in along
    typed = ""
    for char in along:
        editor.type(char)
        typed += char
        editor.until_line_starts(LOOP + typed)
        assert editor.until_ghost() == ghost[len(typed) :]
    until_at_rest(editor)
    assert n_answers(editor) == 0
    after = editor.ask("keystate/counters")
    answers = {name: n for name, n in after.items() if name.startswith("answers_")}
    assert answers == {name: n for name, n in generated.items() if name.startswith("answers_")}


def test_divergence_hides_it_at_once_and_backspace_brings_it_back(editor: Terminal) -> None:
    ghost = write(editor, LOOP)
    watch(editor)
    other = "~"
    assert not ghost.startswith(other)
    editor.type(other)
    seen = editor.until(lambda: editor.lua("return _G.seen"), "the key has arrived")
    line, shown = seen[0]
    assert line.startswith(LOOP + other)
    assert shown == ""
    editor.lua("_G.seen = {}")
    editor.press("BSpace")
    seen = editor.until(lambda: editor.lua("return _G.seen"), "the key has arrived")
    line, shown = seen[0]
    assert not line.startswith(LOOP + other)
    assert shown == ghost


def test_two_suggestions_in_a_line_double_no_bracket(editor: Terminal) -> None:
    editor.press("o")
    for text in ("worker.register(", "; queue.add("):
        editor.press("End")
        editor.type(text)
        editor.until_line_ends(text + ")")
        ghost = editor.until_ghost(f"a suggestion appears after {text!r}")
        assert "\n" not in ghost
        editor.press("Tab")
        editor.until_line_ends(text + ghost + ")")
        assert is_balanced(editor.line)


def is_balanced(line: str) -> bool:
    return all(line.count(a) == line.count(b) for a, b in ("()", "[]", "{}"))


def test_tab_does_what_it_did_where_nothing_is_shown(editor: Terminal) -> None:
    editor.press("o")
    assert editor.ghost == ""
    editor.press("Tab")
    editor.until(lambda: editor.line.startswith("[was]"), "the mapping before ours has run")


def test_dismissed_it_is_gone(editor: Terminal) -> None:
    ghost = write(editor, LOOP)
    before = editor.text
    editor.press("C-]")
    editor.until(lambda: editor.ghost != ghost, "it is hidden")
    assert editor.text == before


def test_switched_off_and_on(editor: Terminal) -> None:
    write(editor, LOOP)
    editor.command("Keystate disable")
    editor.until(
        lambda: not editor.lua("return require('keystate.server').is_enabled()"), "it is off"
    )
    n_answers(editor)
    editor.press("o")
    editor.type(LOOP)
    editor.until_line(LOOP)
    assert not editor.lua(OWN_EVENTS)
    assert editor.ghost == ""
    assert editor.lua("return require('keystate').status()") == "keystate -"
    editor.command("Keystate toggle")
    editor.until(lambda: editor.lua("return require('keystate.server').is_enabled()"), "it is on")
    renew(editor)
    write(editor, LOOP)


def test_files_with_secrets_and_buffers_without_a_file_are_left_alone(editor: Terminal) -> None:
    # Buffers are attached in turn: what comes last says that the others have had theirs.
    others = [("nofile", ""), ("prompt", ""), ("help", "")]
    others += [("", name) for name in (".env", ".env.local", "deploy.pem", "id_rsa", "Secrets.py")]
    bufs = [editor.lua(OPEN, kind, name) for kind, name in (*others, ("", "plain.py"))]
    *refused, plain = bufs
    n_clients = "return #vim.lsp.get_clients({ bufnr = ..., name = 'keystate' })"
    editor.until(lambda: editor.lua(n_clients, plain) == 1, "a plain file is attached")
    assert [editor.lua(n_clients, buf) for buf in refused] == [0] * len(refused)
    for buf in bufs:
        editor.lua("vim.cmd.bwipeout({ ..., bang = true })", buf)


def test_help_and_health(editor: Terminal) -> None:
    editor.lua("vim.cmd.helptags(...)", str(PLUGIN / "doc"))
    editor.command("help keystate")
    editor.until(lambda: editor.lua("return vim.bo.filetype") == "help", "the help is open")
    assert "*keystate.txt*" in editor.text
    editor.command("close")
    editor.command("checkhealth keystate")
    editor.until(lambda: "keystate: keys" in editor.text, "the health is checked")
    report = editor.text
    editor.command("bwipeout!")
    assert "ERROR" not in report, report
    assert "<Tab> accepts" in report


def test_ready_is_not_said_before_the_model_is_loaded(launch: Callable[..., Terminal]) -> None:
    record = """
        Seen = {}
        vim.api.nvim_create_autocmd("User", { pattern = "KeystateStatus", callback = function()
          table.insert(Seen, require("keystate").state().kind)
        end })
    """
    editor = launch(lambda folder: record + plugin_init([*SERVE, str(folder / "log")]))
    editor.until(lambda: editor.lua("return require('keystate').state().model"), "it is loaded")
    assert list(dict.fromkeys(editor.lua("return Seen"))) == ["starting", "ready"]


def test_changed_settings_take_effect(launch: Callable[..., Terminal]) -> None:
    editor = launch(lambda folder: plugin_init([*SERVE, str(folder / "log")]))
    editor.until_ready()
    editor.press("G")
    write(editor, LOOP)
    (*_, answer) = editor.ask("keystate/lastTimings")
    assert answer["tokens"]["generated"] > 1
    editor.press("Escape")
    editor.lua("require('keystate').configure(...)", {"maxTokens": 1})
    editor.command("Keystate restart")
    editor.until_ready()
    editor.press("o")
    editor.type(LOOP)
    answers = editor.until(lambda: editor.ask("keystate/lastTimings"), "an answer")
    assert all(answer["tokens"]["generated"] <= 1 for answer in answers if "tokens" in answer)
    editor.close()
