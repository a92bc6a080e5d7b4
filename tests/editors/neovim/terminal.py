"""A real Neovim in a real terminal (tmux): keys go in, screens and what Lua says come out."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable

REPOSITORY = Path(__file__).parents[3]
PLUGIN = REPOSITORY / "editor-clients" / "neovim"
# Generous: a model that loads beside other work takes its time.
PATIENCE_S = 60.0
CALL_S = 30.0

GHOST = """
  local text
  for _, name in ipairs({ "keystate.ghost", "nvim.lsp.inline_completion" }) do
    local space = vim.api.nvim_create_namespace(name)
    for _, mark in ipairs(vim.api.nvim_buf_get_extmarks(0, space, 0, -1, { details = true })) do
      local lines = { mark[4].virt_text and mark[4].virt_text[1][1] or "" }
      for _, line in ipairs(mark[4].virt_lines or {}) do
        table.insert(lines, line[1][1])
      end
      text = table.concat(lines, "\\n")
    end
  end
  return text or ""
"""


class Terminal:
    """Neovim in a terminal of its own. Every wait is bounded; nothing is timed."""

    def __init__(self, folder: Path, nvim: Path, init: str, *, size: tuple[int, int] = (90, 24)):
        """folder: where it keeps everything; init: its whole configuration, in Lua."""
        self._folder = folder
        self._nvim = nvim
        beside = nvim.with_name("tmux")
        self._tmux = str(beside) if beside.exists() else (shutil.which("tmux") or "tmux")
        self._socket = folder / "nvim.sock"
        self._size = size
        (folder / "init.lua").write_text(init)

    def open(self, path: Path) -> Self:
        """Start it on a file."""
        environment = {
            **{name: value for name, value in os.environ.items() if name != "TMUX"},
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
            "XDG_CONFIG_HOME": str(self._folder / "config"),
            "XDG_DATA_HOME": str(self._folder / "data"),
            "XDG_STATE_HOME": str(self._folder / "state"),
            "XDG_CACHE_HOME": str(self._folder / "cache"),
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "passive",
        }
        columns, rows = (str(n) for n in self._size)
        editor = [self._nvim, "-n", "-u", self._folder / "init.lua", "--listen", self._socket, path]
        self._run_tmux(
            "-f", "/dev/null", "new-session", "-d", "-x", columns, "-y", rows,
            *map(str, editor), env=environment,
        )  # fmt: skip
        self.until(self._listens, "the editor listens")
        self.until(lambda: self.lua("return vim.v.vim_did_enter") == 1, "the editor has started")
        return self

    def _listens(self) -> bool:
        """Whether it can be called: its socket is there a moment before."""
        with socket.socket(socket.AF_UNIX) as caller:
            return caller.connect_ex(str(self._socket)) == 0

    def close(self) -> None:
        """End it and its server."""
        if self._socket.exists():
            try:
                self.lua("vim.cmd.stopinsert(); vim.schedule(function() vim.cmd('qa!') end)")
                self.until(lambda: not self._socket.exists(), "the editor ends")
            except (AssertionError, subprocess.SubprocessError):
                pass
        self._run_tmux("kill-server", check=False)

    def type(self, text: str) -> None:
        """Type characters, as keys."""
        self._run_tmux("send-keys", "-l", "--", text)

    def press(self, *keys: str) -> None:
        """Press keys by tmux's names: Tab, Escape, BSpace, M-Right, ..."""
        self._run_tmux("send-keys", *keys)

    def command(self, command: str) -> None:
        """Run an Ex command, as a user in normal mode does."""
        self.press("Escape")
        self.type(f":{command}")
        self.press("Enter")

    def lua(self, body: str, *arguments: Any) -> Any:
        """What a Lua function body returns, run in the editor; `...` is what is handed to it."""
        values = json.dumps(json.dumps(arguments))
        chunk = (
            f"vim.json.encode({{ (function(...) {body} end)"
            f"(unpack(vim.json.decode({values}))) or vim.NIL }})"
        )
        quoted = "'" + chunk.replace("'", "''").replace("\n", " ") + "'"
        call = [str(self._nvim), "--server", str(self._socket), "--remote-expr"]
        call.append(f"luaeval({quoted})")
        try:
            said = subprocess.run(call, capture_output=True, text=True, timeout=CALL_S, check=False)
        except subprocess.TimeoutExpired:
            # It waits for a key: most likely it shows a message, such as that the server has died.
            raise AssertionError(f"the editor is stuck; the screen:\n{self.screen()}") from None
        if said.returncode != 0 or not (said.stdout or said.stderr).strip():
            raise AssertionError(f"{body!r}: {said.stdout}{said.stderr}")
        return json.loads(said.stdout or said.stderr)[0]

    def until(self, condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
        """The first true answer of a condition; an AssertionError with the screen past a limit."""
        ends = time.monotonic() + patience_s
        while time.monotonic() < ends:
            value = condition()
            if value:
                return value
        raise AssertionError(f"waited in vain until {what}; the screen:\n{self.screen()}")

    def screen(self, *, colours: bool = False) -> str:
        """What the terminal shows; with escape sequences if asked."""
        return self._run_tmux("capture-pane", "-p", *(["-e"] if colours else []), check=False)

    @property
    def text(self) -> str:
        return str(
            self.lua("return table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), '\\n')")
        )

    @property
    def line(self) -> str:
        return str(self.lua("return vim.api.nvim_get_current_line()"))

    @property
    def cursor(self) -> tuple[int, int]:
        row, column = self.lua("return vim.api.nvim_win_get_cursor(0)")
        return row, column

    @property
    def screen_cursor(self) -> tuple[int, int]:
        """Row and column of the terminal's cursor, 0-based."""
        said = self._run_tmux("display-message", "-p", "#{cursor_y} #{cursor_x}")
        row, column = map(int, said.split())
        return row, column

    @property
    def ghost(self) -> str:
        """The ghost text that is drawn, "" for none."""
        return str(self.lua(GHOST))

    def until_ghost(self, what: str = "ghost text appears") -> str:
        return str(self.until(lambda: self.ghost, what))

    def until_line(self, line: str) -> None:
        """Wait until keys that were typed have arrived."""
        self.until_is("line", line)

    def until_is(self, name: str, value: str) -> None:
        """Wait until `line` or `ghost` is this."""
        self.until(lambda: getattr(self, name) == value, f"{name} is {value!r}")

    def until_line_starts(self, start: str) -> None:
        self.until(lambda: self.line.startswith(start), f"the line starts with {start!r}")

    def until_line_ends(self, end: str) -> None:
        self.until(lambda: self.line.endswith(end), f"the line ends with {end!r}")

    def until_line_changes(self, line: str) -> None:
        self.until(lambda: self.line != line, f"the line is no longer {line!r}")

    def ask(self, method: str) -> Any:
        """What the server answers to a request without parameters."""
        return self.lua(
            """
            local client = vim.lsp.get_clients({ name = "keystate" })[1]
            local answer = client and client:request_sync(..., vim.empty_dict(), 20000)
            return answer and answer.result
            """,
            method,
        )

    def until_ready(self) -> None:
        """Wait until the server has its model."""
        self.until(
            lambda: self.lua("return #vim.lsp.get_clients({ name = 'keystate' })") == 1,
            "a client is attached",
        )
        self.until(lambda: self.ask("keystate/counters"), "the model is loaded")

    def _run_tmux(
        self, *arguments: str, env: dict[str, str] | None = None, check: bool = True
    ) -> str:
        socket = str(self._folder / "tmux.sock")
        done = subprocess.run(
            [self._tmux, "-S", socket, *arguments],
            capture_output=True, text=True, timeout=CALL_S, check=False, env=env,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise AssertionError(f"tmux {' '.join(arguments)}: {done.stderr}")
        return done.stdout


def find_neovim() -> Path:
    """The editor to test with: $KEYSTATE_NVIM, else what `install.sh` beside this has fetched.

    RuntimeError where there is none.
    """
    folder = Path(os.environ.get("KEYSTATE_EDITORS_DIR") or REPOSITORY / ".cache" / "editors")
    nvim = Path(os.environ.get("KEYSTATE_NVIM") or folder / "neovim" / "bin" / "nvim")
    if not nvim.exists():
        install = (Path(__file__).parent / "install.sh").relative_to(REPOSITORY)
        raise RuntimeError(f"no Neovim at {nvim}; {install} fetches it")
    return nvim
