"""What a CPU can do at most: how fast it reads memory and multiplies."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import numba
import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray


@numba.njit(nogil=True, fastmath=True)
def _sum(values: NDArray[np.float32], n_times: int) -> np.float32:
    total = np.float32(0)
    for _ in range(n_times):
        for i in range(values.size):
            total += values[i]
    return total


def read_bandwidth(n_bytes: int, n_threads: int, n_times: int = 50) -> float:
    """Give the bytes a second at which threads read the same `n_bytes` again and again.

    Each thread sums float32 in its own share: nothing else is done, so that no computation on
    values of memory is faster.
    """
    parts = [np.ones(n_bytes // n_threads // 4 // 64 * 64, np.float32) for _ in range(n_threads)]
    begin = threading.Barrier(n_threads)
    ends = [0.0] * n_threads
    starts = [0.0] * n_threads

    def read(number: int) -> None:
        _sum(parts[number], 2)
        begin.wait()
        starts[number] = time.perf_counter()
        _sum(parts[number], n_times)
        ends[number] = time.perf_counter()

    threads = [threading.Thread(target=read, args=(i,)) for i in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return n_times * sum(part.nbytes for part in parts) / (max(ends) - min(starts))


def product_flops(n_threads: int, width: int = 1024) -> float:
    """Give the operations a second of a float32 matrix product."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    a, b = torch.randn(2, width, width)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - started)
    torch.set_num_threads(before)
    return 2 * width**3 / min(seconds)
