"""How threads share the work of a pass: in shares that whoever is there claims.

Each phase of a pass is cut into a share for every thread. A thread claims its own, then those that
others have not begun, and says of each that it is done; the next phase begins when all shares of
this one are. So nobody waits for a thread that has claimed nothing: one that comes late, or
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
    line each, how far its own shares are: phase p's is free at 2 p, claimed at 2 p + 1 and done at
    2 p + 2.
    """

    # Odd while a job is being written.
    VERSION = 0
    IS_CLOSED = 8
    JOB = 16


def _at(b: ir.IRBuilder, address: ir.Value) -> ir.Value:
    return b.inttoptr(address, _I64.as_pointer())


@intrinsic
def load(typing_context: Any, address: Any) -> Any:
    """Give the int64 at an address, and see all that was written before it was."""

    def generate(context: Any, b: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return b.load_atomic(_at(b, args[0]), "acquire", 8)

    return types.int64(types.int64), generate


@intrinsic
def store(typing_context: Any, address: Any, value: Any) -> Any:
    """Write the int64 at an address, after all that was written before."""

    def generate(context: Any, b: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        b.store_atomic(args[1], _at(b, args[0]), "release", 8)
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
def claim(shares: int, thread: int, n_threads: int, phase: int) -> int:
    """Claim a share of a phase, one's own first; gives its owner, or -1 when none is left."""
    owner = thread
    for _ in range(n_threads):
        share = shares + owner * LINE_BYTES
        if load(share) == 2 * phase and replace(share, 2 * phase, 2 * phase + 1):
            return owner
        owner = owner + 1 if owner + 1 < n_threads else 0
    return -1


@inlined
def finish(shares: int, owner: int, phase: int) -> None:
    """Say that a share which was claimed is done."""
    store(shares + owner * LINE_BYTES, 2 * phase + 2)


@inlined
def wait(shares: int, n_threads: int, phase: int) -> None:
    """Wait until all shares of a phase are done."""
    for owner in range(n_threads):
        while load(shares + owner * LINE_BYTES) < 2 * phase + 2:
            pause()
