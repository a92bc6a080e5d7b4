"""The convolution with carried state against torch's own over the whole sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch.nn import functional as F

from kernels.causal_conv1d import causal_conv1d

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def make(
    length: int, d_conv: int, *, with_bias: bool = True, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """x, weight, bias and conv_state for 2 sequences of 5 channels."""
    generator = torch.Generator().manual_seed(length)
    shapes = ((2, length, 5), (5, d_conv), (5,), (2, d_conv - 1, 5))
    x, weight, bias, state = (torch.randn(s, generator=generator).to(dtype) for s in shapes)
    return x, weight, bias if with_bias else None, state


def oracle(x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    """float64, from torch's grouped convolution over state and input together."""
    whole = torch.cat((state, x), dim=1).double()
    y = F.conv1d(
        whole.transpose(1, 2),
        weight.double()[:, None],
        None if bias is None else bias.double(),
        groups=x.shape[2],
    )
    return F.silu(y).transpose(1, 2), whole[:, whole.shape[1] - state.shape[1] :]


@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize("d_conv", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 65])
def test_against_torch(
    length: int, d_conv: int, with_bias: bool, dtype: torch.dtype, check: Callable[..., None]
) -> None:
    arguments = make(length, d_conv, with_bias=with_bias, dtype=dtype)
    y, state = causal_conv1d(*arguments)
    expected_y, expected_state = oracle(*arguments)
    check(y, expected_y, dtype)
    assert torch.equal(state.double(), expected_state)
    assert (y.dtype, state.dtype) == (dtype, dtype)


@pytest.mark.parametrize("split", range(8))
def test_state_carries_over(split: int) -> None:
    x, weight, bias, state = make(7, 4)
    expected_y, expected_state = causal_conv1d(x, weight, bias, state)
    first, middle = causal_conv1d(x[:, :split], weight, bias, state)
    second, last = causal_conv1d(x[:, split:], weight, bias, middle)
    torch.testing.assert_close(torch.cat((first, second), dim=1), expected_y)
    assert torch.equal(last, expected_state)


def test_no_tokens() -> None:
    x, weight, bias, state = make(0, 4)
    y, after = causal_conv1d(x, weight, bias, state)
    assert y.shape == (2, 0, 5)
    assert torch.equal(after, state)


def test_inputs_are_only_read() -> None:
    arguments = make(3, 4)
    before = [None if t is None else t.clone() for t in arguments]
    y, state = causal_conv1d(*arguments)
    y.fill_(torch.nan)
    state.fill_(torch.nan)
    for found, expected in zip(arguments, before, strict=True):
        assert found is not None
        assert expected is not None
        assert torch.equal(found, expected)


def test_strided_input(check: Callable[..., None]) -> None:
    """The model hands in a slice of its projection."""
    x, weight, bias, state = make(6, 4)
    wide = torch.full((2, 6, 9), torch.nan)
    wide[..., 2:7] = x
    y, after = causal_conv1d(wide[..., 2:7], weight, bias, state)
    expected_y, expected_state = oracle(x, weight, bias, state)
    check(y, expected_y, torch.float32)
    assert torch.equal(after.double(), expected_state)
