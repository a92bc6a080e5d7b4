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
from kernels.cpu_pass.vectors import GROUP, LANES, TILE_TOKENS, exp, floats_at, row_dots, tile

ZERO, ONE, TWO = np.float32(0), np.float32(1), np.float32(2)
# Arguments that are no literals: a function is compiled anew for each literal.
NONE, UNIT, ADD = np.int64(0), np.int64(1), np.int64(1)
PACKED = np.int64(GROUP)
# What `exp` makes nothing of.
NOTHING = np.float32(-1000)


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
    stride: int,
    group_bytes: int,
    n_groups: int,
    scales: int,
    k: int,
    x: int,
    x_stride: int,
    x_step: int,
    out: int,
    out_stride: int,
    n: int,
    add: int,
) -> None:
    """Multiply groups of rows, so many bytes apart, with n inputs; see `tile`."""
    for group in range(n_groups):
        to = out + 4 * group * GROUP
        t = 0
        while t + TILE_TOKENS <= n:
            tile(
                TILE_TOKENS,
                kind,
                rows,
                stride,
                scales,
                k,
                x + 4 * t * x_stride,
                x_stride,
                x_step,
                to + 4 * t * out_stride,
                out_stride,
                add != 0,
            )
            t += TILE_TOKENS
        if TILE_TOKENS > 2 and t + 2 <= n:
            tile(
                2,
                kind,
                rows,
                stride,
                scales,
                k,
                x + 4 * t * x_stride,
                x_stride,
                x_step,
                to + 4 * t * out_stride,
                out_stride,
                add != 0,
            )
            t += 2
        if t < n:
            tile(
                1,
                kind,
                rows,
                stride,
                scales,
                k,
                x + 4 * t * x_stride,
                x_stride,
                x_step,
                to + 4 * t * out_stride,
                out_stride,
                add != 0,
            )
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


@inner
def convolve(
    x: int,
    x_stride: int,
    state: int,
    weight: int,
    bias: int,
    d_conv: int,
    n_channels: int,
    first: int,
    last: int,
    n: int,
    inputs: int,
    out: int,
    state_after: int,
) -> None:
    """Convolve channels `first` to `last` of n tokens, keep their inputs and the state after."""
    width = last - first
    taps = d_conv - 1
    biases = floats_at(bias + 4 * first)
    for t in range(n):
        new = floats_at(x + 4 * (t * x_stride + first))
        kept = floats_at(inputs + 4 * (t * n_channels + first))
        sums = floats_at(out + 4 * (t * n_channels + first))
        for c in range(width):
            kept[c] = new[c]
            sums[c] = biases[c]
        for tap in range(d_conv):
            weights = floats_at(weight + 4 * (tap * n_channels + first))
            before = t + tap - taps
            source = inputs + 4 * before * n_channels
            if before < 0:
                source = state + 4 * (taps + before) * n_channels
            values = floats_at(source + 4 * first)
            for c in range(width):
                sums[c] += values[c] * weights[c]
        for c in range(width):
            sums[c] = silu(sums[c])
    for tap in range(taps):
        before = n + tap - taps
        source = inputs + 4 * before * n_channels
        if before < 0:
            source = state + 4 * (taps + before) * n_channels
        copy(source + 4 * first, state_after + 4 * (tap * n_channels + first), width)


@inlined
def score(B: int, C: int, stride: int, d_state: int, n: int, scores: int) -> None:
    """Multiply each C with the Bs up to it: what heads of one group share, (n, n)."""
    for t in range(n):
        row = floats_at(scores + 4 * t * n)
        for s in range(n):
            row[s] = dot(C + 4 * t * stride, B + 4 * s * stride, d_state) if s <= t else ZERO


@inner
def head_at_once(
    x: int,
    B: int,
    C: int,
    stride: int,
    dt: int,
    A: Any,
    D: Any,
    state: int,
    headdim: int,
    d_state: int,
    n: int,
    scores: int,
    scratch: int,
    y: int,
    y_stride: int,
    state_after: int,
) -> None:
    """Run the recurrence of a head: what the state gives to all tokens, and they to each other.

    Reads the state twice and writes it once, however many the tokens. headdim and d_state are
    multiples of GROUP. scratch: n * (1 + max(n, d_state)) values.
    """
    dts, decays = floats_at(dt), floats_at(scratch)
    # What is left at each token of the state before all of them, as a logarithm.
    total = ZERO
    for t in range(n):
        total += dts[t] * A
        decays[t] = total
    mixing = scratch + 4 * n
    for t in range(n):
        weights, of_group = floats_at(mixing + 4 * t * n), floats_at(scores + 4 * t * n)
        for s in range(n):
            gap = decays[t] - decays[s] if s <= t else NOTHING
            weights[s] = of_group[s] * exp(gap) * dts[s]
        weights[t] += D
    for p in range(0, headdim, LANES):
        for t in range(n):
            at = y + 4 * (t * y_stride + p)
            row_dots(state + 4 * p * d_state, d_state, C + 4 * t * stride, at)
            decay, values = exp(decays[t]), floats_at(at)
            for i in range(LANES):
                values[i] *= decay
    group_bytes = 4 * PACKED
    product(
        ZERO,
        x,
        stride,
        group_bytes,
        headdim // GROUP,
        NONE,
        n,
        mixing,
        n,
        UNIT,
        y,
        y_stride,
        n,
        ADD,
    )
    scaled = mixing
    for t in range(n):
        step = exp(decays[n - 1] - decays[t]) * dts[t]
        values, row = floats_at(B + 4 * t * stride), floats_at(scaled + 4 * t * d_state)
        for i in range(d_state):
            row[i] = values[i] * step
    decay, size = exp(decays[n - 1]), headdim * d_state
    before, after = floats_at(state), floats_at(state_after)
    for i in range(size):
        after[i] = before[i] * decay
    product(
        ZERO,
        scaled,
        d_state,
        group_bytes,
        d_state // GROUP,
        NONE,
        n,
        x,
        UNIT,
        stride,
        state_after,
        d_state,
        headdim,
        ADD,
    )


@inner_sum
def head_stepwise(
    x: int,
    B: int,
    C: int,
    stride: int,
    dt: int,
    A: Any,
    D: Any,
    state: int,
    headdim: int,
    d_state: int,
    n: int,
    y: int,
    y_stride: int,
    state_after: int,
) -> None:
    """Run the recurrence of a head of any size, token by token."""
    dts = floats_at(dt)
    for p in range(headdim):
        row = floats_at(state_after + 4 * p * d_state)
        copy(state + 4 * p * d_state, state_after + 4 * p * d_state, d_state)
        for t in range(n):
            decay = exp(dts[t] * A)
            value = floats_at(x + 4 * t * stride)[p]
            inputs, outputs = (
                floats_at(B + 4 * t * stride),
                floats_at(C + 4 * t * stride),
            )
            total = D * value
            for i in range(d_state):
                row[i] = row[i] * decay + dts[t] * value * inputs[i]
                total += row[i] * outputs[i]
            floats_at(y + 4 * t * y_stride)[p] = total


@inner
def gate(y: int, z: int, n: int) -> None:
    """Multiply n values of y by the SiLU of those of z."""
    ys, zs = floats_at(y), floats_at(z)
    for i in range(n):
        ys[i] *= silu(zs[i])
