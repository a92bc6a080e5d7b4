"""What a device can do at most, and how long calls take on it."""

from __future__ import annotations

import importlib.metadata
import math
import platform
import statistics
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# So many calls at least between two time stamps, whose resolution is half a microsecond.
MIN_CALLS = 16
# Inputs in turn must be this many times the L2 cache, or they would be read out of it.
L2_ROTATIONS = 3
MAX_COPIES = 32
ASSUMED_L2_BYTES = 2**25


@dataclass(frozen=True, kw_only=True)
class Floors:
    """What nothing can be faster than: measured, not from a data sheet."""

    bandwidth_bytes_s: float
    bf16_flops_s: float

    def seconds(self, n_bytes: float, n_flops: float = 0.0) -> float:
        """Give the time that moving so many bytes and so many operations take at least."""
        return max(n_bytes / self.bandwidth_bytes_s, n_flops / self.bf16_flops_s)

    @classmethod
    def measure(cls, device: torch.device, *, copy_bytes: int = 2**31, width: int = 8192) -> Floors:
        """Time copies within the device (bytes read and written) and bfloat16 products."""
        pairs = [
            [torch.randint(0, 256, (copy_bytes,), dtype=torch.uint8, device=device) for _ in "ab"]
            for _ in range(2)
        ]
        copies = [partial(a.copy_, b) for a, b in pairs]
        copy_s = measure_s(copies, device)
        del pairs, copies
        a, b = (torch.randn(width, width, device=device, dtype=torch.bfloat16) for _ in "ab")
        product_s = measure_s([partial(torch.matmul, a, b)], device)
        return cls(bandwidth_bytes_s=2 * copy_bytes / copy_s, bf16_flops_s=2 * width**3 / product_s)


def n_copies(n_bytes: int, device: torch.device) -> int:
    """Give how many sets of inputs of that size must take turns."""
    l2_bytes = ASSUMED_L2_BYTES
    if device.type == "cuda":
        l2_bytes = torch.cuda.get_device_properties(device).L2_cache_size
    return max(2, min(MAX_COPIES, math.ceil(L2_ROTATIONS * l2_bytes / max(1, n_bytes))))


def measure_s(
    calls: Sequence[Callable[[], object]], device: torch.device, *, repeats: int = 15
) -> float:
    """Give the median seconds of a call; `calls` do the same to different memory, in turn.

    On a GPU they are replayed as a graph, so that what it takes to launch them does not count.
    """
    calls = list(calls) * math.ceil(MIN_CALLS / len(calls))
    if device.type != "cuda":
        return statistics.median(_timed(calls) for _ in range(min(3, repeats))) / len(calls)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        # What compiles or chooses at its first run cannot be captured.
        for call in calls:
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    graph.replay()
    stamps = [[torch.cuda.Event(enable_timing=True) for _ in "ab"] for _ in range(repeats)]
    for before, after in stamps:
        before.record()
        graph.replay()
        after.record()
    torch.cuda.synchronize()
    return 1e-3 * statistics.median(a.elapsed_time(b) for a, b in stamps) / len(calls)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def describe(device: torch.device) -> dict[str, Any]:
    """Give the device's name and the versions that figures depend on."""
    try:
        triton = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        triton = "none"
    found: dict[str, Any] = {
        "device": platform.processor() or "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton,
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "device": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
        }
    return found


def _timed(calls: Sequence[Callable[[], object]]) -> float:
    started = time.perf_counter()
    for call in calls:
        call()
    return time.perf_counter() - started
