"""The phases of a pass, which all threads go through: three for each layer, and the logits."""

from __future__ import annotations

from typing import Any

from kernels.cpu_pass.decorators import inlined, inner
from kernels.cpu_pass.job import Job
from kernels.cpu_pass.layer import (
    ADD,
    NONE,
    UNIT,
    ZERO,
    convolve,
    copy,
    gate,
    head_by_rows,
    head_by_values,
    keep_inputs,
    norm,
    product,
    softplus,
)
from kernels.cpu_pass.products import HAS_BYTE_SUMS, HEADER_BYTES, N_DIGITS, write_digits
from kernels.cpu_pass.sharing import claim, finish, wait
from kernels.cpu_pass.vectors import GROUP, LANES, floats_at


@inlined
def up(n: int, multiple: int) -> int:
    """Give the next multiple from n on."""
    return (n + multiple - 1) // multiple * multiple


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
    """Norm x (n tokens, width) in `n_norms` groups; zeros fill what is left of a row."""
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
        row = floats_at(out + 4 * t * out_stride)
        for i in range(width, out_stride):
            row[i] = ZERO


@inner
def project(
    kind: Any,
    job: Any,
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
    n, n_groups, n_threads = job[Job.N_TOKENS], out_stride // GROUP, job[Job.N_THREADS]
    k, stride = up(width, 4 // job[Job.ITEM_BYTES]), up(width, LANES)
    group_bytes = job[Job.ITEM_BYTES] * k * GROUP
    as_digits = HAS_BYTE_SUMS and job[Job.ITEM_BYTES] == 1
    inputs, input_bytes = own, 4 * stride
    if as_digits:
        inputs, input_bytes = own + 4 * n * stride, HEADER_BYTES + N_DIGITS * stride
    is_normed = False
    while True:
        share = claim(job[Job.SHARES], thread, n_threads, phase)
        if share < 0:
            break
        if not is_normed:
            is_normed = True
            norm_all(job, x, x_stride, weight, width, n_norms, own, stride)
            if as_digits:
                for t in range(n):
                    write_digits(own + 4 * t * stride, stride, inputs + t * input_bytes)
        if keep and share == 0:
            for t in range(n):
                copy(own + 4 * t * stride, keep + 4 * t * width, width)
        first, last = n_groups * share // n_threads, n_groups * (share + 1) // n_threads
        product(
            kind,
            rows + first * group_bytes,
            group_bytes,
            last - first,
            scales + 4 * first * GROUP,
            k,
            inputs,
            input_bytes,
            out + 4 * first * GROUP,
            out_stride,
            n,
            add,
        )
        finish(job[Job.SHARES], share, phase)
    wait(job[Job.SHARES], n_threads, phase)
    return phase + 1


@inner
def convolve_share(
    job: Any, layer: int, bias: int, first: int, width: int, out: int, out_stride: int
) -> None:
    """Convolve some channels of a layer."""
    n, d_conv, conv_dim = job[Job.N_TOKENS], job[Job.D_CONV], job[Job.CONV_DIM]
    convolve(
        job[Job.PROJECTED] + 4 * (job[Job.D_INNER] + first),
        job[Job.PROJECTED_STRIDE],
        job[Job.CONV_STATE] + 4 * (layer * (d_conv - 1) * conv_dim + first),
        bias + 4 * (conv_dim + first),
        bias + 4 * first,
        d_conv,
        conv_dim,
        width,
        n,
        out,
        out_stride,
    )


@inner
def keep_share(job: Any, layer: int, first: int, width: int) -> None:
    """Keep the inputs of some channels of a layer, and the convolution's state after them."""
    n, d_conv, conv_dim = job[Job.N_TOKENS], job[Job.D_CONV], job[Job.CONV_DIM]
    of_state = 4 * (layer * (d_conv - 1) * conv_dim + first)
    keep_inputs(
        job[Job.PROJECTED] + 4 * (job[Job.D_INNER] + first),
        job[Job.PROJECTED_STRIDE],
        job[Job.CONV_STATE] + of_state,
        d_conv,
        conv_dim,
        width,
        n,
        job[Job.XBC] + 4 * (layer * n * conv_dim + first),
        job[Job.CONV_AFTER] + of_state,
    )


@inner
def recur_share(
    job: Any, layer: int, rates: int, own: int, first_head: int, last_head: int
) -> None:
    """Convolve, run the recurrence and gate, for some heads; see `recur`."""
    n, d_inner, nheads = job[Job.N_TOKENS], job[Job.D_INNER], job[Job.NHEADS]
    headdim, d_state, ngroups = job[Job.HEADDIM], job[Job.D_STATE], job[Job.NGROUPS]
    conv_dim, y_stride = job[Job.CONV_DIM], job[Job.Y_STRIDE]
    heads, bias = nheads // ngroups, rates + 12 * nheads
    first, width = first_head * headdim, (last_head - first_head) * headdim
    x = job[Job.X] + 4 * layer * n * d_inner
    convolve_share(job, layer, bias, first, width, x + 4 * first, d_inner)
    keep_share(job, layer, first, width)
    # Of the groups that the heads are of, B and C are one's own; kept are those that begin here.
    first_group, last_group = first_head // heads, up(last_head, heads) // heads
    stride = (last_group - first_group) * d_state
    B, C, scratch = own, own + 4 * n * stride, own + 8 * n * stride
    of_B, gn = d_inner + first_group * d_state, ngroups * d_state
    convolve_share(job, layer, bias, of_B, stride, B, stride)
    convolve_share(job, layer, bias, of_B + gn, stride, C, stride)
    skipped = (up(first_head, heads) // heads - first_group) * d_state
    if skipped < stride:
        keep_share(job, layer, of_B + skipped, stride - skipped)
        keep_share(job, layer, of_B + gn + skipped, stride - skipped)
        for t in range(n):
            kept = job[Job.B] + 4 * ((layer * n + t) * gn + first_group * d_state + skipped)
            copy(B + 4 * (t * stride + skipped), kept, stride - skipped)
    dt, dt_before = job[Job.DT] + 4 * layer * n * nheads, d_inner + conv_dim
    limits, values = floats_at(job[Job.LIMITS]), floats_at(rates)
    for t in range(n):
        row = floats_at(job[Job.PROJECTED] + 4 * (t * job[Job.PROJECTED_STRIDE] + dt_before))
        steps = floats_at(dt + 4 * t * nheads)
        inputs, outputs = floats_at(x + 4 * t * d_inner), floats_at(job[Job.Y] + 4 * t * y_stride)
        for h in range(first_head, last_head):
            step = softplus(row[h] + values[2 * nheads + h])
            steps[h] = min(max(step, limits[1]), limits[2])
            for p in range(h * headdim, (h + 1) * headdim):
                outputs[p] = inputs[p] * values[nheads + h]
    for h in range(first_head, last_head):
        of_group, at = 4 * (h // heads - first_group) * d_state, 4 * h * headdim
        of_state = 4 * (layer * nheads + h) * headdim * d_state
        state, state_after = job[Job.SSM_STATE] + of_state, job[Job.SSM_AFTER] + of_state
        if headdim % LANES == 0 and d_state % GROUP == 0:
            head_by_rows(
                x + at,
                d_inner,
                B + of_group,
                C + of_group,
                stride,
                dt + 4 * h,
                nheads,
                values[h],
                state,
                headdim,
                d_state,
                n,
                scratch,
                job[Job.Y] + at,
                y_stride,
                state_after,
            )
        else:
            head_by_values(
                x + at,
                d_inner,
                B + of_group,
                C + of_group,
                stride,
                dt + 4 * h,
                nheads,
                values[h],
                state,
                headdim,
                d_state,
                n,
                job[Job.Y] + at,
                y_stride,
                state_after,
            )
    for t in range(n):
        z = job[Job.PROJECTED] + 4 * (t * job[Job.PROJECTED_STRIDE] + first)
        gate(job[Job.Y] + 4 * (t * y_stride + first), z, width)


@inner
def recur(job: Any, thread: int, phase: int, layer: int, rates: int, own: int) -> int:
    """Convolve, run the recurrence and gate. A phase; gives the next one's number.

    rates: A, D and dt_bias, then the convolution's bias and weight, one behind the other. Threads
    whose heads share a group convolve its B and C each for themselves: that is less work than
    waiting for another.
    """
    n_threads, nheads = job[Job.N_THREADS], job[Job.NHEADS]
    while True:
        share = claim(job[Job.SHARES], thread, n_threads, phase)
        if share < 0:
            break
        first, last = nheads * share // n_threads, nheads * (share + 1) // n_threads
        if first < last:
            recur_share(job, layer, rates, own, first, last)
        finish(job[Job.SHARES], share, phase)
    wait(job[Job.SHARES], n_threads, phase)
    return phase + 1


@inlined
def work(kind: Any, job: Any, thread: int) -> None:
    """Do what there is to do of a pass; all threads call this with the same job."""
    d_model, d_inner = job[Job.D_MODEL], job[Job.D_INNER]
    stride, n_rows = job[Job.RESIDUAL_STRIDE], job[Job.PROJECTED_STRIDE]
    own = job[Job.OWN] + thread * job[Job.OWN_STRIDE]
    phase, sharing = job[Job.PHASE], 4 // job[Job.ITEM_BYTES]
    in_bytes = job[Job.ITEM_BYTES] * n_rows * up(d_model, sharing)
    out_bytes = job[Job.ITEM_BYTES] * stride * up(d_inner, sharing)
    for layer in range(job[Job.N_LAYERS]):
        small = job[Job.SMALL] + layer * job[Job.SMALL_STRIDE]
        gate_norm = small + 4 * d_model
        phase = project(
            kind,
            job,
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
        phase = recur(job, thread, phase, layer, gate_norm + 4 * d_inner, own)
        phase = project(
            kind,
            job,
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
