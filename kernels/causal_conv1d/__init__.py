"""Depthwise causal convolution with carried state."""

from torch import Tensor

from kernels.causal_conv1d import reference
from kernels.choice import use_triton

__all__ = ["causal_conv1d"]


def causal_conv1d(
    x: Tensor, weight: Tensor, bias: Tensor | None, conv_state: Tensor
) -> tuple[Tensor, Tensor]:
    """Convolve `x` over time and apply SiLU; arguments and results as in `reference`."""
    if use_triton(x):
        from kernels.causal_conv1d import triton

        return triton.causal_conv1d(x, weight, bias, conv_state)
    return reference.causal_conv1d(x, weight, bias, conv_state)
