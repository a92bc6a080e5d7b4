"""Residual addition and norm, written out in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from kernels import add_rmsnorm as package
from kernels.add_rmsnorm import reference
from kernels.choice import triton_forced
from tests.kernels.versions import each, needs_triton, with_triton

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from torch import Tensor

    Make = Callable[..., tuple[Tensor, Tensor, Tensor]]

VERSIONS = with_triton(reference)
versions = each(VERSIONS)


@pytest.fixture
def make(device: str) -> Make:
    """residual float32, update and weight in the dtype under test."""

    def arguments(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(sum(shape))
        residual, update, weight = (
            torch.randn(size, generator=generator) for size in (shape, shape, shape[-1:])
        )
        return 30 * residual.to(device), update.to(device, dtype), weight.to(device, dtype)

    return arguments


def oracle(
    residual: Tensor, update: Tensor | None, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    total = residual.double() if update is None else residual.double() + update.double()
    mean_square = (total**2).sum(-1, keepdim=True) / total.shape[-1]
    return total / torch.sqrt(mean_square + eps) * weight.double(), total


@versions
@pytest.mark.parametrize("with_update", [True, False], ids=["update", "no_update"])
@pytest.mark.parametrize("shape", [(1,), (24,), (1, 1, 33), (2, 3, 1000), (0, 24)], ids=str)
@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_against_the_formula(
    version: ModuleType,
    shape: tuple[int, ...],
    with_update: bool,
    eps: float,
    dtype: torch.dtype,
    make: Make,
    check: Callable[..., None],
) -> None:
    residual, some, weight = make(*shape, dtype=dtype)
    update = some if with_update else None
    before = residual.clone(), some.clone(), weight.clone()
    normed, total = version.add_rmsnorm(residual, update, weight, eps)
    expected_normed, expected_total = oracle(residual, update, weight, eps)
    check(normed, expected_normed, dtype)
    check(total, expected_total, torch.float32)
    assert (normed.dtype, total.dtype) == (dtype, torch.float32)
    assert (total is residual) == (update is None)
    normed.fill_(torch.nan)
    if with_update:
        total.fill_(torch.nan)
    assert all(torch.equal(a, b) for a, b in zip((residual, some, weight), before, strict=True))


@versions
def test_rows_of_a_wider_tensor(
    version: ModuleType,
    make: Make,
    apart: Callable[[Tensor], Tensor],
    check: Callable[..., None],
) -> None:
    residual, update, weight = make(2, 3, 40)
    found = version.add_rmsnorm(apart(residual), apart(update), weight, 1e-5)
    for tensor, expected in zip(found, oracle(residual, update, weight, 1e-5), strict=True):
        check(tensor, expected, torch.float32)


@needs_triton
def test_wrong_arguments_are_named(make: Make) -> None:
    residual, update, weight = make(4, 3, 24)
    twice, gaps = torch.cat((update, update), 1)[:, :3], torch.cat((residual, residual), -1)
    wrong = {
        r"residual is torch.bfloat16 \(4, 3, 24\), expected float32": (
            residual.bfloat16(),
            update,
            weight,
        ),
        r"update is \(3, 3, 24\), expected the shape of residual": (residual, update[1:], weight),
        r"weight is \(23,\)": (residual, update, weight[1:]),
        r"weight is \(24,\) of strides \(2,\)": (
            residual,
            update,
            weight.repeat_interleave(2)[::2],
        ),
        r"update is \(4, 3, 24\) of strides \(144, 24, 1\)": (residual, twice, weight),
        r"residual is \(4, 3, 24\) of strides \(144, 48, 2\)": (gaps[..., ::2], update, weight),
    }
    for message, arguments in wrong.items():
        with triton_forced(), pytest.raises(ValueError, match=message):
            package.add_rmsnorm(*arguments, 1e-5)
