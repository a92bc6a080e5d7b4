"""What is freed goes back to the system; looked at in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# A block is the system's if the memory map has it alone; the one before raised the bar.
LOOK = """
import ctypes, sys
from lsp_server.process_memory import give_back_large_blocks
if "give back" in sys.argv:
    give_back_large_blocks()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.free(libc.malloc(2**24))
block = libc.malloc(2**20)
ctypes.memset(block, 1, 2**20)
libc.free(block)
spans = [line.split()[0].split("-") for line in open("/proc/self/maps")]
print(any(int(start, 16) <= block < int(end, 16) for start, end in spans))
"""


def is_still_there(*arguments: str) -> bool:
    command = [sys.executable, "-c", LOOK, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.strip() == "True"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="tells glibc what to do")
def test_large_blocks_go_back() -> None:
    assert is_still_there()
    assert not is_still_there("give back")
