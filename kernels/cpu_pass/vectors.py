"""Operations on vector registers, written in LLVM's language: what plain loops do not reach.

They work on any CPU that numba compiles for; LLVM splits vectors that are too wide for it. All
take addresses as int64.
"""

from __future__ import annotations

import math
import platform
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic

# float32 lanes of a vector register, and the tokens whose sums fit in the registers beside the
# weights.
LANES, TILE_TOKENS = 8, 2
if binding.get_host_cpu_features().get("avx512f"):
    LANES, TILE_TOKENS = 16, 4
elif platform.machine() in ("arm64", "aarch64"):
    LANES, TILE_TOKENS = 4, 4
VECTORS = 4
# Rows of a product that are computed together, each in a lane of its own.
GROUP = VECTORS * LANES

_F32, _I8, _I32, _I64 = ir.FloatType(), ir.IntType(8), ir.IntType(32), ir.IntType(64)
# Contracted where the CPU can: llvm.fma would call a function elsewhere.
_CONTRACT = ("contract",)


def _constant(value: int) -> ir.Constant:
    return ir.Constant(_I64, value)


def _vector(of: ir.Type) -> ir.VectorType:
    return ir.VectorType(of, LANES)


def _splat(b: ir.IRBuilder, scalar: ir.Value) -> ir.Value:
    undefined = ir.Constant(_vector(scalar.type), ir.Undefined)
    first = b.insert_element(undefined, scalar, ir.Constant(_I32, 0))
    return b.shuffle_vector(first, undefined, ir.Constant(_vector(_I32), [0] * LANES))


def _fused(b: ir.IRBuilder, x: ir.Value, y: ir.Value, added: ir.Value) -> ir.Value:
    return b.fadd(added, b.fmul(x, y, flags=_CONTRACT), flags=_CONTRACT)


def _load(b: ir.IRBuilder, base: ir.Value, index: ir.Value, of: ir.Type) -> ir.Value:
    """Load LANES items; aligned to an item alone."""
    at = b.bitcast(b.gep(base, [index]), _vector(of).as_pointer())
    return b.load(at, align=max(1, of.width // 8 if isinstance(of, ir.IntType) else 4))


def _store(b: ir.IRBuilder, value: ir.Value, base: ir.Value, index: ir.Value) -> None:
    b.store(value, b.bitcast(b.gep(base, [index]), value.type.as_pointer()), align=4)


@intrinsic
def floats_at(typing_context: Any, address: Any) -> Any:
    """Give the float32 values at an address."""

    def generate(context: Any, b: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return b.inttoptr(args[0], _F32.as_pointer())

    return types.CPointer(types.float32)(types.int64), generate


@intrinsic
def integers_at(typing_context: Any, address: Any) -> Any:
    """Give the int64 values at an address."""

    def generate(context: Any, b: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return b.inttoptr(args[0], _I64.as_pointer())

    return types.CPointer(types.int64)(types.int64), generate


@intrinsic
def exp(typing_context: Any, x: Any) -> Any:
    """Give e to the x, float32, within 2e-7 of it; loops over it are vectorized.

    x = k log 2 + r: a polynomial in r, times 2 to the k by way of the exponent's bits. Below -87.3
    it gives 0, above 88 what it gives there.
    """
    coefficients = [1 / math.factorial(i) for i in range(7, -1, -1)]

    def generate(context: Any, b: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        def number(value: float) -> ir.Constant:
            return ir.Constant(_F32, float(np.float32(value)))

        low, high = number(-87.33), number(88.0)
        x = args[0]
        is_low = b.fcmp_ordered("<", x, low)
        # Written so that NaN stays NaN.
        x = b.select(is_low, low, b.select(b.fcmp_ordered(">", x, high), high, x))
        # Positive before it is cut off, so that cutting off rounds to the nearest.
        shifted = b.fadd(b.fmul(x, number(1 / math.log(2))), number(128.5))
        k = b.sub(b.fptosi(shifted, _I32), ir.Constant(_I32, 128))
        whole = b.sitofp(k, _F32)
        r = _fused(b, whole, number(-0.693359375), x)
        r = _fused(b, whole, number(2.12194440e-4), r)
        result: ir.Value = number(coefficients[0])
        for coefficient in coefficients[1:]:
            result = _fused(b, result, r, number(coefficient))
        bits = b.shl(b.add(k, ir.Constant(_I32, 127)), ir.Constant(_I32, 23))
        result = b.fmul(result, b.bitcast(bits, _F32))
        return b.select(is_low, number(0), result)

    return types.float32(types.float32), generate


@intrinsic(prefer_literal=True)
def tile(
    typing_context: Any,
    n_tokens: Any,
    kind: Any,
    rows: Any,
    stride: Any,
    scales: Any,
    k: Any,
    x: Any,
    x_stride: Any,
    x_step: Any,
    out: Any,
    out_stride: Any,
    add: Any,
) -> Any:
    """Multiply one group of rows with `n_tokens` (a literal) inputs of k values.

    kind: float32 for rows as they are, uint16 for pairs of bfloat16, int8 for those times `scales`
    (GROUP,). Item i of row r lies at `rows` [i * stride + r], that of input t at `x`
    [t * x_stride + i * x_step]; out (n_tokens, GROUP). With `add` what stands there is added. k is
    even unless the kind is float32.
    """
    n = n_tokens.literal_value
    # Two sums for each row where there are few: a sum has to wait for its last term.
    n_sums = 2 if n == 1 and kind != types.float32 else 1
    step = 1 if kind == types.float32 else 2
    item = {types.float32: _F32, types.uint16: _I32, types.int8: _I8}[kind]

    def weights(b: ir.IRBuilder, rows: ir.Value, i: ir.Value, stride: ir.Value) -> Any:
        """Yield, for i and (unless the step is 1) i + 1, the rows' weights as float vectors."""

        def load(index: ir.Value) -> list[ir.Value]:
            start = b.mul(index, stride)
            return [
                _load(b, rows, b.add(start, _constant(v * LANES)), item) for v in range(VECTORS)
            ]

        if kind == types.float32:
            yield load(i)
        elif kind == types.int8:
            for index in (i, b.add(i, _constant(1))):
                wide = [b.sext(part, _vector(_I32)) for part in load(index)]
                yield [b.sitofp(part, _vector(_F32)) for part in wide]
        else:
            # The upper half of a float32 is a bfloat16: two of them share 32 bits.
            pairs = load(b.lshr(i, _constant(1)))
            shift = ir.Constant(_vector(_I32), [16] * LANES)
            mask = ir.Constant(_vector(_I32), [0xFFFF0000] * LANES)
            yield [b.bitcast(b.shl(pair, shift), _vector(_F32)) for pair in pairs]
            yield [b.bitcast(b.and_(pair, mask), _vector(_F32)) for pair in pairs]

    def generate(context: Any, b: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        _, _, rows, stride, scales, k, x, x_stride, x_step, out, out_stride, add = args
        rows = b.inttoptr(rows, item.as_pointer())
        scales, x, out = (b.inttoptr(p, _F32.as_pointer()) for p in (scales, x, out))
        before, loop = b.block, b.append_basic_block("loop")
        b.branch(loop)
        b.position_at_end(loop)
        i = b.phi(_I64)
        i.add_incoming(_constant(0), before)
        zero = ir.Constant(_vector(_F32), [0.0] * LANES)
        sums = [[[b.phi(_vector(_F32)) for _ in range(VECTORS)] for _ in range(n)]]
        if n_sums == 2:
            sums.append([[b.phi(_vector(_F32)) for _ in range(VECTORS)] for _ in range(n)])
        for phi in (phi for part in sums for row in part for phi in row):
            phi.add_incoming(zero, before)
        new = [[list(row) for row in part] for part in sums]
        for number, parts in enumerate(weights(b, rows, i, stride)):
            column = b.add(i, _constant(number))
            into = new[number % n_sums]
            for t in range(n):
                at = b.add(b.mul(x_stride, _constant(t)), b.mul(x_step, column))
                value = _splat(b, b.load(b.gep(x, [at])))
                for v in range(VECTORS):
                    into[t][v] = _fused(b, parts[v], value, into[t][v])
        following = b.add(i, _constant(step))
        i.add_incoming(following, b.block)
        for part, part_new in zip(sums, new, strict=True):
            for row, row_new in zip(part, part_new, strict=True):
                for phi, value in zip(row, row_new, strict=True):
                    phi.add_incoming(value, b.block)
        after = b.append_basic_block("after")
        b.cbranch(b.icmp_signed("<", following, k), loop, after)
        b.position_at_end(after)
        for t in range(n):
            for v in range(VECTORS):
                total = new[0][t][v]
                if n_sums == 2:
                    total = b.fadd(total, new[1][t][v])
                lane = _constant(v * LANES)
                if kind == types.int8:
                    total = b.fmul(total, _load(b, scales, lane, _F32))
                at = b.add(b.mul(out_stride, _constant(t)), lane)
                total = b.fadd(total, b.select(add, _load(b, out, at, _F32), zero))
                _store(b, total, out, at)
        return context.get_dummy_value()

    signature = types.void(n_tokens, kind, *(types.int64,) * 9, types.boolean)
    return signature, generate


@intrinsic
def row_dots(typing_context: Any, rows: Any, n: Any, x: Any, out: Any) -> Any:
    """Write the products of LANES rows of n values with x (n,) to out (LANES,).

    The rows lie one behind the other; n is a multiple of LANES.
    """

    def fold(b: ir.IRBuilder, sums: list[ir.Value]) -> ir.Value:
        """Sum each vector; the sums come in order."""
        width = LANES
        while len(sums) > 1:
            half = width // 2
            starts = range(0, 2 * LANES, width)
            halves = [
                ir.Constant(
                    _vector(_I32), [start + side + i for start in starts for i in range(half)]
                )
                for side in (0, half)
            ]
            sums = [
                b.fadd(
                    b.shuffle_vector(first, second, halves[0]),
                    b.shuffle_vector(first, second, halves[1]),
                )
                for first, second in zip(sums[::2], sums[1::2], strict=True)
            ]
            width = half
        return sums[0]

    def generate(context: Any, b: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        rows, n, x, out = args
        rows, x, out = (b.inttoptr(p, _F32.as_pointer()) for p in (rows, x, out))
        before, loop = b.block, b.append_basic_block("loop")
        b.branch(loop)
        b.position_at_end(loop)
        i = b.phi(_I64)
        i.add_incoming(_constant(0), before)
        sums = [b.phi(_vector(_F32)) for _ in range(LANES)]
        part = _load(b, x, i, _F32)
        for row, phi in enumerate(sums):
            phi.add_incoming(ir.Constant(_vector(_F32), [0.0] * LANES), before)
            at = b.add(b.mul(n, _constant(row)), i)
            phi.add_incoming(_fused(b, _load(b, rows, at, _F32), part, phi), loop)
        totals = [phi.incomings[1][0] for phi in sums]
        following = b.add(i, _constant(LANES))
        i.add_incoming(following, loop)
        after = b.append_basic_block("after")
        b.cbranch(b.icmp_signed("<", following, n), loop, after)
        b.position_at_end(after)
        _store(b, fold(b, totals), out, _constant(0))
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 4), generate
