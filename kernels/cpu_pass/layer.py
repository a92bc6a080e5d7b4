"""The parts of a pass through a layer, as numba compiles them.

Arguments named after tensors are addresses of float32 (int64 each); strides are over tokens and
count items. A function works on some rows, channels or a head, so that threads can share a layer.
What the results must be is said by `reference`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kernels.cpu_pass.decorators import inlined, inner, inner_sum
from kernels.cpu_pass.products import tile
from kernels.cpu_pass.recurrence import ROWS, advance, fold
from kernels.cpu_pass.vectors import GROUP, LANES, TILE_TOKENS, exp, floats_at

ZERO, ONE, TWO = np.float32(0), np.float32(1), np.float32(2)
# Arguments that are no literals: a function is compiled anew for each literal.
NONE, UNIT, ADD = np.int64(0), np.int64(1), np.int64(1)
# Tokens that the rows of a state go through at once: what they leave has to stay in the cache.
RUN = 8


@inner
def copy(source: int, out: int, n: int) -> None:
    """Copy n float32."""
    source_values, out_values = floats_at(source), floats_at(out)
    for i in range(n):
        out_values[i] = source_values[i]


@inner
def product(
    kind: Any,
    rows: int,
    group_bytes: int,
    n_groups: int,
    scales: int,
    k: int,
    x: int,
    x_bytes: int,
    out: int,
    out_stride: int,
    n: int,
    add: int,
) -> None:
    """Multiply groups of rows, so many bytes apart, with n inputs; see `tile`."""
    step = 4 * out_stride
    for group in range(n_groups):
        to = out + 4 * group * GROUP
        t = 0
        while t + TILE_TOKENS <= n:
            at, to_t = x + t * x_bytes, to + t * step
            tile(TILE_TOKENS, kind, rows, scales, k, at, x_bytes, to_t, out_stride, add != 0)
            t += TILE_TOKENS
        if TILE_TOKENS > 2 and t + 2 <= n:
            at, to_t = x + t * x_bytes, to + t * step
            tile(2, kind, rows, scales, k, at, x_bytes, to_t, out_stride, add != 0)
            t += 2
        if t < n:
            at, to_t = x + t * x_bytes, to + t * step
            tile(1, kind, rows, scales, k, at, x_bytes, to_t, out_stride, add != 0)
        rows += group_bytes
        scales += 4 * GROUP


@inner_sum
def dot(x: int, y: int, n: int) -> Any:
    """Give the sum of the products of n values."""
    x_values, y_values = floats_at(x), floats_at(y)
    total = ZERO
    for i in range(n):
        total += x_values[i] * y_values[i]
    return total


@inner
def norm(x: int, weight: int, out: int, n: int, eps: Any) -> None:
    """Divide n values by their root mean square, and multiply by the weight."""
    scale = ONE / np.float32(math.sqrt(dot(x, x, n) / np.float32(n) + eps))
    x_values, weights, out_values = floats_at(x), floats_at(weight), floats_at(out)
    for i in range(n):
        out_values[i] = x_values[i] * scale * weights[i]


@inlined
def silu(x: Any) -> Any:
    """Give x times its logistic function."""
    return x / (ONE + exp(-x))


@inlined
def softplus(x: Any) -> Any:
    """Give log(1 + exp(x)), right where it is close to 0 too.

    With s = e / (2 + e), log(1 + e) is 2 (s + s^3 / 3 + s^5 / 5 + ...); s is 1/3 at the most.
    """
    e = exp(-abs(x))
    s = e / (TWO + e)
    square = s * s
    total = ZERO
    for i in range(6, -1, -1):
        total = total * square + TWO / np.float32(2 * i + 1)
    return max(x, ZERO) + s * total


@inlined
def input_at(x: int, x_stride: int, state: int, n_channels: int, taps: int, t: int) -> int:
    """Give where the inputs of a token lie: from 0 on among the new ones, before in the state."""
    if t < 0:
        return state + 4 * (taps + t) * n_channels
    return x + 4 * t * x_stride


@inner
def convolve(
    x: int,
    x_stride: int,
    state: int,
    weight: int,
    bias: int,
    d_conv: int,
    n_channels: int,
    width: int,
    n: int,
    out: int,
    out_stride: int,
) -> None:
    """Convolve `width` of the channels of n tokens, from the first that the addresses say."""
    taps = d_conv - 1
    biases = floats_at(bias)
    for t in range(n):
        sums = floats_at(out + 4 * t * out_stride)
        for c in range(width):
            sums[c] = biases[c]
        for tap in range(d_conv):
            weights = floats_at(weight + 4 * tap * n_channels)
            before = t + tap - taps
            values = floats_at(input_at(x, x_stride, state, n_channels, taps, before))
            for c in range(width):
                sums[c] += values[c] * weights[c]
        for c in range(width):
            sums[c] = silu(sums[c])


@inner
def keep_inputs(
    x: int,
    x_stride: int,
    state: int,
    d_conv: int,
    n_channels: int,
    width: int,
    n: int,
    inputs: int,
    state_after: int,
) -> None:
    """Keep what some channels of n tokens were before the convolution, and their state after."""
    taps = d_conv - 1
    for t in range(n):
        copy(x + 4 * t * x_stride, inputs + 4 * t * n_channels, width)
    for tap in range(taps):
        source = input_at(x, x_stride, state, n_channels, taps, n + tap - taps)
        copy(source, state_after + 4 * tap * n_channels, width)


@inner
def head_by_rows(
    x: int,
    x_stride: int,
    B: int,
    C: int,
    stride: int,
    dt: int,
    dt_stride: int,
    A: Any,
    state: int,
    headdim: int,
    d_state: int,
    n: int,
    scratch: int,
    y: int,
    y_stride: int,
    state_after: int,
) -> None:
    """Add to y (n, headdim) what a head's recurrence gives; reads and writes the state once.

    x (n, headdim), B and C (n, d_state), with strides. headdim is a multiple of LANES and d_state
    of GROUP. scratch: n * (1 + headdim) + RUN * LANES * LANES values.
    """
    dts, decays = floats_at(dt), floats_at(scratch)
    inputs = scratch + 4 * n
    partial = inputs + 4 * n * headdim
    for t in range(n):
        step = dts[t * dt_stride]
        decays[t] = exp(step * A)
        values, row = floats_at(x + 4 * t * x_stride), floats_at(inputs + 4 * t * headdim)
        for p in range(headdim):
            row[p] = values[p] * step
    for p in range(0, headdim, LANES):
        for i in range(0, d_state, GROUP):
            for start in range(0, n, RUN):
                length = min(n - start, RUN)
                for r in range(0, LANES, ROWS):
                    at = 4 * ((p + r) * d_state + i)
                    advance(
                        (state if start == 0 else state_after) + at,
                        state_after + at,
                        d_state,
                        length,
                        scratch + 4 * start,
                        inputs + 4 * (start * headdim + p + r),
                        headdim,
                        B + 4 * (start * stride + i),
                        C + 4 * (start * stride + i),
                        stride,
                        partial + 4 * r * LANES,
                        LANES * d_state,
                    )
                for t in range(length):
                    to = y + 4 * ((start + t) * y_stride + p)
                    fold(partial + 4 * t * LANES * LANES, to)


@inner_sum
def head_by_values(
    x: int,
    x_stride: int,
    B: int,
    C: int,
    stride: int,
    dt: int,
    dt_stride: int,
    A: Any,
    state: int,
    headdim: int,
    d_state: int,
    n: int,
    y: int,
    y_stride: int,
    state_after: int,
) -> None:
    """Do what `head_by_rows` does, for a head of any size."""
    dts = floats_at(dt)
    for p in range(headdim):
        row = floats_at(state_after + 4 * p * d_state)
        copy(state + 4 * p * d_state, state_after + 4 * p * d_state, d_state)
        for t in range(n):
            step = dts[t * dt_stride]
            decay = exp(step * A)
            value = step * floats_at(x + 4 * t * x_stride)[p]
            inputs, outputs = floats_at(B + 4 * t * stride), floats_at(C + 4 * t * stride)
            total = ZERO
            for i in range(d_state):
                row[i] = row[i] * decay + value * inputs[i]
                total += row[i] * outputs[i]
            floats_at(y + 4 * t * y_stride)[p] += total


@inner
def gate(y: int, z: int, n: int) -> None:
    """Multiply n values of y by the SiLU of those of z."""
    ys, zs = floats_at(y), floats_at(z)
    for i in range(n):
        ys[i] *= silu(zs[i])
