"""The Mamba-2 recurrence over a long run of tokens (state space duality, arXiv 2405.21060)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernels.choice import use_triton
from kernels.ssd_chunk_scan import chunked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["ssd_chunk_scan"]


def ssd_chunk_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor,
    chunk_size: int = 64,
    *,
    state_positions: Sequence[int] = (),
    sequence_starts: Sequence[int] = (),
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the recurrence over l tokens; arguments and results as in `reference`."""
    scan = chunked.ssd_chunk_scan
    if use_triton(x):
        from kernels.ssd_chunk_scan import triton

        scan = triton.ssd_chunk_scan
    return scan(
        x,
        dt,
        A,
        B,
        C,
        D,
        initial_state,
        chunk_size,
        state_positions=state_positions,
        sequence_starts=sequence_starts,
    )
