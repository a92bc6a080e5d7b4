"""The grouped norm, written out group by group in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from kernels import gated_rmsnorm as package
from kernels.choice import triton_forced
from kernels.gated_rmsnorm import reference
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
    def arguments(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(sum(shape))
        y, z = (torch.randn(shape, generator=generator) for _ in range(2))
        # Groups of very different size: a norm over all channels would be far off.
        y = y * torch.logspace(-2, 2, shape[-1])
        weight = torch.randn(shape[-1], generator=generator)
        return y.to(device, dtype), z.to(device, dtype), weight.to(device, dtype)

    return arguments


def oracle(y: Tensor, z: Tensor, weight: Tensor, eps: float, ngroups: int) -> Tensor:
    y, z, weight = y.double(), z.double(), weight.double()
    gated = y * z / (1 + torch.exp(-z))
    width = y.shape[-1] // ngroups
    parts = []
    for start in range(0, y.shape[-1], width):
        group = gated[..., start : start + width]
        mean_square = (group**2).sum(-1, keepdim=True) / width
        parts.append(group / torch.sqrt(mean_square + eps) * weight[start : start + width])
    return torch.cat(parts, dim=-1)


@versions
@pytest.mark.parametrize("ngroups", [1, 2, 12])
@pytest.mark.parametrize("shape", [(24,), (1, 1, 24), (2, 3, 24), (0, 24)], ids=str)
@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_against_the_formula(
    version: ModuleType,
    shape: tuple[int, ...],
    ngroups: int,
    eps: float,
    dtype: torch.dtype,
    make: Make,
    check: Callable[..., None],
) -> None:
    y, z, weight = make(*shape, dtype=dtype)
    before = y.clone(), z.clone(), weight.clone()
    found = version.gated_rmsnorm(y, z, weight, eps, ngroups)
    check(found, oracle(y, z, weight, eps, ngroups), dtype)
    assert found.dtype == dtype
    found.fill_(torch.nan)
    assert all(torch.equal(a, b) for a, b in zip((y, z, weight), before, strict=True))


@versions
@pytest.mark.parametrize(("width", "ngroups"), [(160, 2), (3000, 3)])
def test_rows_of_a_wider_tensor(
    version: ModuleType,
    width: int,
    ngroups: int,
    make: Make,
    apart: Callable[[Tensor], Tensor],
    check: Callable[..., None],
) -> None:
    y, z, weight = make(2, 3, width)
    found = version.gated_rmsnorm(apart(y), apart(z), weight, 1e-5, ngroups)
    check(found, oracle(y, z, weight, 1e-5, ngroups), torch.float32)
    assert found.is_contiguous()


@versions
def test_sums_are_float32(version: ModuleType, device: str, check: Callable[..., None]) -> None:
    """4096 squares added up in bfloat16 would stop growing at 256."""
    y = torch.ones(4096, dtype=torch.bfloat16, device=device)
    found = version.gated_rmsnorm(y, y, y, 1e-5, 1)
    check(found, oracle(y, y, y, 1e-5, 1), torch.bfloat16)


@versions
def test_gate_comes_first(version: ModuleType, device: str) -> None:
    """Closing all but one channel leaves that one at the square root of the group's width."""
    y, z = torch.ones(16, device=device), torch.full((16,), -100.0, device=device)
    z[3] = 100.0
    found = version.gated_rmsnorm(y, z, torch.ones_like(y), 1e-5, 1)
    assert found[3].item() == pytest.approx(4.0)


@needs_triton
def test_wrong_arguments_are_named(make: Make) -> None:
    y, z, weight = make(4, 3, 24)
    twice, gaps = torch.cat((y, y), 1)[:, :3], torch.cat((z, z), -1)[..., ::2]
    wrong = {
        r"z is \(3, 3, 24\), expected the shape of y, \(4, 3, 24\)": (y, z[1:], weight, 2),
        r"weight is \(23,\)": (y, z, weight[1:], 2),
        "ngroups is 5, expected a divisor of d_inner = 24": (y, z, weight, 5),
        r"y is \(4, 3, 24\) of strides \(144, 24, 1\)": (twice, z, weight, 2),
        r"z is \(4, 3, 24\) of strides \(144, 48, 2\)": (y, gaps, weight, 2),
    }
    for message, (bad_y, bad_z, bad_weight, ngroups) in wrong.items():
        with triton_forced(), pytest.raises(ValueError, match=message):
            package.gated_rmsnorm(bad_y, bad_z, bad_weight, 1e-5, ngroups)
