"""How threads share the work of a pass: in shares that whoever is there claims.

Each phase of a pass is cut into a share for every thread. A thread claims its own, then those that
others have not begun, works, and says that it is finished; the next phase begins when all shares
of this one are. So nobody waits for a thread that has claimed nothing: one that comes late, or
never, costs its help and nothing else. That shares have owners keeps a state in the cache of the
core that wrote it; finer shares took longer (two threads, 0.1 ms a pass: four each 1.2 times).
"""

from __future__ import annotations

import platform
from enum import IntEnum
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.cpu_pass.decorators import inlined, inner

LINE_BYTES = 64

_I64 = ir.IntType(64)
# LLVM's names for the instruction, with an argument where it takes one.
_PAUSES = {
    "x86_64": ("llvm.x86.sse2.pause", []),
    "AMD64": ("llvm.x86.sse2.pause", []),
    "arm64": ("llvm.aarch64.hint", [1]),
    "aarch64": ("llvm.aarch64.hint", [1]),
}


class Shared(IntEnum):
    """Where what the threads share lies, in int64: a cache line apart.

    The newest job comes last. Behind it are, for each thread, whether it sleeps, and then, on a
    line each, of how many phases its own share was claimed.
    """

    FINISHED = 0
    # Odd while a job is being written.
    VERSION = 8
    IS_CLOSED = 16
    JOB = 24


def _at(b: ir.IRBuilder, address: ir.Value) -> ir.Value:
    return b.inttoptr(address, _I64.as_pointer())


@intrinsic
def load(typing_context: Any, address: Any) -> Any:
    """Give the int64 at an address, and see all that was written before it was."""

    def generate(context: Any, b: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return b.load_atomic(_at(b, args[0]), "seq_cst", 8)

    return types.int64(types.int64), generate


@intrinsic
def store(typing_context: Any, address: Any, value: Any) -> Any:
    """Write the int64 at an address, after all that was written before."""

    def generate(context: Any, b: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        b.store_atomic(args[1], _at(b, args[0]), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def add(typing_context: Any, address: Any, value: Any) -> Any:
    """Add to the int64 at an address."""

    def generate(context: Any, b: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        b.atomic_rmw("add", _at(b, args[0]), args[1], "seq_cst")
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def replace(typing_context: Any, address: Any, old: Any, new: Any) -> Any:
    """Write `new` to an address if `old` stands there; tell whether it did."""

    def generate(context: Any, b: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        found = b.cmpxchg(_at(b, args[0]), args[1], args[2], "seq_cst", "seq_cst")
        return b.extract_value(found, 1)

    return types.boolean(types.int64, types.int64, types.int64), generate


@intrinsic
def pause(typing_context: Any) -> Any:
    """Let the core know that it waits in a loop."""

    def generate(context: Any, b: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        if platform.machine() in _PAUSES:
            name, values = _PAUSES[platform.machine()]
            numbers = [ir.Constant(ir.IntType(32), value) for value in values]
            kind = ir.FunctionType(ir.VoidType(), [number.type for number in numbers])
            b.call(cgutils.get_or_insert_function(b.module, kind, name), numbers)
        return context.get_dummy_value()

    return types.void(), generate


@inner
def claim(claimed: int, thread: int, n_threads: int, phase: int) -> int:
    """Claim a share of a phase; gives its owner, or -1 when none is left.

    `claimed` counts, for each thread, the phases whose share of its own was claimed.
    """
    for i in range(n_threads):
        owner = (thread + i) % n_threads
        address = claimed + owner * LINE_BYTES
        if load(address) == phase and replace(address, phase, phase + 1):
            return owner
    return -1


@inlined
def finish(shared: int, n_done: int) -> None:
    """Say that so many shares which were claimed are done."""
    if n_done:
        add(shared + 8 * Shared.FINISHED, n_done)


@inlined
def wait(shared: int, n_threads: int, phase: int) -> None:
    """Wait until all shares of a phase are done."""
    while load(shared + 8 * Shared.FINISHED) < (phase + 1) * n_threads:
        pause()
