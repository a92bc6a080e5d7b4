"""Counting where quantized weights choose otherwise."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch

from perf.quantized_agreement import TIE, compare

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.mamba2 import Mamba2

PROMPTS = [([1, 5, 9, 200, 7], [3, 77, 12]), ([4, 8], [15])]


def head_of(model: Any) -> Any:
    return model.lm_head.weight


def test_only_other_choices_are_counted(tiny_model: Callable[..., Mamba2]) -> None:
    plain = tiny_model()
    other = copy.deepcopy(plain)
    hidden, _ = plain.prefill(torch.tensor([[1, 5, 9, 200, 7, 3, 77]]))
    logits = plain.logits(hidden[0, 4:])
    best = int(logits[1].argmax())
    # The best token of the second step is never chosen, which may change other steps too.
    head_of(other)[best] = 0
    expected = sum(
        int((plain.logits(h).argmax() != other.logits(h).argmax()).item())
        for prompt, tokens in PROMPTS
        for h in plain.prefill(torch.tensor([[*prompt, *tokens[:-1]]]))[0][0, len(prompt) - 1 :]
    )
    found: Any = compare(plain, {"same": copy.deepcopy(plain), "other": other}, PROMPTS)
    assert (found["prompts"], found["steps"], found["ties"]) == (2, 4, 0)
    assert found["same"] == {"disagreements": 0, "changed": 0, "divergence": 0.0}
    assert found["other"]["disagreements"] == expected >= 1
    assert 1 <= found["other"]["changed"] <= 2
    log_p, log_q = (
        torch.cat(
            [
                model.logits(
                    model.prefill(torch.tensor([[*prompt, *tokens[:-1]]]))[0][0, len(prompt) - 1 :]
                )
                for prompt, tokens in PROMPTS
            ]
        ).log_softmax(-1)
        for model in (plain, other)
    )
    divergence = (log_p.exp() * (log_p - log_q)).sum(-1).mean().item()
    assert found["other"]["divergence"] == pytest.approx(divergence, rel=1e-4)


def test_ties_are_left_out(tiny_model: Callable[..., Mamba2]) -> None:
    plain = tiny_model()
    hidden, _ = plain.prefill(torch.tensor([PROMPTS[1][0]]))
    best = int(plain.logits(hidden[0, -1]).argmax())
    # A second token as good, but for less than rounding.
    twin = (best + 1) % 256
    head_of(plain)[twin] = head_of(plain)[best]
    other = copy.deepcopy(plain)
    along = hidden[0, -1]
    head_of(other)[twin] += along * (TIE / 4 / along.dot(along))
    head_of(plain)[twin] -= along * (TIE / 4 / along.dot(along))
    found: Any = compare(plain, {"other": other}, PROMPTS[1:])
    assert (found["steps"], found["ties"], found["other"]["disagreements"]) == (1, 1, 0)
    head_of(other)[twin] += along * (3 * TIE / along.dot(along))
    head_of(plain)[twin] -= along * (3 * TIE / along.dot(along))
    found = compare(plain, {"other": other}, PROMPTS[1:])
    assert (found["ties"], found["other"]["disagreements"]) == (0, 1)
