"""Products of packed rows with inputs, written in LLVM's language.

Weights of a byte go to float32 one by one on most CPUs. Where a CPU sums products of bytes, inputs
are written as whole numbers of three digits instead, and what is summed are bytes: exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from kernels.cpu_pass.vectors import (
    F32,
    FEATURES,
    GROUP,
    I8,
    I32,
    LANES,
    VECTORS,
    ZEROS,
    call,
    constant,
    counted,
    fused,
    load_vector,
    splat,
    splat_constant,
    store_vector,
    vector,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

HAS_BYTE_SUMS = bool(FEATURES.get("avx512vnni" if LANES == 16 else "avxvnni")) and LANES >= 8
N_DIGITS = 3
# What the largest input of a token becomes: its highest digit is 127.
LARGEST = 127 << 16
# In front of a token's digits: the scale, and what the sums of each digit begin with.
HEADER_BYTES = 4 + 4 * N_DIGITS
# Tokens whose sums of digits fit in the registers.
DIGIT_TOKENS = LANES // 8
# Weights of a row that share 32 bits, by numba's type of packed weights.
SHARING = {types.float32: 1, types.uint16: 2, types.int8: 4, types.uint8: 4}

_BYTE_SUMS = f"llvm.x86.avx512.vpdpbusd.{32 * LANES}"


@intrinsic
def write_digits(typing_context: Any, x: Any, k: Any, out: Any) -> Any:
    """Write k float32 as whole numbers of three digits, each a signed byte, times one scale.

    k is a multiple of LANES. out: the scale (float32), what the sums of each digit begin with
    (int32; see `tile`), then k bytes of each digit, the lowest first.
    """

    def generate(context: Any, b: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        x, k, out = args
        x, header = b.inttoptr(x, F32.as_pointer()), b.inttoptr(out, I32.as_pointer())
        bytes_out = b.inttoptr(b.add(out, constant(HEADER_BYTES)), I8.as_pointer())

        # As whole numbers without their signs, floats have their order, and NaN is the largest.
        def larger(i: ir.Value, last: list[ir.Value]) -> list[ir.Value]:
            values = b.bitcast(load_vector(b, x, i, F32), vector(I32))
            size = b.and_(values, splat_constant(0x7FFFFFFF))
            return [b.select(b.icmp_unsigned(">", size, last[0]), size, last[0])]

        (sizes,) = counted(b, k, LANES, [splat_constant(0)], larger)
        largest = b.bitcast(call(b, f"llvm.vector.reduce.umax.v{LANES}i32", I32, sizes), F32)
        number = ir.Constant(F32, float(LARGEST))
        b.store(b.bitcast(b.fdiv(largest, number), I32), header)
        # Else the factor were infinite.
        is_zero = b.fcmp_ordered("<", largest, ir.Constant(F32, float(np.float32(1e-30))))
        zero = ir.Constant(F32, 0.0)
        factor = splat(b, b.select(is_zero, zero, b.fdiv(number, largest)))

        def split(i: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            exact = b.fmul(load_vector(b, x, i, F32), factor)
            near = call(b, f"llvm.rint.v{LANES}f32", vector(F32), exact)
            left, new = b.fptosi(near, vector(I32)), []
            for digit, total in enumerate(sums):
                byte = b.trunc(left, vector(I8))
                at = b.gep(bytes_out, [b.add(i, b.mul(k, constant(digit)))])
                b.store(byte, b.bitcast(at, byte.type.as_pointer()), align=1)
                value = b.sext(byte, vector(I32))
                left = b.ashr(b.sub(left, value), splat_constant(8))
                new.append(b.add(total, value))
            return new

        totals = counted(b, k, LANES, [splat_constant(0)] * N_DIGITS, split)
        for digit, total in enumerate(totals):
            total = call(b, f"llvm.vector.reduce.add.v{LANES}i32", I32, total)
            begin = b.mul(total, ir.Constant(I32, -128))
            b.store(begin, b.gep(header, [constant(1 + digit)]))
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 3), generate


def _columns(b: ir.IRBuilder, kind: Any, packed: list[ir.Value]) -> Iterator[list[ir.Value]]:
    """Yield the weights of each item that `packed` holds, as float vectors."""
    if kind == types.float32:
        yield packed
    elif kind == types.int8:
        for byte in range(4):
            raised = [b.shl(part, splat_constant(24 - 8 * byte)) for part in packed]
            whole = [b.ashr(part, splat_constant(24)) for part in raised]
            yield [b.sitofp(part, vector(F32)) for part in whole]
    else:
        # The upper half of a float32 is a bfloat16: two of them share 32 bits.
        lower = [b.shl(part, splat_constant(16)) for part in packed]
        upper = [b.and_(part, splat_constant(0xFFFF0000)) for part in packed]
        for parts in (lower, upper):
            yield [b.bitcast(part, vector(F32)) for part in parts]


@intrinsic(prefer_literal=True)
def tile(
    typing_context: Any,
    n_tokens: Any,
    kind: Any,
    rows: Any,
    scales: Any,
    k: Any,
    x: Any,
    x_bytes: Any,
    out: Any,
    out_stride: Any,
    add: Any,
) -> Any:
    """Multiply one group of packed rows with `n_tokens` (a literal) inputs of k values.

    kind: float32 for rows as they are, uint16 for pairs of bfloat16, int8 for bytes in fours times
    `scales` (GROUP,), uint8 for those plus 128 with inputs as `write_digits` leaves them. Inputs
    begin `x_bytes` apart; out (n_tokens, GROUP) float32. With `add` what stands there is added. k
    is a multiple of the items that share 32 bits.
    """
    n = n_tokens.literal_value
    sharing = SHARING[kind]
    item = F32 if kind == types.float32 else I32

    def group(b: ir.IRBuilder, rows: ir.Value, i: ir.Value) -> list[ir.Value]:
        """Load what each row holds from item i on."""
        start = b.mul(i, constant(GROUP // sharing))
        return [
            load_vector(b, rows, b.add(start, constant(LANES * v)), item) for v in range(VECTORS)
        ]

    def floats(b: ir.IRBuilder, rows: ir.Value, k: ir.Value, x: list[ir.Value]) -> Any:
        """Sum products of floats."""
        # Two sums for each row where there are few: a sum has to wait for its last term.
        n_sums = 2 if n == 1 and sharing > 1 else 1
        inputs = [b.inttoptr(token, F32.as_pointer()) for token in x]

        def step(i: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            new = list(sums)
            for number, parts in enumerate(_columns(b, kind, group(b, rows, i))):
                into = number % n_sums * n * VECTORS
                for t in range(n):
                    at = b.gep(inputs[t], [b.add(i, constant(number))])
                    value = splat(b, b.load(at))
                    for v in range(VECTORS):
                        place = into + t * VECTORS + v
                        new[place] = fused(b, parts[v], value, new[place])
            return new

        sums = counted(b, k, sharing, [ZEROS] * (n_sums * n * VECTORS), step)
        first = sums[: n * VECTORS]
        if n_sums == 1:
            return first
        return [b.fadd(*pair) for pair in zip(first, sums[n * VECTORS :], strict=True)]

    def whole_numbers(b: ir.IRBuilder, rows: ir.Value, k: ir.Value, x: list[ir.Value]) -> Any:
        """Sum products of bytes: exactly, for k up to 40,000; rounded where digits are joined."""
        words = [b.inttoptr(token, I32.as_pointer()) for token in x]
        n_words = b.lshr(b.add(k, constant(LANES - 1)), constant(2))
        n_words = b.and_(n_words, constant(-LANES // 4))
        # Weights are 128 too large: all inputs times 128 are taken off first.
        starts = [
            splat(b, b.load(b.gep(token, [constant(1 + digit)])))
            for token in words
            for digit in range(N_DIGITS)
            for _ in range(VECTORS)
        ]

        def step(i: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            new, parts, at = list(sums), group(b, rows, i), b.lshr(i, constant(2))
            for t, token in enumerate(words):
                for digit in range(N_DIGITS):
                    place = b.add(b.mul(n_words, constant(digit)), at)
                    place = b.add(place, constant(HEADER_BYTES // 4))
                    value = splat(b, b.load(b.gep(token, [place])))
                    for v in range(VECTORS):
                        into = (t * N_DIGITS + digit) * VECTORS + v
                        new[into] = call(b, _BYTE_SUMS, vector(I32), new[into], parts[v], value)
            return new

        sums = counted(b, k, sharing, starts, step)
        totals = []
        for t, token in enumerate(words):
            scale = splat(b, b.bitcast(b.load(token), F32))
            for v in range(VECTORS):
                total = ZEROS
                for digit in reversed(range(N_DIGITS)):
                    part = b.sitofp(sums[(t * N_DIGITS + digit) * VECTORS + v], vector(F32))
                    base = ir.Constant(vector(F32), [256.0] * LANES)
                    total = fused(b, total, base, part)
                totals.append(b.fmul(total, scale))
        return totals

    def generate(context: Any, b: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        _, _, rows, scales, k, x, x_bytes, out, out_stride, add = args
        rows = b.inttoptr(rows, item.as_pointer())
        scales, out = (b.inttoptr(p, F32.as_pointer()) for p in (scales, out))
        inputs = [b.add(x, b.mul(x_bytes, constant(t))) for t in range(n)]
        if kind == types.uint8:
            totals = []
            for t in range(0, n, DIGIT_TOKENS):
                totals += whole_numbers(b, rows, k, inputs[t : t + DIGIT_TOKENS])
        else:
            totals = floats(b, rows, k, inputs)
        for t in range(n):
            for v in range(VECTORS):
                total, lane = totals[t * VECTORS + v], constant(v * LANES)
                if sharing == 4:
                    total = b.fmul(total, load_vector(b, scales, lane, F32))
                at = b.add(b.mul(out_stride, constant(t)), lane)
                total = b.fadd(total, b.select(add, load_vector(b, out, at, F32), ZEROS))
                store_vector(b, total, out, at)
        return context.get_dummy_value()

    signature = types.void(n_tokens, kind, *(types.int64,) * 7, types.boolean)
    return signature, generate
