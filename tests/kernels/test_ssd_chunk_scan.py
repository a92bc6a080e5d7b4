"""The chunked recurrence and its reference against the unrolled sum."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from kernels.ssd_chunk_scan import chunked, reference, ssd_chunk_scan

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from tests.kernels.conftest import Inputs

both = pytest.mark.parametrize(
    "scan", [reference.ssd_chunk_scan, chunked.ssd_chunk_scan], ids=["reference", "chunked"]
)


def run(
    scan: Callable[..., tuple[Tensor, Tensor]], i: Inputs, *chunk: int
) -> tuple[Tensor, Tensor]:
    return scan(i.x, i.dt, i.A, i.B, i.C, i.D, i.state, *chunk)


def test_the_fast_one_is_used() -> None:
    assert ssd_chunk_scan is chunked.ssd_chunk_scan


@both
@pytest.mark.parametrize("with_D", [True, False], ids=["D", "no_D"])
@pytest.mark.parametrize("length", [1, 2, 3, 7, 8, 9, 21])
def test_against_the_unrolled_sum(
    scan: Callable[..., tuple[Tensor, Tensor]],
    length: int,
    with_D: bool,
    dtype: torch.dtype,
    inputs: Callable[..., Inputs],
    oracle: Callable[[Inputs], tuple[Tensor, Tensor]],
    check: Callable[..., None],
) -> None:
    i = inputs(length=length, with_D=with_D, dtype=dtype)
    y, state = run(scan, i, 8)
    expected_y, expected_state = oracle(i)
    check(y, expected_y, dtype)
    check(state, expected_state, torch.float32)
    assert (y.dtype, state.dtype) == (dtype, torch.float32)


@pytest.mark.parametrize("chunk", [(1,), (3,), (64,), ()], ids=["1", "3", "64", "default"])
@pytest.mark.parametrize("length", [1, 63, 64, 65, 127, 130])
def test_chunks_of_any_size(
    length: int,
    chunk: tuple[int, ...],
    dtype: torch.dtype,
    inputs: Callable[..., Inputs],
    check: Callable[..., None],
) -> None:
    i = inputs(length=length, dtype=dtype, seed=length)
    y, state = run(chunked.ssd_chunk_scan, i, *chunk)
    expected_y, expected_state = run(reference.ssd_chunk_scan, i.double())
    check(y, expected_y, dtype)
    check(state, expected_state, torch.float32)


@both
@pytest.mark.parametrize(
    ("batch", "nheads", "ngroups", "headdim", "d_state"),
    [(1, 1, 1, 1, 1), (3, 6, 1, 5, 7), (1, 6, 3, 16, 2), (2, 8, 8, 3, 33)],
)
def test_awkward_shapes(
    scan: Callable[..., tuple[Tensor, Tensor]],
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
    i = inputs(batch=batch, length=11, **sizes)
    y, state = run(scan, i, 4)
    expected_y, expected_state = oracle(i)
    check(y, expected_y, torch.float32)
    check(state, expected_state, torch.float32)


@both
def test_no_tokens(
    scan: Callable[..., tuple[Tensor, Tensor]], dtype: torch.dtype, inputs: Callable[..., Inputs]
) -> None:
    i = inputs(length=0, dtype=dtype)
    y, state = run(scan, i)
    assert y.shape == i.x.shape
    assert y.dtype == dtype
    assert torch.equal(state, i.state)


@both
def test_inputs_are_only_read(
    scan: Callable[..., tuple[Tensor, Tensor]], inputs: Callable[..., Inputs]
) -> None:
    for length in (0, 1, 20):
        i = inputs(length=length)
        before = i.clone()
        y, state = run(scan, i, 8)
        y.fill_(torch.nan)
        state.fill_(torch.nan)
        for name, tensor in vars(before).items():
            assert torch.equal(getattr(i, name), tensor), name


@both
def test_strided_inputs(
    scan: Callable[..., tuple[Tensor, Tensor]],
    inputs: Callable[..., Inputs],
    check: Callable[..., None],
) -> None:
    """The model hands in slices of one projection, not tensors of their own."""
    i = inputs(length=13)
    loose = replace(i, x=apart(i.x), dt=apart(i.dt), B=apart(i.B), C=apart(i.C))
    assert not loose.x.is_contiguous()
    for found, expected in zip(run(scan, loose, 4), run(scan, i.double(), 4), strict=True):
        check(found, expected, torch.float32)


def apart(tensor: Tensor) -> Tensor:
    """The same values as a slice of a larger tensor of NaN."""
    larger = torch.full((*tensor.shape[:-1], tensor.shape[-1] + 3), torch.nan, dtype=tensor.dtype)
    larger[..., 1:-2] = tensor
    return larger[..., 1:-2]


@both
@pytest.mark.parametrize("split", [0, 1, 5, 8, 19, 20])
def test_state_carries_over(
    scan: Callable[..., tuple[Tensor, Tensor]],
    split: int,
    inputs: Callable[..., Inputs],
    check: Callable[..., None],
) -> None:
    i = inputs(length=20)
    first_y, middle = run(scan, i.tokens(0, split), 8)
    second_y, state = run(scan, replace(i.tokens(split, 20), state=middle), 8)
    expected_y, expected_state = run(reference.ssd_chunk_scan, i.double())
    check(torch.cat((first_y, second_y), dim=1), expected_y, torch.float32)
    check(state, expected_state, torch.float32)


def test_strong_decay_neither_overflows_nor_loses_the_last_token(
    inputs: Callable[..., Inputs], check: Callable[..., None]
) -> None:
    i = inputs(length=40)
    i = replace(i, dt=i.dt * 20, A=i.A * 20)
    y, state = run(chunked.ssd_chunk_scan, i, 16)
    expected_y, expected_state = run(reference.ssd_chunk_scan, i.double())
    check(y, expected_y, torch.float32)
    check(state, expected_state, torch.float32)


def test_gradients(inputs: Callable[..., Inputs], check: Callable[..., None]) -> None:
    gradients = []
    for scan, i in (
        (chunked.ssd_chunk_scan, inputs(length=19)),
        (reference.ssd_chunk_scan, inputs(length=19).double()),
    ):
        leaves = [tensor.requires_grad_() for tensor in vars(i).values()]
        y, state = run(scan, i, 8)
        (y.sin().sum() + state.cos().sum()).backward()
        gradients.append([leaf.grad for leaf in leaves])
    for found, expected in zip(*gradients, strict=True):
        check(found, expected, torch.float32)


def test_gradients_under_strong_decay_are_numbers(inputs: Callable[..., Inputs]) -> None:
    i = inputs(length=40)
    i = replace(i, dt=(i.dt * 50).requires_grad_(), A=(i.A * 50).requires_grad_())
    y, state = run(chunked.ssd_chunk_scan, i, 16)
    (y.sum() + state.sum()).backward()
    assert i.dt.grad is not None
    assert i.dt.grad.isfinite().all()
    assert i.A.grad is not None
    assert i.A.grad.isfinite().all()
