"""Neovim in a terminal, with the plugin or without, on the real server or on a scripted one."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.editors.neovim.scripted import received, until_received
from tests.editors.neovim.terminal import GHOST, PLUGIN, REPOSITORY, Terminal, find_neovim

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SAMPLE = REPOSITORY / "perf" / "samples" / "job_queue.py"
SERVE = [sys.executable, "-m", "lsp_server", "serve", "--log-file"]
SCRIPTED = [sys.executable, str(Path(__file__).with_name("scripted_server.py"))]
# Generous: a loaded machine must not turn an answer into a deadline. What the model is unsure of
# is shown too, so that a test has something to look at.
SETTINGS = {
    "deadlineMs": 60_000,
    "invokedDeadlineMs": 60_000,
    "minConfidence": 0,
    "threads": 1,
    "saveStates": False,
}
# No line is indented by itself, so that a test knows what stands in it. What auto-pairing plugins
# do, in its simplest form; and a Tab that does something already.
BEFORE_SETUP = """
vim.o.swapfile = false
vim.cmd("filetype indent off")
vim.o.autoindent = false
vim.cmd([[inoremap ( ()<Left>]])
vim.cmd([[inoremap <expr> ) getline('.')[col('.') - 1] == ')' ? '<Right>' : ')']])
vim.cmd([[inoremap <Tab> [was] ]])
"""
# Neovim alone: nothing of ours but the command line.
BARE = """
vim.lsp.config("keystate", { cmd = %s, filetypes = { "python" }, init_options = %s })
vim.lsp.enable("keystate")
vim.lsp.inline_completion.enable()
vim.keymap.set("i", "<Tab>", function()
  return vim.lsp.inline_completion.get() and "" or "<Tab>"
end, { expr = true })
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in Path(item.fspath).parents:
            item.add_marker(pytest.mark.editors)


@pytest.fixture(scope="session")
def nvim() -> Path:
    """The editor. Where it is not installed the tests are skipped, but in CI."""
    try:
        return find_neovim()
    except RuntimeError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


def to_lua(value: Any) -> str:
    """A value as a Lua expression."""
    return f"vim.json.decode({json.dumps(json.dumps(value))})"


def plugin_init(cmd: list[str], **options: Any) -> str:
    """The configuration of a user of the plugin."""
    options = {"cmd": cmd, "settings": SETTINGS, **options}
    return f"""
{BEFORE_SETUP}
vim.opt.rtp:prepend({json.dumps(str(PLUGIN))})
require("keystate").setup({to_lua(options)})
"""


@pytest.fixture(scope="session")
def launch(
    nvim: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Terminal]]:
    """`launch(init, name="job_queue.py")`: an editor on a copy of the sample."""
    open_ones = []

    def launch(init: Callable[[Path], str], name: str = "job_queue.py", **options: Any) -> Terminal:
        folder = tmp_path_factory.mktemp("nvim")
        shutil.copy(SAMPLE, folder / name)
        terminal = Terminal(folder, nvim, init(folder), **options)
        open_ones.append(terminal)
        return terminal.open(folder / name)

    yield launch
    for terminal in open_ones:
        terminal.close()


@pytest.fixture(scope="module", params=["builtin", "plugin"])
def started(request: pytest.FixtureRequest, launch: Callable[..., Terminal]) -> Iterator[Terminal]:
    """The plugin on the real server, with Neovim's ghost text and with the plugin's own."""
    terminal = launch(
        lambda folder: plugin_init([*SERVE, str(folder / "log")], ghost_text=request.param)
    )
    terminal.until_ready()
    yield terminal
    terminal.close()


@pytest.fixture
def editor(started: Terminal) -> Terminal:
    """The same, in normal mode, on the text of the sample."""
    renew(started)
    return started


@pytest.fixture(params=["builtin", "plugin"])
def opened(
    request: pytest.FixtureRequest, launch: Callable[..., Terminal]
) -> Iterator[Callable[..., Terminal]]:
    """`opened(*answers)`: an editor in insert mode on an empty line, and what it is answered."""
    terminals = []

    def opened(*answers: Any, before_setup: str = "", **options: Any) -> Terminal:
        def init(folder: Path) -> str:
            path = folder / "answers.json"
            path.write_text("\n".join(json.dumps(answer) for answer in answers))
            cmd = [*SCRIPTED, str(path)]
            return before_setup + plugin_init(cmd, ghost_text=request.param, **options)

        terminal = launch(init)
        terminals.append(terminal)
        terminal.until(lambda: received(terminal, "textDocument/didOpen"), "it is open")
        terminal.press("G", "o")
        # Which is asked about on its own account, sooner or later.
        until_received(terminal, "textDocument/inlineCompletion")
        return terminal

    yield opened
    for terminal in terminals:
        terminal.close()


def renew(terminal: Terminal) -> None:
    """Normal mode, the sample's text as it was, nothing to undo."""
    terminal.press("Escape")
    terminal.until(
        lambda: terminal.lua("return vim.api.nvim_get_mode().mode") == "n", "normal mode"
    )
    terminal.lua(
        """
        local old = vim.bo.undolevels
        vim.bo.undolevels = -1
        vim.api.nvim_buf_set_lines(0, 0, -1, false, vim.fn.readfile(...))
        vim.bo.undolevels = old
        vim.api.nvim_win_set_cursor(0, { vim.api.nvim_buf_line_count(0), 0 })
        """,
        str(SAMPLE),
    )


def watch(editor: Terminal) -> None:
    """Have the editor note what it shows after every key."""
    editor.lua(
        """
        local look = load(...)
        _G.seen = {}
        vim.api.nvim_create_autocmd({ "CursorMovedI" }, {
          group = vim.api.nvim_create_augroup("watch", { clear = true }),
          callback = function()
            table.insert(_G.seen, { vim.api.nvim_get_current_line(), look() })
          end,
        })
        return 1
        """,
        GHOST,
    )
