"""What a Mamba-2 mixer does to a short run between its two projections, up to the gate."""

from torch import Tensor

from kernels.choice import use_triton
from kernels.mixer_pass import reference
from kernels.ssm_pass import MAX_TOKENS

__all__ = ["mixer_pass"]


def mixer_pass(
    xBC: Tensor,
    dt: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    conv_state: Tensor,
    ssm_state: Tensor,
    *,
    headdim: int,
    ngroups: int,
    dt_limit: tuple[float, float],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Give outputs and what the recurrence took in; arguments and results as in `reference`."""
    arguments = (xBC, dt, weight, bias, dt_bias, A_log, D, conv_state, ssm_state)
    if use_triton(xBC) and xBC.shape[1] <= MAX_TOKENS:
        from kernels.mixer_pass import triton

        return triton.mixer_pass(*arguments, headdim=headdim, ngroups=ngroups, dt_limit=dt_limit)
    return reference.mixer_pass(*arguments, headdim=headdim, ngroups=ngroups, dt_limit=dt_limit)
