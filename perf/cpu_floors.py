"""What a CPU can do at most: how fast it reads memory and multiplies."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import numba
import numpy as np

from kernels.cpu_pass.layer import ADD, NONE, UNIT, ZERO, product
from kernels.cpu_pass.vectors import GROUP

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

# Of the products that are timed: so small that all of it stays in the first cache.
K, N_INPUTS = 64, 16


@numba.njit(nogil=True, fastmath=True)
def _sum(values: NDArray[np.float32], n_times: int) -> np.float32:
    total = np.float32(0)
    for _ in range(n_times):
        for i in range(values.size):
            total += values[i]
    return total


@numba.njit(nogil=True)
def _multiply(rows: int, x: int, out: int, n_times: int) -> None:
    for _ in range(n_times):
        product(ZERO, rows, NONE, UNIT, NONE, K, x, 4 * K, out, GROUP, N_INPUTS, ADD)


def read_bandwidth(n_bytes: int, n_threads: int, n_times: int = 50) -> float:
    """Give the bytes a second at which threads read the same `n_bytes` again and again.

    Each thread sums float32 in its own share: no computation on values of memory is faster.
    """
    size = n_bytes // n_threads // 4 // 64 * 64
    parts = [np.ones(size, np.float32) for _ in range(n_threads)]
    _together_s(lambda number: _sum(parts[number], 2), n_threads)
    seconds = _together_s(lambda number: _sum(parts[number], n_times), n_threads)
    return n_times * sum(part.nbytes for part in parts) / seconds


def product_flops(n_threads: int, n_times: int = 20_000) -> float:
    """Give the operations a second of float32 products whose numbers are all in the cache."""
    sizes = (GROUP * K, N_INPUTS * K, N_INPUTS * GROUP)
    parts = [[np.zeros(size, np.float32) for size in sizes] for _ in range(n_threads)]

    def multiply(number: int) -> None:
        rows, x, out = (part.ctypes.data for part in parts[number])
        _multiply(rows, x, out, n_times)

    seconds = min(_together_s(multiply, n_threads) for _ in range(5))
    return 2 * GROUP * K * N_INPUTS * n_times * n_threads / seconds


def _together_s(work: Callable[[int], object], n_threads: int) -> float:
    """Give the seconds that threads take which begin together."""
    begin = threading.Barrier(n_threads)
    starts, ends = [0.0] * n_threads, [0.0] * n_threads

    def run(number: int) -> None:
        begin.wait()
        starts[number] = time.perf_counter()
        work(number)
        ends[number] = time.perf_counter()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max(ends) - min(starts)
