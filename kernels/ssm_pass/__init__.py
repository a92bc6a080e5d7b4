"""A short run of tokens read from a state that stays as it is, and the state after n of them."""

from torch import Tensor

from kernels.choice import use_triton
from kernels.ssm_pass import parallel

__all__ = ["MAX_TOKENS", "ssm_commit", "ssm_pass"]

# The longest run that fits one tile of a GPU kernel.
MAX_TOKENS = 16


def ssm_pass(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, ssm_state: Tensor
) -> Tensor:
    """Give the outputs of l tokens that follow `ssm_state`; arguments as in `reference`."""
    if use_triton(x) and x.shape[1] <= MAX_TOKENS:
        from kernels.ssm_pass import triton

        return triton.ssm_pass(x, dt, A, B, C, D, ssm_state)
    return parallel.ssm_pass(x, dt, A, B, C, D, ssm_state)


def ssm_commit(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, ssm_state: Tensor, n: int) -> Tensor:
    """Give the state after the first n of l tokens; arguments as in `reference`."""
    if use_triton(x):
        from kernels.ssm_pass import triton

        return triton.ssm_commit(x, dt, A, B, ssm_state, n)
    return parallel.ssm_commit(x, dt, A, B, ssm_state, n)
