"""The fused short pass against convolution and recurrence in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.nn import functional as F

from kernels import mixer_pass as package
from kernels.choice import triton_forced
from kernels.mixer_pass import reference
from tests.kernels.versions import each, needs_triton, with_triton

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from torch import Tensor

    from tests.kernels.conftest import Inputs

    Make = Callable[..., "Arguments"]

VERSIONS = with_triton(reference)
versions = each(VERSIONS)
UNLIMITED = (0.0, math.inf)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Of one call, by name."""

    xBC: Tensor
    dt: Tensor
    weight: Tensor
    bias: Tensor | None
    dt_bias: Tensor
    A_log: Tensor
    D: Tensor
    conv_state: Tensor
    ssm_state: Tensor
    headdim: int
    ngroups: int
    dt_limit: tuple[float, float] = UNLIMITED

    def given_to(self, version: ModuleType) -> tuple[Tensor, ...]:
        return version.mixer_pass(**vars(self))


@pytest.fixture
def make(device: str) -> Make:
    def arguments(
        *,
        batch: int = 1,
        length: int,
        nheads: int = 4,
        headdim: int = 6,
        ngroups: int = 2,
        d_state: int = 10,
        d_conv: int = 4,
        dtype: torch.dtype = torch.float32,
        **changed: Any,
    ) -> Arguments:
        generator = torch.Generator().manual_seed(length)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(device)

        conv_dim = nheads * headdim + 2 * ngroups * d_state
        made = Arguments(
            xBC=normal(batch, length, conv_dim).to(dtype),
            dt=normal(batch, length, nheads).to(dtype),
            weight=normal(conv_dim, d_conv).to(dtype),
            bias=normal(conv_dim).to(dtype),
            dt_bias=normal(nheads) - 1,
            A_log=normal(nheads) - 1,
            D=normal(nheads),
            conv_state=normal(batch, d_conv - 1, conv_dim).to(dtype),
            ssm_state=normal(batch, nheads, headdim, d_state),
            headdim=headdim,
            ngroups=ngroups,
        )
        return replace(made, **changed)

    return arguments


@pytest.fixture
def expect(
    inputs: Callable[..., Inputs], oracle: Callable[[Inputs], tuple[Tensor, Tensor]]
) -> Callable[[Arguments], tuple[Tensor, ...]]:
    """Everything in float64; what the convolution gives has the dtype of xBC, as the model's."""

    def expected(a: Arguments) -> tuple[Tensor, ...]:
        whole = torch.cat((a.conv_state, a.xBC), dim=1).double()
        bias = None if a.bias is None else a.bias.double()
        mixed = F.conv1d(
            whole.transpose(1, 2), a.weight.double()[:, None], bias, groups=whole.shape[2]
        )
        convolved = F.silu(mixed).transpose(1, 2).to(a.xBC.dtype).double()
        nheads = a.dt.shape[2]
        x = convolved[..., : nheads * a.headdim].unflatten(-1, (nheads, a.headdim))
        B, C = (
            part.unflatten(-1, (a.ngroups, -1))
            for part in convolved[..., nheads * a.headdim :].chunk(2, dim=-1)
        )
        dt = torch.log1p(torch.exp(a.dt.double() + a.dt_bias.double())).clamp(*a.dt_limit)
        A = -torch.exp(a.A_log.double())
        empty = inputs(length=0)
        y, _ = oracle(replace(empty, x=x, dt=dt, A=A, B=B, C=C, D=a.D, state=a.ssm_state))
        return y, x, B, dt

    return expected


def compare(
    version: ModuleType,
    a: Arguments,
    expect: Callable[[Arguments], tuple[Tensor, ...]],
    check: Callable[..., None],
) -> None:
    dtype = a.xBC.dtype
    found = a.given_to(version)
    for tensor, expected, kind in zip(
        found, expect(a), (dtype, dtype, dtype, torch.float32), strict=True
    ):
        check(tensor, expected, kind)
        assert tensor.dtype == kind


@versions
@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize("length", [1, 2, 3, 16])
def test_against_float64(
    version: ModuleType,
    length: int,
    with_bias: bool,
    dtype: torch.dtype,
    make: Make,
    expect: Callable[[Arguments], tuple[Tensor, ...]],
    check: Callable[..., None],
) -> None:
    a = make(length=length, nheads=2, ngroups=1, dtype=dtype)
    compare(version, a if with_bias else replace(a, bias=None), expect, check)


@versions
@pytest.mark.parametrize(
    ("batch", "nheads", "ngroups", "headdim", "d_state", "d_conv"),
    [(1, 1, 1, 1, 1, 1), (2, 3, 1, 5, 7, 2), (1, 4, 2, 33, 2, 4), (2, 2, 2, 3, 33, 4)],
)
def test_awkward_shapes(
    version: ModuleType,
    batch: int,
    nheads: int,
    ngroups: int,
    headdim: int,
    d_state: int,
    d_conv: int,
    make: Make,
    expect: Callable[[Arguments], tuple[Tensor, ...]],
    check: Callable[..., None],
) -> None:
    sizes = {"nheads": nheads, "ngroups": ngroups, "headdim": headdim, "d_state": d_state}
    compare(version, make(batch=batch, length=5, d_conv=d_conv, **sizes), expect, check)


@versions
def test_limits_of_the_step_size(
    version: ModuleType,
    make: Make,
    expect: Callable[[Arguments], tuple[Tensor, ...]],
    check: Callable[..., None],
) -> None:
    a = make(length=6, dt_limit=(0.2, 0.5))
    dt = a.given_to(version)[3]
    least, most = torch.tensor(a.dt_limit)
    assert ((dt.min(), dt.max())) == (least, most)
    compare(version, a, expect, check)


@versions
def test_tiny_steps_keep_their_digits(version: ModuleType, make: Make) -> None:
    """1 + exp(-12) has lost most digits of exp(-12)."""
    a = make(length=1)
    a = replace(a, dt=torch.full_like(a.dt, -12.0), dt_bias=torch.zeros_like(a.dt_bias))
    torch.testing.assert_close(
        a.given_to(version)[3].double(),
        torch.full_like(a.dt, math.log1p(math.exp(-12.0)), dtype=torch.float64),
        rtol=3e-6,
        atol=0.0,
    )


@versions
def test_large_steps_neither_overflow_nor_underflow(
    version: ModuleType,
    make: Make,
    expect: Callable[[Arguments], tuple[Tensor, ...]],
    check: Callable[..., None],
) -> None:
    a = make(length=7, nheads=2, ngroups=1)
    compare(version, replace(a, dt=a.dt * 60, A_log=a.A_log + 3), expect, check)


@versions
def test_inputs_are_only_read(version: ModuleType, make: Make) -> None:
    a = make(length=3, nheads=2, ngroups=1)
    before = {name: value.clone() for name, value in vars(a).items() if torch.is_tensor(value)}
    for tensor in a.given_to(version):
        tensor.fill_(torch.nan)
    for name, tensor in before.items():
        assert torch.equal(getattr(a, name), tensor), name


@versions
def test_strided_inputs(
    version: ModuleType,
    make: Make,
    apart: Callable[[Tensor], Tensor],
    expect: Callable[[Arguments], tuple[Tensor, ...]],
    check: Callable[..., None],
) -> None:
    """xBC and dt are slices of one projection, states of a cache's slot."""
    a = make(length=5, nheads=2, ngroups=1)
    loose = replace(
        a,
        xBC=apart(a.xBC),
        dt=apart(a.dt),
        conv_state=apart(a.conv_state),
        ssm_state=apart(a.ssm_state),
        weight=apart(a.weight),
    )
    for found, expected in zip(loose.given_to(version), expect(a), strict=True):
        check(found, expected, torch.float32)


@versions
def test_no_tokens(version: ModuleType, make: Make) -> None:
    y, x, B, dt = make(length=0).given_to(version)
    assert y.shape == x.shape == (1, 0, 4, 6)
    assert (B.shape, dt.shape) == ((1, 0, 2, 10), (1, 0, 4))


@needs_triton
def test_states_by_their_addresses(dtype: torch.dtype, make: Make) -> None:
    """What a captured graph does: the same arguments, other states behind them."""
    first, second = (make(length=3, headdim=8, d_state=16, dtype=dtype) for _ in range(2))
    second = replace(second, ssm_state=first.ssm_state * 2, conv_state=first.conv_state + 1)
    addresses = torch.zeros(3, dtype=torch.int64, device=first.xBC.device)
    for a in (first, second):
        addresses[1], addresses[2] = a.conv_state.data_ptr(), a.ssm_state.data_ptr()
        by_address = replace(first, conv_state=addresses[1], ssm_state=addresses[2])
        for found, expected in zip(
            by_address.given_to(VERSIONS[1]), a.given_to(VERSIONS[1]), strict=True
        ):
            assert torch.equal(found, expected)


@pytest.mark.slow
@versions
@pytest.mark.parametrize("length", [1, 8, 16])
def test_heads_of_a_real_model(
    version: ModuleType,
    length: int,
    dtype: torch.dtype,
    make: Make,
    expect: Callable[[Arguments], tuple[Tensor, ...]],
    check: Callable[..., None],
) -> None:
    a = make(length=length, nheads=8, headdim=64, d_state=128, dtype=dtype)
    compare(version, a, expect, check)


@needs_triton
def test_wrong_arguments_are_named(make: Make) -> None:
    a = make(length=3)
    address = torch.zeros((), dtype=torch.int64, device=a.xBC.device)
    wrong = {
        r"x is torch.int64 \(1, 3, 64\)": replace(a, xBC=a.xBC.long()),
        r"dt is \(1, 2, 4\), expected \(1, 3, nheads\)": replace(a, dt=a.dt[:, 1:]),
        "ngroups is 3, expected a divisor of the 4 heads": replace(a, ngroups=3),
        r"xBC has 64 channels, expected 4 · 7": replace(a, headdim=7, ngroups=4),
        r"dt_bias is \(3,\), expected \(4,\)": replace(a, dt_bias=a.dt_bias[1:]),
        r"A_log is \(3,\), expected \(4,\)": replace(a, A_log=a.A_log[1:]),
        r"D is \(3,\), expected \(4,\)": replace(a, D=a.D[1:]),
        r"weight is \(63, 4\)": replace(a, weight=a.weight[1:]),
        r"conv_state is \(1, 2, 64\), expected \(1, 3, 64\)": replace(
            a, conv_state=a.conv_state[:, 1:]
        ),
        r"ssm_state is torch.bfloat16 .*, expected float32 \(1, 4, 6, 10\)": replace(
            a, ssm_state=a.ssm_state.bfloat16()
        ),
        r"conv_state is torch.float32 .*: expected two addresses": replace(a, ssm_state=address),
        "batch 2: expected two addresses and batch 1": replace(
            make(batch=2, length=3), ssm_state=address, conv_state=address
        ),
    }
    for message, bad in wrong.items():
        with triton_forced(), pytest.raises(ValueError, match=message):
            bad.given_to(package)
    with pytest.raises(ValueError, match="xBC has 17 tokens, expected at most 16"):
        make(length=17).given_to(VERSIONS[1])


def test_a_run_too_long_for_one_tile_goes_through_torch(make: Make) -> None:
    a = make(length=17)
    with triton_forced():
        found = a.given_to(package)
    for tensor, expected in zip(found, a.given_to(reference), strict=True):
        assert torch.equal(tensor, expected)
