"""The memory of a process and of its child, in each state that a child goes through."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from perf.process_usage import PROC, Usage

pytestmark = pytest.mark.skipif(not (PROC / "self").exists(), reason="reads /proc")

HELD_BYTES = 64 * 2**20
# What Linux calls CLONE_VM: as a vfork, but the parent goes on.
CLONE_VM = 0x100
# Each names the child that it has.
CHILDREN = {
    "vforked": f"""
import ctypes, signal
libc = ctypes.CDLL(None)
stack = ctypes.create_string_buffer(2**16)
top = ctypes.c_void_p((ctypes.addressof(stack) + 2**16) & ~15)
child = libc.clone(libc.pause, top, {CLONE_VM} | signal.SIGCHLD, None)
""",
    "forked": """
child = os.fork()
if not child:
    signal.pause()
""",
    "ended": """
child = os.fork()
if not child:
    os._exit(0)
os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
""",
    "a program": f"""
program = "import sys; held = b'x' * {HELD_BYTES}; print(flush=True); sys.stdin.read()"
process = subprocess.Popen(
    [sys.executable, "-S", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
)
process.stdout.readline()
child = process.pid
""",
}
PARENT = f"""
import os, signal, subprocess, sys
held = b"x" * {HELD_BYTES}
{{start}}
print(child, flush=True)
sys.stdin.read()
os.kill(child, signal.SIGKILL)
"""


def own_bytes(pid: int) -> int:
    return int((PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.parametrize("kind", CHILDREN)
def test_pages_count_once(kind: str) -> None:
    command = [sys.executable, "-S", "-c", PARENT.format(start=CHILDREN[kind])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        own, of_child = own_bytes(parent.pid), own_bytes(child)
        found, found_of_child = (Usage.of(pid).rss_bytes for pid in (parent.pid, child))
        parent.communicate()
    # Without its ending, a child is told to have what its parent has.
    assert of_child == 0 if kind == "ended" else of_child > HELD_BYTES
    assert found == pytest.approx(own + (of_child if kind == "a program" else 0), abs=2**21)
    assert own > HELD_BYTES
    # Asked for by itself, it has them whoever's they are.
    assert found_of_child == pytest.approx(of_child, abs=2**21)
