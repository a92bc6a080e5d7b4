"""Short passes on a GPU as CUDA graphs: captured once for each number of rows, then replayed.

A pass through 64 layers is more than 300 kernels, and most of them take longer to launch from
Python than to run. A replay launches all of them at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from engine.state import RecurrentState

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from engine.config import Mamba2Config
    from engine.mamba2 import Pass

# Longer runs are not captured. Shorter ones than a row count are filled up to it.
ROW_COUNTS = (1, 2, 4, 8, 16)
# Before a capture: what is compiled or chosen at a kernel's first run cannot be captured.
N_WARM_UPS = 2


def n_rows(n_tokens: int) -> int:
    """Give the rows that a run of 1 to 16 tokens is read with."""
    return next(rows for rows in ROW_COUNTS if rows >= n_tokens)


class StateAddresses:
    """Where the layers of a base state lie, as tensors: a graph reads what they point at."""

    def __init__(self, config: Mamba2Config, dtype: torch.dtype, device: torch.device) -> None:
        """Point nowhere yet, for a model of these sizes."""
        self._expected = RecurrentState.zeros(config, dtype=dtype, device="meta")
        self._offsets, addresses = [], []
        for tensor in self._expected.tensors:
            layer_bytes = tensor[0].nbytes
            layers = torch.arange(config.n_layers, dtype=torch.int64, device=device)
            self._offsets.append(layers * layer_bytes)
            addresses.append(torch.zeros_like(layers))
        # Each (n_layers,) int64: what Mamba2 takes as a base, layer by layer.
        self.state = RecurrentState(*addresses)

    def point(self, base: RecurrentState) -> None:
        """Point at a state of batch 1; it must be kept until what reads it has been enqueued.

        Raises ValueError for a state of another shape, dtype or layout.
        """
        for tensor, expected, offsets, addresses in zip(
            base.tensors, self._expected.tensors, self._offsets, self.state.tensors, strict=True
        ):
            fits = (tensor.shape, tensor.dtype) == (expected.shape, expected.dtype)
            if not (fits and tensor.is_contiguous() and tensor.device == addresses.device):
                raise ValueError(
                    f"the state is {tensor.dtype} {tuple(tensor.shape)} of strides"
                    f" {tensor.stride()} on {tensor.device}, expected {expected.dtype}"
                    f" {tuple(expected.shape)} without gaps on {addresses.device}"
                )
            torch.add(offsets, tensor.data_ptr(), out=addresses)


@dataclass(frozen=True, eq=False)
class Captured:
    """One row count: the graph, and the memory that it reads from and writes to."""

    graph: torch.cuda.CUDAGraph
    tokens: Tensor
    result: Pass


class PassGraphs:
    """A model's passes over 1 to 16 tokens, replayed. Used by one thread alone.

    Each row count is captured when it is first asked for.
    """

    def __init__(
        self,
        read: Callable[[Tensor, RecurrentState], Pass],
        config: Mamba2Config,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Capture `read`, a model's pass layer by layer; its weights must stay where they are."""
        self._read = read
        self._addresses = StateAddresses(config, dtype, device)
        self._captured: dict[int, Captured] = {}
        # Replays follow one another, so all graphs share their memory.
        self._pool = torch.cuda.graph_pool_handle()

    @torch.inference_mode()
    def __call__(self, tokens: Tensor, base: RecurrentState) -> Pass:
        """Read tokens (l,) from `base` (batch 1), which is only read; waits for nothing."""
        self._addresses.point(base)
        rows = n_rows(len(tokens))
        if rows not in self._captured:
            self._captured[rows] = self._capture(rows)
        captured = self._captured[rows]
        # What stands behind them from before is read after them, and left out of the result.
        captured.tokens[: len(tokens)].copy_(tokens)
        captured.graph.replay()
        return captured.result.first(len(tokens), base)

    def _capture(self, rows: int) -> Captured:
        base = self._addresses.state
        tokens = torch.zeros(rows, dtype=torch.long, device=base.ssm_state.device)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(N_WARM_UPS):
                self._read(tokens, base)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            result = self._read(tokens, base)
        return Captured(graph, tokens, result)
