"""Operations on vector registers, written in LLVM's language: what plain loops do not reach.

They work on any CPU that numba compiles for; LLVM splits vectors that are too wide for it. All
take addresses as int64.
"""

from __future__ import annotations

import math
import platform
from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

if TYPE_CHECKING:
    from collections.abc import Callable

FEATURES = binding.get_host_cpu_features()
# float32 lanes of a vector register, and the tokens whose sums fit in the registers beside the
# weights.
LANES, TILE_TOKENS = 8, 2
if FEATURES.get("avx512f"):
    LANES, TILE_TOKENS = 16, 4
elif platform.machine() in ("arm64", "aarch64"):
    LANES, TILE_TOKENS = 4, 4
VECTORS = 4
# Rows of a product that are computed together, each in a lane of its own.
GROUP = VECTORS * LANES

F32, I8, I32, I64 = ir.FloatType(), ir.IntType(8), ir.IntType(32), ir.IntType(64)
ZEROS = ir.Constant(ir.VectorType(F32, LANES), [0.0] * LANES)
# Contracted where the CPU can: llvm.fma would call a function elsewhere.
_CONTRACT = ("contract",)


def constant(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


def vector(of: ir.Type) -> ir.VectorType:
    return ir.VectorType(of, LANES)


def splat(b: ir.IRBuilder, scalar: ir.Value) -> ir.Value:
    undefined = ir.Constant(vector(scalar.type), ir.Undefined)
    first = b.insert_element(undefined, scalar, ir.Constant(I32, 0))
    return b.shuffle_vector(first, undefined, ir.Constant(vector(I32), [0] * LANES))


def fused(b: ir.IRBuilder, x: ir.Value, y: ir.Value, added: ir.Value) -> ir.Value:
    return b.fadd(added, b.fmul(x, y, flags=_CONTRACT), flags=_CONTRACT)


def load_vector(b: ir.IRBuilder, base: ir.Value, index: ir.Value, of: ir.Type) -> ir.Value:
    """Load LANES items; aligned to an item alone."""
    at = b.bitcast(b.gep(base, [index]), vector(of).as_pointer())
    return b.load(at, align=max(1, of.width // 8 if isinstance(of, ir.IntType) else 4))


def store_vector(b: ir.IRBuilder, value: ir.Value, base: ir.Value, index: ir.Value) -> None:
    b.store(value, b.bitcast(b.gep(base, [index]), value.type.as_pointer()), align=4)


def splat_constant(value: int) -> ir.Constant:
    return ir.Constant(vector(I32), [value] * LANES)


def counted(
    b: ir.IRBuilder,
    end: ir.Value,
    step: int,
    starts: list[ir.Value],
    body: Callable[[ir.Value, list[ir.Value]], list[ir.Value]],
) -> list[ir.Value]:
    """Count from 0 to `end` by `step`; `body` makes of i and some values the next ones."""
    before, block = b.block, b.append_basic_block("loop")
    b.branch(block)
    b.position_at_end(block)
    i = b.phi(I64)
    i.add_incoming(constant(0), before)
    phis = [b.phi(start.type) for start in starts]
    new = body(i, phis)
    for phi, start, value in zip(phis, starts, new, strict=True):
        phi.add_incoming(start, before)
        phi.add_incoming(value, block)
    following = b.add(i, constant(step))
    i.add_incoming(following, block)
    after = b.append_basic_block("after")
    b.cbranch(b.icmp_signed("<", following, end), block, after)
    b.position_at_end(after)
    return new


def call(b: ir.IRBuilder, name: str, kind: ir.Type, *values: ir.Value) -> ir.Value:
    function = ir.FunctionType(kind, [value.type for value in values])
    return b.call(cgutils.get_or_insert_function(b.module, function, name), values)


@intrinsic
def floats_at(typing_context: Any, address: Any) -> Any:
    """Give the float32 values at an address."""

    def generate(context: Any, b: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return b.inttoptr(args[0], F32.as_pointer())

    return types.CPointer(types.float32)(types.int64), generate


@intrinsic
def integers_at(typing_context: Any, address: Any) -> Any:
    """Give the int64 values at an address."""

    def generate(context: Any, b: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return b.inttoptr(args[0], I64.as_pointer())

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
            return ir.Constant(F32, float(np.float32(value)))

        low, high = number(-87.33), number(88.0)
        x = args[0]
        is_low = b.fcmp_ordered("<", x, low)
        # Written so that NaN stays NaN.
        x = b.select(is_low, low, b.select(b.fcmp_ordered(">", x, high), high, x))
        # Positive before it is cut off, so that cutting off rounds to the nearest.
        shifted = b.fadd(b.fmul(x, number(1 / math.log(2))), number(128.5))
        k = b.sub(b.fptosi(shifted, I32), ir.Constant(I32, 128))
        whole = b.sitofp(k, F32)
        r = fused(b, whole, number(-0.693359375), x)
        r = fused(b, whole, number(2.12194440e-4), r)
        result: ir.Value = number(coefficients[0])
        for coefficient in coefficients[1:]:
            result = fused(b, result, r, number(coefficient))
        bits = b.shl(b.add(k, ir.Constant(I32, 127)), ir.Constant(I32, 23))
        result = b.fmul(result, b.bitcast(bits, F32))
        return b.select(is_low, number(0), result)

    return types.float32(types.float32), generate
