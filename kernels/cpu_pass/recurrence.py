"""The recurrence on vector registers, written in LLVM's language."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from kernels.cpu_pass.vectors import (
    F32,
    I8,
    I32,
    LANES,
    VECTORS,
    ZEROS,
    constant,
    counted,
    fused,
    load_vector,
    splat,
    store_vector,
    vector,
)

# Rows of a state that go through the tokens together: as many as the registers hold.
ROWS = 2 if LANES == 8 else 4


@intrinsic
def advance(
    typing_context: Any,
    state: Any,
    state_after: Any,
    d_state: Any,
    n: Any,
    decays: Any,
    inputs: Any,
    inputs_stride: Any,
    B: Any,
    C: Any,
    stride: Any,
    partial: Any,
    ahead: Any,
) -> Any:
    """Let GROUP columns of ROWS rows of a state go through n tokens, 1 or more.

    Of token t: decays [t], inputs [t * inputs_stride + row], B and C [t * stride + column]. The
    terms of each row's product with C go to `partial` [(t * LANES + row) * LANES], LANES sums that
    `fold` adds up. Rows lie d_state apart; `state_after` may be `state`, and what lies `ahead`
    values behind it is fetched, to be written next.
    """

    def generate(context: Any, b: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        d_state, n, inputs_stride, stride, ahead = (args[i] for i in (2, 3, 6, 9, 11))
        state, after, decays, inputs, B, C, partial = (
            b.inttoptr(args[i], F32.as_pointer()) for i in (0, 1, 4, 5, 7, 8, 10)
        )
        places = [
            b.add(b.mul(d_state, constant(row)), constant(v * LANES))
            for row in range(ROWS)
            for v in range(VECTORS)
        ]
        # To be written, in all caches, as data. Nothing fetches it otherwise before it is stored
        # to, and a store that has to wait takes longer than all else here.
        how = [ir.Constant(I32, number) for number in (1, 3, 1)]
        for at in places:
            line = b.bitcast(b.gep(after, [b.add(at, ahead)]), I8.as_pointer())
            kind = ir.FunctionType(ir.VoidType(), [line.type, I32, I32, I32])
            b.call(b.module.declare_intrinsic("llvm.prefetch", [line.type], kind), [line, *how])

        def step(t: ir.Value, rows: list[ir.Value]) -> list[ir.Value]:
            decay = splat(b, b.load(b.gep(decays, [t])))
            new, sums, values = list(rows), [ZEROS] * ROWS, []
            for row in range(ROWS):
                at = b.add(b.mul(t, inputs_stride), constant(row))
                values.append(splat(b, b.load(b.gep(inputs, [at]))))
            for v in range(VECTORS):
                at = b.add(b.mul(t, stride), constant(v * LANES))
                given, wanted = load_vector(b, B, at, F32), load_vector(b, C, at, F32)
                for row in range(ROWS):
                    place = row * VECTORS + v
                    new[place] = fused(b, values[row], given, b.fmul(rows[place], decay))
                    sums[row] = fused(b, new[place], wanted, sums[row])
            for row in range(ROWS):
                at = b.mul(b.add(b.mul(t, constant(LANES)), constant(row)), constant(LANES))
                store_vector(b, sums[row], partial, at)
            return new

        before = [load_vector(b, state, at, F32) for at in places]
        for at, value in zip(places, counted(b, n, 1, before, step), strict=True):
            store_vector(b, value, after, at)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 12), generate


@intrinsic
def fold(typing_context: Any, partial: Any, out: Any) -> Any:
    """Add the sums of LANES vectors, one behind the other, to out (LANES,)."""

    def generate(context: Any, b: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        partial, out = (b.inttoptr(p, F32.as_pointer()) for p in args)
        sums = [load_vector(b, partial, constant(row * LANES), F32) for row in range(LANES)]
        width = LANES
        while len(sums) > 1:
            half = width // 2
            starts = range(0, 2 * LANES, width)
            halves = [
                ir.Constant(
                    vector(I32), [start + side + i for start in starts for i in range(half)]
                )
                for side in (0, half)
            ]
            sums = [
                b.fadd(*(b.shuffle_vector(first, second, side) for side in halves))
                for first, second in zip(sums[::2], sums[1::2], strict=True)
            ]
            width = half
        total = b.fadd(sums[0], load_vector(b, out, constant(0), F32))
        store_vector(b, total, out, constant(0))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate
