"""A whole short pass as one function, which numba compiles for the CPU at hand."""

from __future__ import annotations

import zlib
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba

from kernels.cpu_pass.decorators import inlined
from kernels.cpu_pass.job import Job
from kernels.cpu_pass.layer import copy
from kernels.cpu_pass.phases import work
from kernels.cpu_pass.sharing import Shared, load, pause, store
from kernels.cpu_pass.vectors import LANES, TILE_TOKENS, integers_at

if TYPE_CHECKING:
    from collections.abc import Callable

log = getLogger(__name__)

N_FIELDS = len(Job)


@inlined
def publish(shared: int, job: Any) -> None:
    """Begin the residual stream with the embeddings, and let all threads know of the job."""
    d_model = job[Job.D_MODEL]
    tokens = integers_at(job[Job.TOKENS])
    for t in range(job[Job.N_TOKENS]):
        row = job[Job.EMBEDDINGS] + 4 * tokens[t] * d_model
        copy(row, job[Job.RESIDUAL] + 4 * t * job[Job.RESIDUAL_STRIDE], d_model)
    job[Job.PHASE] = load(job[Job.SHARES]) // 2
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
            work(kind, job, thread)
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
