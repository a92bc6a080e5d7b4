"""The convolution with carried state against torch's own over the whole sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch.nn import functional as F

from kernels import causal_conv1d as package
from kernels.causal_conv1d import reference
from kernels.choice import triton_forced
from tests.kernels.versions import each, needs_triton, with_triton

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from torch import Tensor

    Make = Callable[..., tuple[Tensor, Tensor, Tensor | None, Tensor]]

VERSIONS = with_triton(reference)
versions = each(VERSIONS)


@pytest.fixture
def make(device: str) -> Make:
    """x, weight, bias and conv_state for 2 sequences of 5 channels, or more."""

    def arguments(
        length: int,
        d_conv: int,
        *,
        with_bias: bool = True,
        dtype: torch.dtype = torch.float32,
        channels: int = 5,
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        generator = torch.Generator().manual_seed(length)
        shapes = ((2, length, channels), (channels, d_conv), (channels,), (2, d_conv - 1, channels))
        x, weight, bias, state = (
            torch.randn(s, generator=generator).to(device, dtype) for s in shapes
        )
        return x, weight, bias if with_bias else None, state

    return arguments


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


@versions
@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize("d_conv", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 3, 4, 65])
def test_against_torch(
    version: ModuleType,
    length: int,
    d_conv: int,
    with_bias: bool,
    dtype: torch.dtype,
    make: Make,
    check: Callable[..., None],
) -> None:
    arguments = make(length, d_conv, with_bias=with_bias, dtype=dtype)
    y, state = version.causal_conv1d(*arguments)
    expected_y, expected_state = oracle(*arguments)
    check(y, expected_y, dtype)
    assert torch.equal(state.double(), expected_state)
    assert (y.dtype, state.dtype) == (dtype, dtype)


@versions
def test_channels_of_several_programs(
    version: ModuleType, make: Make, check: Callable[..., None]
) -> None:
    arguments = make(3, 4, channels=131)
    y, state = version.causal_conv1d(*arguments)
    expected_y, expected_state = oracle(*arguments)
    check(y, expected_y, torch.float32)
    assert torch.equal(state.double(), expected_state)


@pytest.mark.slow
@versions
@pytest.mark.parametrize("length", [16, 130])
def test_model_sized(
    version: ModuleType,
    length: int,
    dtype: torch.dtype,
    make: Make,
    check: Callable[..., None],
) -> None:
    arguments = make(length, 4, dtype=dtype, channels=320)
    y, state = version.causal_conv1d(*arguments)
    expected_y, expected_state = oracle(*arguments)
    check(y, expected_y, dtype)
    assert torch.equal(state.double(), expected_state)


@versions
@pytest.mark.parametrize("split", [0, 1, 4, 7])
def test_state_carries_over(version: ModuleType, split: int, make: Make) -> None:
    x, weight, bias, state = make(7, 4)
    expected_y, expected_state = version.causal_conv1d(x, weight, bias, state)
    first, middle = version.causal_conv1d(x[:, :split], weight, bias, state)
    second, last = version.causal_conv1d(x[:, split:], weight, bias, middle)
    torch.testing.assert_close(torch.cat((first, second), dim=1), expected_y)
    assert torch.equal(last, expected_state)


@versions
def test_state_in_another_dtype_passes_through_that_of_the_input(
    version: ModuleType, make: Make, check: Callable[..., None]
) -> None:
    x, weight, bias, state = make(2, 4)
    x = x.bfloat16()
    y, after = version.causal_conv1d(x, weight, bias, state)
    expected_y, expected_after = oracle(x, weight, bias, state.bfloat16())
    check(y, expected_y, torch.bfloat16)
    assert torch.equal(after.double(), expected_after)
    assert after.dtype == torch.float32


@versions
def test_no_tokens(version: ModuleType, make: Make) -> None:
    x, weight, bias, state = make(0, 4)
    y, after = version.causal_conv1d(x, weight, bias, state)
    assert y.shape == (2, 0, 5)
    assert torch.equal(after, state)
    assert after.data_ptr() != state.data_ptr()


@versions
def test_inputs_are_only_read(version: ModuleType, make: Make) -> None:
    arguments = make(3, 4)
    before = [None if t is None else t.clone() for t in arguments]
    y, state = version.causal_conv1d(*arguments)
    y.fill_(torch.nan)
    state.fill_(torch.nan)
    for found, expected in zip(arguments, before, strict=True):
        assert found is not None
        assert expected is not None
        assert torch.equal(found, expected)


@versions
def test_strided_input(
    version: ModuleType,
    make: Make,
    apart: Callable[[Tensor], Tensor],
    check: Callable[..., None],
) -> None:
    """The model hands in a slice of its projection."""
    x, weight, bias, state = make(6, 4)
    for loose in (apart(x), x.transpose(1, 2).contiguous().transpose(1, 2)):
        assert not loose.is_contiguous()
        y, after = version.causal_conv1d(loose, weight, bias, apart(state))
        expected_y, expected_state = oracle(x, weight, bias, state)
        check(y, expected_y, torch.float32)
        assert torch.equal(after.double(), expected_state)


@needs_triton
def test_wrong_arguments_are_named(make: Make) -> None:
    x, weight, bias, state = make(3, 4)
    assert bias is not None
    wrong = {
        r"x is torch.float32 \(3, 5\)": (x[0], weight, bias, state),
        "x is torch.int64": (x.long(), weight, bias, state),
        r"weight is \(4, 4\), expected \(5, d_conv\)": (x, weight[1:], bias, state),
        r"bias is \(3,\) of strides \(2,\)": (x, weight, bias[::2], state),
        r"conv_state is \(2, 2, 5\), expected \(2, 3, 5\)": (x, weight, bias, state[:, 1:]),
    }
    for message, arguments in wrong.items():
        with triton_forced(), pytest.raises(ValueError, match=message):
            package.causal_conv1d(*arguments)


@needs_triton
def test_the_public_one_picks(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = make(2, 4)
    if arguments[0].is_cuda:
        monkeypatch.setattr(reference, "causal_conv1d", None)
        package.causal_conv1d(*arguments)
        return
    monkeypatch.setattr(VERSIONS[1], "causal_conv1d", None)
    package.causal_conv1d(*arguments)
    with triton_forced(), pytest.raises(TypeError):
        package.causal_conv1d(*arguments)
