"""A whole model shaped like Codestral Mamba, its operations as Triton kernels, against torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from engine.mamba2 import Mamba2
from engine.quantized import Quantization
from kernels.choice import triton_forced
from tests.kernels.versions import needs_triton

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from engine.state import RecurrentState

pytestmark = needs_triton

N_VOCAB = 64
# Two heads to each of its eight groups, 64 channels to a head; less of all else.
SHAPE: dict[str, Any] = {
    "d_model": 128,
    "expand": 8,
    "n_layers": 2,
    "vocab_size": N_VOCAB,
    "headdim": 64,
    "ngroups": 8,
    "d_state": 16,
    "chunk_size": 16,
}
# How far logits and states may be apart, as a share of the largest.
LIMITS = {"float32": 1e-4, "int8": 1e-4, "int4": 1e-4, "bfloat16": 3e-2}
# Prompts that are beginnings of one text, so that their states come from one run. Each is written
# on from; interpreting a pass takes a second.
N_BEGINNINGS, N_TEXTS = 8, 25


def make(tiny_model: Callable[..., Mamba2], kind: str, device: str) -> Mamba2:
    """A model with weights of a kind; equal arguments, equal weights."""
    model = tiny_model(**SHAPE)
    if kind in ("int8", "int4"):
        quantization = Quantization.named(kind)
        config = type(model.config)(**{**vars(model.config), "quantization": quantization})
        state, model = model.state_dict(), Mamba2(config)
        for name in state.keys() - model.state_dict().keys():
            made = quantization.apply(state.pop(name))
            stem = name.removesuffix("weight")
            state |= {stem + part: value for part, value in made.tensors.items()}
        model.load_state_dict(state, strict=True, assign=True)
        model.requires_grad_(False).eval()
    elif kind == "bfloat16":
        for name, parameter in model.named_parameters():
            if not name.endswith(("A_log", "mixer.D", "dt_bias")):
                parameter.data = parameter.data.bfloat16()
    return model.to(device)


class Check:
    """Holds what kernels give against torch, in a model's dtype."""

    def __init__(self, kind: str) -> None:
        self.limit = LIMITS[kind]

    def near(self, found: Tensor, expected: Tensor) -> None:
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype
        distance = (found.float() - expected.float()).abs().max()
        assert float(distance) <= self.limit * float(expected.float().abs().max())

    def states(self, found: RecurrentState, expected: RecurrentState) -> None:
        for pair in zip(found.tensors, expected.tensors, strict=True):
            self.near(*pair)

    def logits(self, found: Tensor, expected: Tensor) -> None:
        """Hold the best tokens to be the same too, where the second is not as good."""
        self.near(found, expected)
        best, second = expected.topk(2).values.T
        clear = best - second > 2 * self.limit * float(expected.abs().max())
        assert clear.any()
        assert torch.equal(found.argmax(-1)[clear], expected.argmax(-1)[clear])


def check_beginnings(model: Mamba2, kind: str, seed: int) -> None:
    """Read a text, hold the states at some of its tokens, and write on from each of them."""
    generator = torch.Generator().manual_seed(seed)
    check, device = Check(kind), model.device

    def number(least: int, most: int) -> int:
        return int(torch.randint(least, most + 1, (), generator=generator))

    def text(length: int) -> Tensor:
        return torch.randint(N_VOCAB, (length,), generator=generator).to(device)

    ids = text(number(N_BEGINNINGS, 40))
    lengths = (torch.randperm(len(ids), generator=generator)[:N_BEGINNINGS] + 1).tolist()
    log_after = number(0, len(ids))
    arguments = (ids, model.initial_state(), lengths, log_after)
    expected = model.read(*arguments)
    with triton_forced():
        found = model.read(*arguments)
        rows = model.logits(found.hidden)
    check.logits(rows, model.logits(expected.hidden))
    for pair in zip(found.log.tensors, expected.log.tensors, strict=True):
        if pair[0].numel():
            check.near(*pair)
    for state, other in zip(found.states, expected.states, strict=True):
        check.states(state, other)
    for length, state in zip(lengths, found.states, strict=True):
        draft = text(number(1, 6))
        draft[0] = rows[length - 1].argmax()
        n = number(1, len(draft))
        with triton_forced():
            read = model(draft, state)
            after = read.commit(n)
        whole = torch.cat((ids[:length], draft))
        again = model.read(whole, model.initial_state(), (length + n,), len(whole))
        check.logits(read.logits, model.logits(again.hidden[length:]))
        check.states(after, again.states[0])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(N_TEXTS))
def test_two_hundred_prompts(seed: int, tiny_model: Callable[..., Mamba2], device: str) -> None:
    check_beginnings(make(tiny_model, "float32", device), "float32", seed)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bfloat16", "int8", "int4"])
def test_other_weights(kind: str, tiny_model: Callable[..., Mamba2], device: str) -> None:
    check_beginnings(make(tiny_model, kind, device), kind, seed=1)
