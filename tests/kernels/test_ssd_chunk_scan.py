"""The recurrence over long runs, each version, against the unrolled sum."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import torch

from kernels import ssd_chunk_scan as package
from kernels.choice import triton_forced
from kernels.ssd_chunk_scan import chunked, reference
from tests.kernels.versions import needs_triton, short_name, with_triton

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from torch import Tensor

    from tests.kernels.conftest import Inputs

    Oracle = Callable[[Inputs], tuple[Tensor, Tensor]]

VERSIONS = with_triton(reference, chunked)


def parametrized(found: list[ModuleType], *, interpret: bool) -> pytest.MarkDecorator:
    """Give a mark for tests of these versions; a GPU is fast, its interpreter is not."""
    is_slow = not (interpret or torch.cuda.is_available())
    return pytest.mark.parametrize(
        "version",
        [
            pytest.param(version, marks=[pytest.mark.slow] * (is_slow and version in VERSIONS[2:]))
            for version in found
        ],
        ids=map(short_name, found),
    )


versions = parametrized(VERSIONS, interpret=False)
briefly = parametrized(VERSIONS, interpret=True)
fast = parametrized(VERSIONS[1:], interpret=False)


def run(
    version: ModuleType,
    i: Inputs,
    chunk: int = 8,
    *,
    at: tuple[int, ...] = (),
    starts: tuple[int, ...] = (),
) -> tuple[Tensor, Tensor, Tensor]:
    y, state, states = version.ssd_chunk_scan(
        i.x,
        i.dt,
        i.A,
        i.B,
        i.C,
        i.D,
        i.state,
        chunk,
        state_positions=at,
        sequence_starts=starts,
    )
    return y, state, states


@needs_triton
def test_the_fast_ones_are_used(
    inputs: Callable[..., Inputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    for version in VERSIONS[1:]:
        name = "ssd_chunk_scan"
        monkeypatch.setattr(version, name, lambda *_, v=version, **kw: calls.append((v, kw)))
    i = inputs(length=3)
    arguments = (i.x, i.dt, i.A, i.B, i.C, i.D, i.state)
    places: dict[str, Any] = {"state_positions": (1,), "sequence_starts": (2,)}
    with triton_forced():
        package.ssd_chunk_scan(*arguments, **places)
    package.ssd_chunk_scan(i.x.requires_grad_(), *arguments[1:], **places)
    assert calls == [(VERSIONS[2], places), (chunked, places)]


@briefly
@pytest.mark.parametrize("length", [1, 9])
def test_all_that_can_be_asked_for_at_once(
    version: ModuleType,
    length: int,
    dtype: torch.dtype,
    inputs: Callable[..., Inputs],
    apart: Callable[[Tensor], Tensor],
    check: Callable[..., None],
) -> None:
    """Strided too: the model hands in slices of one projection, not tensors of their own."""
    i = inputs(length=length, dtype=dtype, batch=1, nheads=2)
    loose = i.map(apart)
    assert not loose.x.is_contiguous()
    at, starts = (length, length // 2, 0), (3,) if length > 3 else ()
    y, state, states = run(version, loose, at=at, starts=starts)
    expected = run(reference, i.double(), at=at, starts=starts)
    check(y, expected[0], dtype)
    check(state, expected[1], torch.float32)
    check(states, expected[2], torch.float32)


@versions
@pytest.mark.parametrize("with_D", [True, False], ids=["D", "no_D"])
@pytest.mark.parametrize("length", [1, 7, 8, 9, 21])
def test_against_the_unrolled_sum(
    version: ModuleType,
    length: int,
    with_D: bool,
    dtype: torch.dtype,
    inputs: Callable[..., Inputs],
    oracle: Oracle,
    check: Callable[..., None],
) -> None:
    i = inputs(length=length, with_D=with_D, dtype=dtype, batch=1, nheads=2)
    y, state, states = run(version, i)
    expected_y, expected_state = oracle(i)
    check(y, expected_y, dtype)
    check(state, expected_state, torch.float32)
    assert states.shape == (0, *i.state.shape)
    assert (y.dtype, state.dtype, states.dtype) == (dtype, torch.float32, torch.float32)


@versions
@pytest.mark.parametrize(
    ("length", "at"),
    [
        (0, (0, 0)),
        (1, (1, 0)),
        (7, (7, 3)),
        (8, (8, 0, 5)),
        (9, (8, 9)),
        (21, (0, 16, 20, 1, 21, 8, 16, 7, 9)),
    ],
    ids=str,
)
def test_states_at_positions(
    version: ModuleType,
    length: int,
    at: tuple[int, ...],
    dtype: torch.dtype,
    inputs: Callable[..., Inputs],
    oracle: Oracle,
    check: Callable[..., None],
) -> None:
    i = inputs(length=length, dtype=dtype, nheads=2)
    y, state, states = run(version, i, at=at)
    assert states.shape == (len(at), *i.state.shape)
    for position, found in zip(at, states, strict=True):
        check(found, oracle(i.tokens(0, position))[1], torch.float32)
    plain_y, plain_state, _ = run(version, i)
    assert torch.equal(y, plain_y)
    assert torch.equal(state, plain_state)


@versions
@pytest.mark.parametrize(
    "starts", [(0,), (5,), (8,), (20,), (0, 8, 9, 19), (3, 13)], ids="starts {}".format
)
def test_sequences_laid_end_to_end(
    version: ModuleType,
    starts: tuple[int, ...],
    dtype: torch.dtype,
    inputs: Callable[..., Inputs],
    oracle: Oracle,
    check: Callable[..., None],
) -> None:
    """Each as if it were alone; only the first, unless it starts at 0, sees the initial state."""
    i = inputs(length=21, dtype=dtype, batch=1, nheads=2)
    bounds = (0, *starts, 21)
    # After each, and in the middle of each, where there is one.
    middles = tuple((a + b) // 2 for a, b in pairwise(bounds))
    y, state, states = run(version, i, at=(*bounds[1:], *middles), starts=starts)
    n = len(middles)
    for k, (begin, end) in enumerate(pairwise(bounds)):
        alone = i if k == 0 else replace(i, state=torch.zeros_like(i.state))
        expected_y, expected_state = oracle(alone.tokens(begin, end))
        check(y[:, begin:end], expected_y, dtype)
        check(states[k], expected_state, torch.float32)
        if middles[k] > begin:
            _, expected_state = oracle(alone.tokens(begin, middles[k]))
            check(states[n + k], expected_state, torch.float32)
    assert torch.equal(state, states[n - 1])


@briefly
def test_places_out_of_range(version: ModuleType, inputs: Callable[..., Inputs]) -> None:
    i = inputs(length=4)
    for position in (-1, 5):
        with pytest.raises(ValueError, match=f"after {position} of 4 tokens"):
            run(version, i, at=(2, position))
    for start in (-1, 4):
        with pytest.raises(ValueError, match=f"token {start} of 4"):
            run(version, i, starts=(2, start))


@fast
@pytest.mark.parametrize(
    ("length", "chunk"), [(5, 1), (22, 3), (63, 64), (64, 64), (65, 64), (130, 64), (130, 100)]
)
def test_chunks_of_any_size(
    version: ModuleType,
    length: int,
    chunk: int,
    dtype: torch.dtype,
    inputs: Callable[..., Inputs],
    check: Callable[..., None],
) -> None:
    """Of one tile, and of several tiles, the last one partly past the chunk's end."""
    i = inputs(length=length, dtype=dtype, batch=1, nheads=2, ngroups=1, seed=length)
    at = (0, length // 2, length)
    found = run(version, i, chunk, at=at)
    expected = run(reference, i.double(), at=at)
    check(found[0], expected[0], dtype)
    check(found[1], expected[1], torch.float32)
    check(found[2], expected[2], torch.float32)


@versions
@pytest.mark.parametrize(
    ("batch", "nheads", "ngroups", "headdim", "d_state"),
    [(1, 1, 1, 1, 1), (3, 6, 1, 5, 7), (1, 6, 3, 16, 2), (1, 2, 2, 70, 33)],
)
def test_awkward_shapes(
    version: ModuleType,
    batch: int,
    nheads: int,
    ngroups: int,
    headdim: int,
    d_state: int,
    inputs: Callable[..., Inputs],
    oracle: Oracle,
    check: Callable[..., None],
) -> None:
    sizes = {"nheads": nheads, "ngroups": ngroups, "headdim": headdim, "d_state": d_state}
    i = inputs(batch=batch, length=11, **sizes)
    y, state, states = run(version, i, 4, at=(6,), starts=(3,))
    _, expected_first = oracle(i.tokens(0, 3))
    alone = replace(i, state=torch.zeros_like(i.state))
    expected_y, expected_state = oracle(alone.tokens(3, 11))
    check(y[:, 3:], expected_y, torch.float32)
    check(state, expected_state, torch.float32)
    check(states[0], oracle(alone.tokens(3, 6))[1], torch.float32)
    check(run(version, i.tokens(0, 3), 4)[1], expected_first, torch.float32)


@briefly
def test_no_tokens(version: ModuleType, dtype: torch.dtype, inputs: Callable[..., Inputs]) -> None:
    i = inputs(length=0, dtype=dtype)
    y, state, _ = run(version, i)
    assert y.shape == i.x.shape
    assert y.dtype == dtype
    assert torch.equal(state, i.state)


@briefly
@pytest.mark.parametrize("length", [0, 1, 9])
def test_inputs_are_only_read(
    version: ModuleType, length: int, inputs: Callable[..., Inputs]
) -> None:
    i = inputs(length=length, batch=1, nheads=2)
    before = i.clone()
    for result in run(version, i, at=(0, length)):
        result.fill_(torch.nan)
    for name, tensor in vars(before).items():
        assert torch.equal(getattr(i, name), tensor), name


@versions
@pytest.mark.parametrize("split", [0, 5, 8, 19])
def test_state_carries_over(
    version: ModuleType,
    split: int,
    inputs: Callable[..., Inputs],
    check: Callable[..., None],
) -> None:
    i = inputs(length=20, batch=1, nheads=2)
    first_y, middle, _ = run(version, i.tokens(0, split))
    second_y, state, _ = run(version, replace(i.tokens(split, 20), state=middle))
    expected_y, expected_state, _ = run(reference, i.double())
    check(torch.cat((first_y, second_y), dim=1), expected_y, torch.float32)
    check(state, expected_state, torch.float32)


@fast
def test_strong_decay_neither_overflows_nor_loses_the_last_token(
    version: ModuleType, inputs: Callable[..., Inputs], check: Callable[..., None]
) -> None:
    i = inputs(length=40, batch=1, nheads=2)
    i = replace(i, dt=i.dt * 20, A=i.A * 20)
    for found, expected in zip(
        run(version, i, 16, at=(25,)), run(reference, i.double(), at=(25,)), strict=True
    ):
        check(found, expected, torch.float32)


@pytest.mark.slow
@fast
@pytest.mark.parametrize("kind", ["usual", "long memory"])
def test_a_long_run(
    version: ModuleType,
    kind: str,
    dtype: torch.dtype,
    device: str,
    inputs: Callable[..., Inputs],
    check: Callable[..., None],
) -> None:
    """Errors do not add up: every state along the way, and every output, against float64."""
    if version is not chunked and device == "cpu":
        pytest.skip("too long for the interpreter")
    length = 4096
    i = inputs(length=length, batch=1, nheads=2, ngroups=1, headdim=16, d_state=32, dtype=dtype)
    if kind == "long memory":
        i = replace(i, dt=i.dt * 0.01, A=i.A * 0.1)
    at = tuple(range(0, length + 1, 300))
    starts = (1500,)
    found = run(version, i, 64, at=at, starts=starts)
    expected = run(reference, i.double(), at=at, starts=starts)
    check(found[0], expected[0], dtype)
    check(found[1], expected[1], torch.float32)
    for state, right in zip(found[2], expected[2], strict=True):
        check(state, right, torch.float32)


def test_gradients(inputs: Callable[..., Inputs], check: Callable[..., None]) -> None:
    gradients = []
    for version, i in (
        (chunked, inputs(length=19)),
        (reference, inputs(length=19).double()),
    ):
        leaves = [tensor.requires_grad_() for tensor in vars(i).values()]
        y, state, states = run(version, i, at=(5, 16), starts=(9,))
        (y.sin().sum() + state.cos().sum() + states.sin().sum()).backward()
        gradients.append([leaf.grad for leaf in leaves])
    for found, expected in zip(*gradients, strict=True):
        check(found, expected, torch.float32)


def test_gradients_under_strong_decay_are_numbers(inputs: Callable[..., Inputs]) -> None:
    i = inputs(length=40)
    i = replace(i, dt=(i.dt * 50).requires_grad_(), A=(i.A * 50).requires_grad_())
    y, state, _ = run(chunked, i, 16)
    (y.sum() + state.sum()).backward()
    assert i.dt.grad is not None
    assert i.dt.grad.isfinite().all()
    assert i.A.grad is not None
    assert i.A.grad.isfinite().all()


@needs_triton
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"A": lambda i: i.A[:1]}, r"A is \(1,\)"),
        ({"C": lambda i: i.C[:, :, :1]}, "C is"),
        ({"D": lambda i: i.D[:1]}, r"D is \(1,\)"),
        ({"C": lambda i: i.C.double()}, "x, B and C are"),
        ({"state": lambda i: i.state.double()}, "ssm_state is torch.float64"),
        ({"dt": lambda i: i.dt[:, :2]}, "dt is"),
    ],
)
def test_what_does_not_fit_together(
    change: dict[str, Callable[[Inputs], Tensor]], message: str, inputs: Callable[..., Inputs]
) -> None:
    i = inputs(length=3)
    wrong = replace(i, **{name: make(i) for name, make in change.items()})
    with pytest.raises(ValueError, match=message):
        run(VERSIONS[2], wrong)
