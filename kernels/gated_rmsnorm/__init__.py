"""The norm between the recurrence and the output projection."""

from kernels.gated_rmsnorm.reference import gated_rmsnorm

__all__ = ["gated_rmsnorm"]
