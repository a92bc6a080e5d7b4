"""Pass and commit, each version, against the unrolled sum."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from kernels import ssm_pass as package
from kernels.choice import triton_forced
from kernels.ssm_pass import parallel, reference
from tests.kernels.versions import each, needs_triton, with_triton

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from torch import Tensor

    from tests.kernels.conftest import Inputs

VERSIONS = with_triton(reference, parallel)
versions = each(VERSIONS)
SHAPES = [(1, 1, 1, 1, 1), (3, 2, 1, 5, 7), (1, 6, 3, 17, 2), (2, 3, 3, 3, 33)]


def read(version: ModuleType, i: Inputs) -> Tensor:
    return version.ssm_pass(i.x, i.dt, i.A, i.B, i.C, i.D, i.state)


def commit(version: ModuleType, i: Inputs, n: int) -> Tensor:
    return version.ssm_commit(i.x, i.dt, i.A, i.B, i.state, n)


@needs_triton
@pytest.mark.parametrize(("length", "fits"), [(1, True), (16, True), (17, False)])
def test_the_fast_ones_are_used(
    length: int, fits: bool, inputs: Callable[..., Inputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is too long for one tile goes through torch; a commit takes any."""
    calls = []
    for version in VERSIONS[1:]:
        for name in ("ssm_pass", "ssm_commit"):
            monkeypatch.setattr(version, name, lambda *_, v=version, n=name: calls.append((v, n)))
    i = inputs(length=length)
    with triton_forced():
        package.ssm_pass(i.x, i.dt, i.A, i.B, i.C, i.D, i.state)
        package.ssm_commit(i.x, i.dt, i.A, i.B, i.state, length)
    fast = VERSIONS[2]
    assert calls == [(fast if fits else parallel, "ssm_pass"), (fast, "ssm_commit")]
    if not i.x.is_cuda:
        calls.clear()
        package.ssm_pass(i.x, i.dt, i.A, i.B, i.C, i.D, i.state)
        package.ssm_commit(i.x, i.dt, i.A, i.B, i.state, length)
        assert calls == [(parallel, "ssm_pass"), (parallel, "ssm_commit")]


@versions
@pytest.mark.parametrize("with_D", [True, False], ids=["D", "no_D"])
@pytest.mark.parametrize("length", [1, 2, 3, 8, 16, 17, 33])
def test_pass(
    version: ModuleType,
    length: int,
    with_D: bool,
    dtype: torch.dtype,
    inputs: Callable[..., Inputs],
    oracle: Callable[[Inputs], tuple[Tensor, Tensor]],
    check: Callable[..., None],
) -> None:
    if length > getattr(version, "MAX_TOKENS", length):
        return
    i = inputs(length=length, with_D=with_D, dtype=dtype)
    y = read(version, i)
    check(y, oracle(i)[0], dtype)
    assert y.dtype == dtype


@versions
@pytest.mark.parametrize("length", [1, 5])
def test_commit_of_every_length(
    version: ModuleType,
    length: int,
    dtype: torch.dtype,
    inputs: Callable[..., Inputs],
    oracle: Callable[[Inputs], tuple[Tensor, Tensor]],
    check: Callable[..., None],
) -> None:
    i = inputs(length=length, dtype=dtype)
    for n in {0, 1, length - 1, length}:
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
    for length in (1, 3):
        i = inputs(batch=1, length=length)
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
    wide = torch.full((2, 6, 40), torch.nan, device=i.x.device)
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
    i = inputs(length=16)
    i = replace(i, dt=i.dt * 20, A=i.A * 20)
    y, state = oracle(i)
    check(read(version, i), y, torch.float32)
    check(commit(version, i, 16), state, torch.float32)


@pytest.mark.slow
@versions
@pytest.mark.parametrize("length", [1, 5, 16])
def test_heads_of_a_real_model(
    version: ModuleType,
    length: int,
    dtype: torch.dtype,
    inputs: Callable[..., Inputs],
    oracle: Callable[[Inputs], tuple[Tensor, Tensor]],
    check: Callable[..., None],
) -> None:
    """Codestral's headdim and d_state, with several programs a head."""
    i = inputs(batch=1, length=length, headdim=64, d_state=128, dtype=dtype)
    y, state = oracle(i)
    check(read(version, i), y, dtype)
    check(commit(version, i, length), state, torch.float32)


@needs_triton
def test_wrong_arguments_are_named(inputs: Callable[..., Inputs]) -> None:
    i = inputs(length=3)
    wrong = {
        r"x is torch.float32 \(2, 3, 4\)": replace(i, x=i.x[..., 0]),
        r"dt is \(2, 3, 3\), expected \(2, 3, 4\)": replace(i, dt=i.dt[..., 1:]),
        r"A is \(3,\), expected \(4,\)": replace(i, A=i.A[1:]),
        r"B is \(2, 3, 3, 10\), expected \(2, 3, a divisor of 4, d_state\)": replace(
            i, B=torch.cat((i.B, i.B[:, :, :1]), dim=2)
        ),
        "B is .*, expected": replace(i, B=i.B[:, 1:]),
        r"C is \(2, 3, 2, 9\), expected the shape of B": replace(i, C=i.C[..., 1:]),
        r"D is \(3,\), expected \(4,\)": replace(i, D=i.A[1:]),
        r"ssm_state is torch.bfloat16 \(2, 4, 6, 10\), expected float32": replace(
            i, state=i.state.bfloat16()
        ),
        r"ssm_state is torch.float32 \(1, 4, 6, 10\)": replace(i, state=i.state[:1]),
    }
    for message, bad in wrong.items():
        with triton_forced(), pytest.raises(ValueError, match=message):
            package.ssm_pass(bad.x, bad.dt, bad.A, bad.B, bad.C, bad.D, bad.state)
    with pytest.raises(ValueError, match="x has 17 tokens, expected at most 16"):
        read(VERSIONS[2], inputs(length=17))
    for n in (-1, 4):
        with pytest.raises(ValueError, match=f"n is {n}, expected 0 to 3"):
            commit(VERSIONS[2], i, n)
