"""Depthwise causal convolution with carried state."""

from kernels.causal_conv1d.reference import causal_conv1d

__all__ = ["causal_conv1d"]
