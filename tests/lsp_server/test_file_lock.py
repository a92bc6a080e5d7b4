"""Who holds a lock, and for how long."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lsp_server.file_lock import lock

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = """
import sys
from lsp_server.file_lock import lock
file = open(sys.argv[1], "a")
lock(file)
print("held", file=file, flush=True)
print(flush=True)
sys.stdin.read()
"""


def test_one_holds_it_until_its_file_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    with path.open("a") as first, path.open("a") as second:
        lock(first)
        with pytest.raises(OSError):  # noqa: PT011, its words are the platform's
            lock(second)
        first.close()
        lock(second)


def test_another_process_holds_it_until_it_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with path.open("a") as file:
            with pytest.raises(OSError):  # noqa: PT011, its words are the platform's
                lock(file)
            assert path.read_text() == "held\n"
            process.kill()
            process.wait()
            lock(file)
