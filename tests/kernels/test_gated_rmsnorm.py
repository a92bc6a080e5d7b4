"""The grouped norm, written out group by group in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from kernels.gated_rmsnorm import gated_rmsnorm

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def make(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    y, z = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    # Groups of very different size: a norm over all channels would be far off.
    y = y * torch.logspace(-2, 2, shape[-1]).to(dtype)
    return y, z, torch.randn(shape[-1], generator=generator).to(dtype)


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


@pytest.mark.parametrize("ngroups", [1, 2, 8, 24])
@pytest.mark.parametrize("shape", [(24,), (1, 1, 24), (3, 7, 24), (0, 24)], ids=str)
@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_against_the_formula(
    shape: tuple[int, ...],
    ngroups: int,
    eps: float,
    dtype: torch.dtype,
    check: Callable[..., None],
) -> None:
    y, z, weight = make(*shape, dtype=dtype)
    before = y.clone(), z.clone(), weight.clone()
    found = gated_rmsnorm(y, z, weight, eps, ngroups)
    check(found, oracle(y, z, weight, eps, ngroups), dtype)
    assert found.dtype == dtype
    found.fill_(torch.nan)
    assert all(torch.equal(a, b) for a, b in zip((y, z, weight), before, strict=True))


def test_sums_are_float32(check: Callable[..., None]) -> None:
    """4096 squares added up in bfloat16 would stop growing at 256."""
    y = torch.ones(4096, dtype=torch.bfloat16)
    found = gated_rmsnorm(y, y, y, 1e-5, 1)
    check(found, oracle(y, y, y, 1e-5, 1), torch.bfloat16)


def test_gate_comes_first() -> None:
    """Closing all but one channel leaves that one at the square root of the group's width."""
    y, z, weight = torch.ones(16), torch.full((16,), -100.0), torch.ones(16)
    z[3] = 100.0
    found = gated_rmsnorm(y, z, weight, 1e-5, 1)
    assert found[3].item() == pytest.approx(4.0)
