"""Pass and commit, each version, against the unrolled sum."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from kernels import ssm_pass as package
from kernels.ssm_pass import parallel, reference

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from torch import Tensor

    from tests.kernels.conftest import Inputs

versions = pytest.mark.parametrize("version", [reference, parallel], ids=["reference", "parallel"])
SHAPES = [(1, 1, 1, 1, 1), (3, 6, 1, 5, 7), (1, 6, 3, 16, 2), (2, 8, 8, 3, 33)]


def read(version: ModuleType, i: Inputs) -> Tensor:
    return version.ssm_pass(i.x, i.dt, i.A, i.B, i.C, i.D, i.state)


def commit(version: ModuleType, i: Inputs, n: int) -> Tensor:
    return version.ssm_commit(i.x, i.dt, i.A, i.B, i.state, n)


def test_the_fast_ones_are_used() -> None:
    assert package.ssm_pass is parallel.ssm_pass
    assert package.ssm_commit is parallel.ssm_commit


@versions
@pytest.mark.parametrize("with_D", [True, False], ids=["D", "no_D"])
@pytest.mark.parametrize("length", [1, 2, 3, 8, 17, 33])
def test_pass(
    version: ModuleType,
    length: int,
    with_D: bool,
    dtype: torch.dtype,
    inputs: Callable[..., Inputs],
    oracle: Callable[[Inputs], tuple[Tensor, Tensor]],
    check: Callable[..., None],
) -> None:
    i = inputs(length=length, with_D=with_D, dtype=dtype)
    y = read(version, i)
    check(y, oracle(i)[0], dtype)
    assert y.dtype == dtype


@versions
@pytest.mark.parametrize("length", [1, 2, 9])
def test_commit_of_every_length(
    version: ModuleType,
    length: int,
    dtype: torch.dtype,
    inputs: Callable[..., Inputs],
    oracle: Callable[[Inputs], tuple[Tensor, Tensor]],
    check: Callable[..., None],
) -> None:
    i = inputs(length=length, dtype=dtype)
    for n in range(length + 1):
        state = commit(version, i, n)
        check(state, oracle(i.tokens(0, n))[1], torch.float32)
        assert state.dtype == torch.float32


@versions
@pytest.mark.parametrize(("batch", "nheads", "ngroups", "headdim", "d_state"), SHAPES)
def test_awkward_shapes(
    version: ModuleType,
    batch: int,
    nheads: int,
    ngroups: int,
    headdim: int,
    d_state: int,
    inputs: Callable[..., Inputs],
    oracle: Callable[[Inputs], tuple[Tensor, Tensor]],
    check: Callable[..., None],
) -> None:
    sizes = {"nheads": nheads, "ngroups": ngroups, "headdim": headdim, "d_state": d_state}
    for length in (1, 5):
        i = inputs(batch=batch, length=length, **sizes)
        y, state = oracle(i)
        check(read(version, i), y, torch.float32)
        check(commit(version, i, length), state, torch.float32)


@versions
def test_tokens_after_n_leave_no_trace(version: ModuleType, inputs: Callable[..., Inputs]) -> None:
    i = inputs(length=8)
    expected = commit(version, i, 3)
    for name in ("x", "dt", "B"):
        getattr(i, name)[:, 3:] = torch.nan
    assert torch.equal(commit(version, i, 3), expected)


@versions
def test_commit_with_the_decay_rates_of_every_layer(
    version: ModuleType,
    inputs: Callable[..., Inputs],
    oracle: Callable[[Inputs], tuple[Tensor, Tensor]],
    check: Callable[..., None],
) -> None:
    i = inputs(batch=3, length=6)
    rates = torch.stack((i.A, i.A * 3, i.A / 3))
    state = commit(version, replace(i, A=rates), 5)
    for row, rate in enumerate(rates):
        check(state[row], oracle(replace(i, A=rate).tokens(0, 5))[1][row], torch.float32)


@versions
def test_base_state_is_only_read(version: ModuleType, inputs: Callable[..., Inputs]) -> None:
    for length in (1, 7):
        i = inputs(length=length)
        before = i.clone()
        read(version, i).fill_(torch.nan)
        for n in range(length + 1):
            commit(version, i, n).fill_(torch.nan)
        for name, tensor in vars(before).items():
            assert torch.equal(getattr(i, name), tensor), name


@versions
def test_strided_inputs(
    version: ModuleType,
    inputs: Callable[..., Inputs],
    oracle: Callable[[Inputs], tuple[Tensor, Tensor]],
    check: Callable[..., None],
) -> None:
    i = inputs(length=6)
    wide = torch.full((2, 6, 40), torch.nan)
    wide[..., :24], wide[..., 24:28] = i.x.flatten(2), i.dt
    loose = replace(
        i,
        x=wide[..., :24].unflatten(-1, (4, 6)),
        dt=wide[..., 24:28],
        B=i.B.transpose(1, 2).contiguous().transpose(1, 2),
        state=i.state.transpose(2, 3).contiguous().transpose(2, 3),
    )
    y, state = oracle(i)
    check(read(version, loose), y, torch.float32)
    check(commit(version, loose, 6), state, torch.float32)


@versions
def test_strong_decay(
    version: ModuleType,
    inputs: Callable[..., Inputs],
    oracle: Callable[[Inputs], tuple[Tensor, Tensor]],
    check: Callable[..., None],
) -> None:
    i = inputs(length=20)
    i = replace(i, dt=i.dt * 20, A=i.A * 20)
    y, state = oracle(i)
    check(read(version, i), y, torch.float32)
    check(commit(version, i, 20), state, torch.float32)
