"""Passes as graphs: what a GPU would replay, run once on any device; replays on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from engine.graphs import ROW_COUNTS, StateAddresses, n_rows
from engine.state import RecurrentState
from kernels.choice import triton_forced
from tests.kernels.versions import needs_triton

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.mamba2 import Mamba2, Pass

TOKENS = [3, 141, 59, 26, 53, 58, 97, 93, 238, 46, 26, 43, 38, 32, 79, 50]


@pytest.fixture
def model(tiny_model: Callable[..., Mamba2]) -> Mamba2:
    return tiny_model(seed=3)


@pytest.fixture
def base(model: Mamba2) -> RecurrentState:
    """The state after some text."""
    return model.prefill(torch.tensor([[7, 8, 9, 10, 11]]))[1]


def compare(found: Pass, expected: Pass) -> None:
    """Hold two passes, and the states of every commit, to be equal but for rounding."""
    pairs = [(found.logits, expected.logits), (found.hidden, expected.hidden)]
    pairs += zip(found.log.tensors, expected.log.tensors, strict=True)
    for n in range(len(expected) + 1):
        pairs += zip(found.commit(n).tensors, expected.commit(n).tensors, strict=True)
    for tensor, like in pairs:
        torch.testing.assert_close(tensor, like, rtol=1e-4, atol=1e-5)
    assert torch.equal(found.logits.argmax(-1), expected.logits.argmax(-1))
    assert found.base is expected.base


def test_row_counts() -> None:
    assert [n_rows(n) for n in range(1, 17)] == [1, 2, *[4] * 2, *[8] * 4, *[16] * 8]


@pytest.mark.parametrize("n_tokens", [1, 3, 5, 8, 11, 16])
def test_rows_behind_a_run_leave_no_trace(
    n_tokens: int, model: Mamba2, base: RecurrentState
) -> None:
    tokens = torch.tensor(TOKENS[:n_tokens])
    filled = torch.cat((tokens, torch.full((n_rows(n_tokens) - n_tokens,), 200)))
    expected = model.layer_by_layer(tokens, base)
    found = model.layer_by_layer(filled, base).first(n_tokens, base)
    assert len(found) == n_tokens
    compare(found, expected)


def test_the_first_rows_are_copies(model: Mamba2, base: RecurrentState) -> None:
    """The next replay writes over what a graph gave."""
    whole = model.layer_by_layer(torch.tensor(TOKENS[:4]), base)
    found = whole.first(3, base)
    before = [tensor.clone() for tensor in (found.logits, found.hidden, *found.log.tensors)]
    for tensor in (whole.logits, whole.hidden, *whole.log.tensors):
        tensor.fill_(torch.nan)
    for tensor, like in zip((found.logits, found.hidden, *found.log.tensors), before, strict=True):
        assert torch.equal(tensor, like)


@needs_triton
def test_a_base_is_read_where_it_lies(tiny_model: Callable[..., Mamba2]) -> None:
    """One set of addresses, pointed at one state after the other: as graphs do."""
    model = tiny_model(seed=3, d_model=16, d_state=8)
    tokens = torch.tensor(TOKENS[:3])
    base = model.prefill(torch.tensor([[7, 8, 9, 10, 11]]))[1]
    addresses = StateAddresses(model.config, model.dtype, model.device)
    other = RecurrentState(base.conv_state * 2, base.ssm_state - 1)
    for state in (base, other):
        addresses.point(state)
        with triton_forced():
            found = model.layer_by_layer(tokens, addresses.state)
        compare(found.first(3, state), model.layer_by_layer(tokens, state))


def test_states_that_do_not_fit_are_named(model: Mamba2, base: RecurrentState) -> None:
    addresses = StateAddresses(model.config, model.dtype, model.device)
    conv, ssm = base.tensors
    wrong = {
        r"the state is torch.float64 .*, expected torch.float32": RecurrentState(
            conv, ssm.double()
        ),
        r"the state is torch.float32 \(1, 1, 3, 192\)": RecurrentState(conv[:1], ssm),
        "expected .* without gaps": RecurrentState(
            conv, ssm.transpose(-1, -2).contiguous().transpose(-1, -2)
        ),
        "on meta, expected": RecurrentState(conv.to("meta"), ssm),
    }
    for message, state in wrong.items():
        with pytest.raises(ValueError, match=message):
            addresses.point(state)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_replays_equal_passes_layer_by_layer(
    dtype: torch.dtype, tiny_model: Callable[..., Mamba2]
) -> None:
    """Every run length, in an order in which each leaves its rows behind for the next."""
    model = tiny_model(seed=3).to("cuda")
    for name, parameter in model.named_parameters():
        if not name.endswith(("A_log", "mixer.D", "dt_bias")):
            parameter.data = parameter.data.to(dtype)
    tolerance = 1e-4 if dtype == torch.float32 else 3e-2
    with torch.inference_mode():
        states = [model.prefill(torch.tensor([[7, 8, i]], device="cuda"))[1] for i in range(3)]
        kept = []
        for i, n_tokens in enumerate([16, 1, 9, 2, 3, 8, 4, 16, 1]):
            tokens = torch.tensor(TOKENS[:n_tokens], device="cuda")
            kept.append((model(tokens, states[i % 3]), tokens, states[i % 3]))
        # Compared last: a replay that wrote over an earlier result would show.
        for found, tokens, state in kept:
            expected = model.layer_by_layer(tokens, state)
            torch.testing.assert_close(
                found.logits, expected.logits, rtol=tolerance, atol=tolerance
            )
            for n in (0, 1, len(tokens)):
                for part, like in zip(
                    found.commit(n).tensors, expected.commit(n).tensors, strict=True
                ):
                    torch.testing.assert_close(part, like, rtol=tolerance, atol=tolerance)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_replay_waits_for_nothing(tiny_model: Callable[..., Mamba2]) -> None:
    model = tiny_model(seed=3).to("cuda")
    with torch.inference_mode():
        state = model.initial_state()
        for rows in ROW_COUNTS:
            tokens = torch.tensor(TOKENS[:rows], device="cuda")
            model(tokens, state)
            torch.cuda.set_sync_debug_mode("error")
            try:
                state = model(tokens, state).commit(rows)
            finally:
                torch.cuda.set_sync_debug_mode("default")
