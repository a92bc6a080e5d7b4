"""The tiny models can tell a right state from a wrong one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.mamba2 import Mamba2


@pytest.mark.parametrize("ngroups", [1, 2, 4, 8])
def test_last_logits_depend_on_tokens_200_back(
    tiny_model: Callable[..., Mamba2], ngroups: int
) -> None:
    model = tiny_model(ngroups=ngroups)
    tokens = torch.randint(256, (2, 300), generator=torch.Generator().manual_seed(0))
    tokens[1, -200:] = tokens[0, -200:]
    first, second = model.logits(model.prefill(tokens)[0][:, -1])
    assert (first - second).abs().max() > 0.1


def test_same_seed_same_model(tiny_model: Callable[..., Mamba2]) -> None:
    one, same, other = (tiny_model(seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)
