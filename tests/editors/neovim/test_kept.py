"""What is kept of a suggestion while one edits, in a Neovim without a screen or a server."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.editors.neovim.terminal import CALL_S, PLUGIN

if TYPE_CHECKING:
    from pathlib import Path

TEXT = "def f():\n    for x in y:\n        use(x)\n    \n    \ndef g():\n    pass\n"
# The suggestion is for the end of the fourth line; <F2> notes what is left of it at the cursor.
SCRIPT = """
vim.opt.rtp:prepend(%s)
vim.o.swapfile = false
vim.o.autoindent = false
vim.cmd.edit(%s)
local kept, suggestion = require("keystate.kept"), require("keystate.suggestion")
local buf = vim.api.nvim_get_current_buf()
vim.keymap.set("i", "<F2>", function()
  io.stdout:write(vim.json.encode({ (kept.find(buf) or {}).rest or vim.NIL }), "\\n")
end)
vim.api.nvim_win_set_cursor(0, { 4, 4 })
local answer = { { insertText = "return x\\ny" } }
kept.add(buf, suggestion.from_answer(answer, 3, 4, "    ", "utf-16", false))
local keys = vim.api.nvim_replace_termcodes("A<F2>" .. %s .. "<F2>", true, true, true)
vim.api.nvim_feedkeys(keys, "tx", false)
vim.cmd("qa!")
"""
ALL = "return x\ny"
BACK = "<Cmd>call cursor(4, 5)<CR>"


@pytest.mark.parametrize(
    ("keys", "left"),
    [
        pytest.param("retur", "n x\ny", id="typed along"),
        pytest.param("return x<CR>", "y", id="typed along to the next line"),
        pytest.param("x", None, id="something else"),
        pytest.param("x<BS>", ALL, id="taken back"),
        pytest.param("<CR>", None, id="a line that it has not"),
        pytest.param("<CR><BS>", ALL, id="a line taken back"),
        pytest.param("return x<CR>" + BACK, None, id="above what was typed along"),
        pytest.param("<CR>" + BACK, None, id="above a line that was typed"),
        pytest.param("<Up><End>#<Down><End>", None, id="the line above"),
        pytest.param("<Up><End>#<BS><Down><End>", None, id="the line above and back"),
        pytest.param("<Up><End><CR>    ", None, id="another line in its place"),
        pytest.param("<Cmd>4delete _<CR>" + BACK, None, id="the next line in its place"),
        pytest.param("<Down><End>#<Up><End>", None, id="the line below"),
        pytest.param("<Cmd>call append(4, '')<CR>", None, id="a line put right below"),
        pytest.param("<Cmd>%s/pass/return/<CR>" + BACK, None, id="replaced everywhere"),
        pytest.param("<Cmd>call append(0, ['a', 'b'])<CR>", None, id="lines put above"),
        pytest.param("<Up><End>#<Cmd>silent undo<CR>" + BACK, None, id="undone"),
        pytest.param("<Cmd>edit!<CR>" + BACK, None, id="read again"),
    ],
)
def test_it_goes_with_any_change_but_along_it(
    nvim: Path, tmp_path: Path, keys: str, left: str | None
) -> None:
    path, script = tmp_path / "a.py", tmp_path / "script.lua"
    path.write_text(TEXT)
    script.write_text(SCRIPT % tuple(json.dumps(str(text)) for text in (PLUGIN, path, keys)))
    run = subprocess.run(
        [nvim, "--headless", "-u", "NONE", "-i", "NONE", "-c", f"luafile {script}"],
        capture_output=True, text=True, timeout=CALL_S, check=True,
    )  # fmt: skip
    assert [json.loads(line)[0] for line in run.stdout.splitlines()] == [ALL, left], run.stderr
