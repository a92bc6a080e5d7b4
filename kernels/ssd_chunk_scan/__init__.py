"""The Mamba-2 recurrence over a long run of tokens (state space duality, arXiv 2405.21060)."""

from kernels.ssd_chunk_scan.chunked import ssd_chunk_scan

__all__ = ["ssd_chunk_scan"]
