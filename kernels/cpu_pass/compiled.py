"""A whole short pass as one function, which numba compiles for the CPU at hand."""

from __future__ import annotations

import zlib
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba

from kernels.cpu_pass.decorators import inlined, inner
from kernels.cpu_pass.job import Job
from kernels.cpu_pass.layer import (
    ADD,
    NONE,
    PACKED,
    UNIT,
    ZERO,
    convolve,
    copy,
    gate,
    head_at_once,
    head_stepwise,
    norm,
    product,
    score,
    softplus,
)
from kernels.cpu_pass.sharing import Shared, claim, finish, load, pause, store, wait
from kernels.cpu_pass.vectors import GROUP, LANES, TILE_TOKENS, floats_at, integers_at

if TYPE_CHECKING:
    from collections.abc import Callable

log = getLogger(__name__)

N_FIELDS = len(Job)
# Channels of the convolution that make a unit of work.
CHANNELS = 64


@inner
def norm_all(
    job: Any,
    x: int,
    x_stride: int,
    weight: int,
    width: int,
    n_norms: int,
    out: int,
    out_stride: int,
) -> None:
    """Norm x (n tokens, width) in `n_norms` groups, to rows that may be one value wider."""
    eps, group_width = floats_at(job[Job.LIMITS])[0], width // n_norms
    for t in range(job[Job.N_TOKENS]):
        for g in range(n_norms):
            at = 4 * g * group_width
            norm(
                x + 4 * t * x_stride + at,
                weight + at,
                out + 4 * t * out_stride + at,
                group_width,
                eps,
            )
        if out_stride > width:
            floats_at(out + 4 * t * out_stride)[width] = ZERO


@inner
def project(
    kind: Any,
    job: Any,
    shared: int,
    thread: int,
    phase: int,
    own: int,
    x: int,
    x_stride: int,
    weight: int,
    width: int,
    n_norms: int,
    rows: int,
    scales: int,
    out_stride: int,
    out: int,
    add: int,
    keep: int,
) -> int:
    """Norm x (n tokens, width) in `n_norms` groups and multiply it with packed rows.

    A phase; gives the next one's number. Each thread norms for itself: that
    is less work than waiting for another. `keep` is where the normed rows are wanted, or 0.
    """
    n, k, n_groups = job[Job.N_TOKENS], width + width % 2, out_stride // GROUP
    n_threads = job[Job.N_THREADS]
    is_normed = False
    done = 0
    while True:
        share = claim(job[Job.CLAIMED], thread, n_threads, phase)
        if share < 0:
            break
        if not is_normed:
            is_normed = True
            norm_all(job, x, x_stride, weight, width, n_norms, own, k)
        if keep and share == 0:
            for t in range(n):
                copy(own + 4 * t * k, keep + 4 * t * width, width)
        first, last = n_groups * share // n_threads, n_groups * (share + 1) // n_threads
        group_bytes = job[Job.ITEM_BYTES] * k * GROUP
        product(
            kind,
            rows + first * group_bytes,
            PACKED,
            group_bytes,
            last - first,
            scales + 4 * first * GROUP,
            k,
            own,
            k,
            UNIT,
            out + 4 * first * GROUP,
            out_stride,
            n,
            add,
        )
        done += 1
    finish(shared, done)
    wait(shared, n_threads, phase)
    return phase + 1


@inner
def convolve_all(
    job: Any, shared: int, thread: int, phase: int, layer: int, weight: int, bias: int
) -> int:
    """Convolve a layer's x, B and C. A phase; gives the next one's number."""
    n, d_inner, d_conv = job[Job.N_TOKENS], job[Job.D_INNER], job[Job.D_CONV]
    conv_dim = job[Job.CONV_DIM]
    stride = job[Job.PROJECTED_STRIDE]
    units = (conv_dim + CHANNELS - 1) // CHANNELS
    n_threads = job[Job.N_THREADS]
    of_state, of_log = 4 * layer * (d_conv - 1) * conv_dim, 4 * layer * n * conv_dim
    done = 0
    while True:
        share = claim(job[Job.CLAIMED], thread, n_threads, phase)
        if share < 0:
            break
        for unit in range(units * share // n_threads, units * (share + 1) // n_threads):
            convolve(
                job[Job.PROJECTED] + 4 * d_inner,
                stride,
                job[Job.CONV_STATE] + of_state,
                weight,
                bias,
                d_conv,
                conv_dim,
                CHANNELS * unit,
                min(CHANNELS * (unit + 1), conv_dim),
                n,
                job[Job.XBC] + of_log,
                job[Job.CONVOLVED] + of_log,
                job[Job.CONV_AFTER] + of_state,
            )
        done += 1
    finish(shared, done)
    wait(shared, n_threads, phase)
    return phase + 1


@inner
def recur(job: Any, shared: int, thread: int, phase: int, layer: int, rates: int, own: int) -> int:
    """Run the recurrence and the gate of all heads. A phase; gives the next one's number.

    rates: A, D and dt_bias, one behind the other.
    """
    n, d_inner, nheads = job[Job.N_TOKENS], job[Job.D_INNER], job[Job.NHEADS]
    headdim, d_state, ngroups = job[Job.HEADDIM], job[Job.D_STATE], job[Job.NGROUPS]
    conv_dim = job[Job.CONV_DIM]
    stride, y_stride = job[Job.PROJECTED_STRIDE], job[Job.Y_STRIDE]
    n_threads = job[Job.N_THREADS]
    limits, values = floats_at(job[Job.LIMITS]), floats_at(rates)
    x, dt = job[Job.CONVOLVED] + 4 * layer * n * conv_dim, job[Job.DT] + 4 * layer * n * nheads
    dts = floats_at(dt)
    steps, scores = floats_at(own), own + 4 * n
    scored = -1
    done = 0
    while True:
        share = claim(job[Job.CLAIMED], thread, n_threads, phase)
        if share < 0:
            break
        for h in range(nheads * share // n_threads, nheads * (share + 1) // n_threads):
            group = h // (nheads // ngroups)
            B = x + 4 * (d_inner + group * d_state)
            C = B + 4 * ngroups * d_state
            for t in range(n):
                row = floats_at(job[Job.PROJECTED] + 4 * t * stride)
                step = softplus(row[d_inner + conv_dim + h] + values[2 * nheads + h])
                steps[t] = min(max(step, limits[1]), limits[2])
                dts[t * nheads + h] = steps[t]
            y = job[Job.Y] + 4 * h * headdim
            of_state = 4 * (layer * nheads + h) * headdim * d_state
            state, state_after = job[Job.SSM_STATE] + of_state, job[Job.SSM_AFTER] + of_state
            if headdim % GROUP == 0 and d_state % GROUP == 0:
                if scored != group:
                    scored = group
                    score(B, C, conv_dim, d_state, n, scores)
                head_at_once(
                    x + 4 * h * headdim,
                    B,
                    C,
                    conv_dim,
                    own,
                    values[h],
                    values[nheads + h],
                    state,
                    headdim,
                    d_state,
                    n,
                    scores,
                    scores + 4 * n * n,
                    y,
                    y_stride,
                    state_after,
                )
            else:
                head_stepwise(
                    x + 4 * h * headdim,
                    B,
                    C,
                    conv_dim,
                    own,
                    values[h],
                    values[nheads + h],
                    state,
                    headdim,
                    d_state,
                    n,
                    y,
                    y_stride,
                    state_after,
                )
            for t in range(n):
                z = job[Job.PROJECTED] + 4 * (t * stride + h * headdim)
                gate(y + 4 * t * y_stride, z, headdim)
        done += 1
    finish(shared, done)
    wait(shared, n_threads, phase)
    return phase + 1


@inlined
def work(kind: Any, job: Any, shared: int, thread: int) -> None:
    """Do what there is to do of a pass; all threads call this with the same job."""
    d_model, d_inner, nheads = job[Job.D_MODEL], job[Job.D_INNER], job[Job.NHEADS]
    conv_dim = job[Job.CONV_DIM]
    stride, n_rows = job[Job.RESIDUAL_STRIDE], job[Job.PROJECTED_STRIDE]
    own = job[Job.OWN] + thread * job[Job.OWN_STRIDE]
    phase = job[Job.PHASE]
    in_bytes = job[Job.ITEM_BYTES] * n_rows * (d_model + d_model % 2)
    out_bytes = job[Job.ITEM_BYTES] * stride * job[Job.Y_STRIDE]
    for layer in range(job[Job.N_LAYERS]):
        small = job[Job.SMALL] + layer * job[Job.SMALL_STRIDE]
        gate_norm = small + 4 * d_model
        rates = gate_norm + 4 * d_inner
        bias = rates + 12 * nheads
        phase = project(
            kind,
            job,
            shared,
            thread,
            phase,
            own,
            job[Job.RESIDUAL],
            stride,
            small,
            d_model,
            UNIT,
            job[Job.IN_PROJ] + layer * in_bytes,
            job[Job.IN_SCALES] + 4 * layer * n_rows,
            n_rows,
            job[Job.PROJECTED],
            NONE,
            NONE,
        )
        phase = convolve_all(job, shared, thread, phase, layer, bias + 4 * conv_dim, bias)
        phase = recur(job, shared, thread, phase, layer, rates, own)
        phase = project(
            kind,
            job,
            shared,
            thread,
            phase,
            own,
            job[Job.Y],
            job[Job.Y_STRIDE],
            gate_norm,
            d_inner,
            job[Job.NGROUPS],
            job[Job.OUT_PROJ] + layer * out_bytes,
            job[Job.OUT_SCALES] + 4 * layer * stride,
            stride,
            job[Job.RESIDUAL],
            ADD,
            NONE,
        )
    norm_f = job[Job.SMALL] + job[Job.N_LAYERS] * job[Job.SMALL_STRIDE]
    if job[Job.LOGITS] == 0:
        if thread == 0:
            norm_all(
                job, job[Job.RESIDUAL], stride, norm_f, d_model, UNIT, job[Job.HIDDEN], d_model
            )
        return
    project(
        kind,
        job,
        shared,
        thread,
        phase,
        own,
        job[Job.RESIDUAL],
        stride,
        norm_f,
        d_model,
        UNIT,
        job[Job.HEAD],
        job[Job.HEAD_SCALES],
        job[Job.LOGITS_STRIDE],
        job[Job.LOGITS],
        NONE,
        job[Job.HIDDEN],
    )


@inlined
def publish(shared: int, job: Any) -> None:
    """Begin the residual stream with the embeddings, and let all threads know of the job."""
    d_model = job[Job.D_MODEL]
    tokens = integers_at(job[Job.TOKENS])
    for t in range(job[Job.N_TOKENS]):
        row = job[Job.EMBEDDINGS] + 4 * tokens[t] * d_model
        copy(row, job[Job.RESIDUAL] + 4 * t * job[Job.RESIDUAL_STRIDE], d_model)
    job[Job.PHASE] = load(shared + 8 * Shared.FINISHED) // job[Job.N_THREADS]
    version = load(shared + 8 * Shared.VERSION)
    store(shared + 8 * Shared.VERSION, version + 1)
    for i in range(N_FIELDS):
        store(shared + 8 * (Shared.JOB + i), job[i])
    store(shared + 8 * Shared.VERSION, version + 2)


@inlined
def receive(shared: int, job: Any, seen: int, patience: int) -> int:
    """Wait for a job other than the one `seen`; gives its version, or 0 when none comes.

    `patience` is in turns of waiting.
    """
    for _ in range(patience):
        version = load(shared + 8 * Shared.VERSION)
        if version != seen and version % 2 == 0:
            for i in range(N_FIELDS):
                job[i] = load(shared + 8 * (Shared.JOB + i))
            if load(shared + 8 * Shared.VERSION) == version:
                return version
        if load(shared + 8 * Shared.IS_CLOSED):
            break
        pause()
    return 0


def entry(sources: int) -> Callable[..., None]:
    """Make the function that is called from outside, kept on disk for the next process.

    `sources` stands for the text of all files here. It is in the closure, and so in the key that
    the function is kept under: numba looks for changes in the file of a function alone, not in
    those of the functions it calls.
    """

    def run(kind, shared, job, thread, patience):  # type: ignore[no-untyped-def]
        sources  # noqa: B018
        # What was published long ago does no harm: no share of it is left to claim.
        seen = 0
        if thread == 0:
            publish(shared, job)
        while True:
            if thread > 0:
                seen = receive(shared, job, seen, patience)
                if seen == 0:
                    break
            work(kind, job, shared, thread)
            if thread == 0:
                break
        if thread > 0:
            store(shared + 8 * (Shared.JOB + N_FIELDS + thread), 1)

    try:
        return numba.njit(run, cache=True, nogil=True)
    except RuntimeError:
        log.warning("there is no folder to keep compiled code in: every start compiles anew")
        return numba.njit(run, nogil=True)


_SOURCES = b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py")))
# `run(kind, shared, job, thread, patience)`: do a pass as thread 0; as another, help with all that
# come until none does.
run = entry(zlib.crc32(_SOURCES, LANES * TILE_TOKENS))
