"""What keys do besides accepting: beside menus, snippets and other mappings, and on the way out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.editors.neovim.conftest import SCRIPTED, plugin_init
from tests.editors.neovim.scripted import NOTHING, asked, items

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.editors.neovim.terminal import Terminal

MODE = "return vim.api.nvim_get_mode().mode"


def until_mode(editor: Terminal, mode: str) -> None:
    editor.until(lambda: editor.lua(MODE) == mode, f"the mode is {mode}")


def test_lines_taken_beside_an_open_menu_stay(opened: Callable[..., Terminal]) -> None:
    menu = "vim.o.completeopt = 'menuone,noselect'\n"
    editor = opened(items("def a():\n    b"), NOTHING, before_setup=menu)
    editor.type("JobQ")
    editor.press("C-n")
    editor.until(lambda: editor.lua("return vim.fn.pumvisible()") == 1, "the menu is open")
    editor.until_ghost()
    editor.press("Tab")
    editor.until_line("    b")
    editor.type("c")
    editor.until_line("    bc")
    assert editor.text.endswith("JobQdef a():\n    bc")


# The line after "xy", <Tab> and "z".
MAPPINGS = [
    pytest.param('inoremap <expr> <Tab> "\\<Left>"', "xzy", id="a special key"),
    pytest.param("inoremap <expr> <Tab> '<Left>'", "xzy", id="the same in single quotes"),
    pytest.param('imap <expr> <Tab> "\\<Plug>(a)"', "xyAz", id="another mapping"),
    pytest.param('imap <expr> <Tab> 0 ? "a" : "\\<Tab>"', "xy  z", id="itself"),
    pytest.param("inoremap <Tab> ’€", "xy’€z", id="characters"),
    pytest.param('inoremap <expr> <Tab> "’€"', "xy’€z", id="characters from an expression"),
    pytest.param("inoremap <expr> <Tab> <SID>a()", "xyAz", id="a script's function"),
]


@pytest.mark.parametrize(("mapping", "line"), MAPPINGS)
def test_tab_does_what_it_was_mapped_to(
    launch: Callable[..., Terminal], mapping: str, line: str
) -> None:
    def init(folder: Path) -> str:
        script = folder / "mapping.vim"
        script.write_text(
            f"inoremap <Plug>(a) A\nfunction! s:a()\n  return 'A'\nendfunction\n{mapping}\n"
        )
        own = plugin_init(SCRIPTED, filetypes=["none"])
        return own.replace("vim.cmd([[inoremap <Tab> [was] ]])", f"vim.cmd.source('{script}')")

    editor = launch(init)
    editor.press("G", "o")
    editor.type("xy")
    editor.press("Tab")
    editor.type("z")
    editor.until(lambda: "z" in editor.line, "all has arrived")
    assert editor.line == line
    editor.close()


def test_escape_and_a_bracket_at_once_leave_insert_mode(opened: Callable[..., Terminal]) -> None:
    editor = opened(NOTHING)
    editor.lua("vim.keymap.set('n', ']q', function() _G.jumped = true end)")
    editor.type("x")
    # This is how they arrive.
    editor.press("M-]")
    editor.type("q")
    editor.until(lambda: editor.lua("return _G.jumped"), "the jump is made")
    assert editor.line == "x"
    assert editor.lua(MODE) == "n"


def test_ctrl_c_hides_it(opened: Callable[..., Terminal]) -> None:
    editor = opened(items("abc"))
    editor.type("x")
    editor.until_ghost()
    editor.press("C-c")
    until_mode(editor, "n")
    assert editor.ghost == ""
    editor.press("A")
    assert editor.until_ghost("it is asked for again") == "abc"
    assert len(asked(editor)) == 2


def test_in_a_snippet_tab_goes_on(opened: Callable[..., Terminal]) -> None:
    editor = opened(items("abc"))
    jump = """
        vim.keymap.set("i", "<Tab>", function()
          return vim.snippet.active({ direction = 1 }) and "<Cmd>lua vim.snippet.jump(1)<CR>" or "-"
        end, { expr = true })
        require("keystate.keys").map({ accept = "<Tab>" })
        vim.snippet.expand("f($1)$0")
    """
    editor.lua(jump)
    editor.type("x")
    editor.until_line("f(x)")
    editor.until_ghost()
    editor.press("Tab")
    editor.until(lambda: editor.cursor[1] == len("f(x)"), "it is behind the snippet")
    assert editor.line == "f(x)"
    editor.until_ghost()
    editor.press("Tab")
    editor.until_line("f(x)abc")
