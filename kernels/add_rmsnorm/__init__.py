"""The residual stream between two mixers: add what the last one gave, norm for the next."""

from torch import Tensor

from kernels.add_rmsnorm import reference
from kernels.choice import use_triton

__all__ = ["add_rmsnorm"]


def add_rmsnorm(
    residual: Tensor, update: Tensor | None, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Add `update`, then normalize; arguments and results as in `reference`."""
    if use_triton(residual):
        from kernels.add_rmsnorm import triton

        return triton.add_rmsnorm(residual, update, weight, eps)
    return reference.add_rmsnorm(residual, update, weight, eps)
