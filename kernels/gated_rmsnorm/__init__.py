"""The norm between the recurrence and the output projection."""

from torch import Tensor

from kernels.choice import use_triton
from kernels.gated_rmsnorm import reference

__all__ = ["gated_rmsnorm"]


def gated_rmsnorm(y: Tensor, z: Tensor, weight: Tensor, eps: float, ngroups: int) -> Tensor:
    """Gate by SiLU(z), then normalize each group; arguments and result as in `reference`."""
    if use_triton(y):
        from kernels.gated_rmsnorm import triton

        return triton.gated_rmsnorm(y, z, weight, eps, ngroups)
    return reference.gated_rmsnorm(y, z, weight, eps, ngroups)
