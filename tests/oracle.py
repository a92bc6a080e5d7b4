"""What an answer must equal: the same tokens read from scratch, without any kept state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from engine.mamba2 import Mamba2
    from engine.request import Completion
    from engine.tokenizer import Tokenizer

TOLERANCE = 1e-4


def check_exact(model: Mamba2, completion: Completion) -> None:
    """Hold an answer (asked with `keep_logits`) against one cache-less prefill of its tokens.

    The logits that predicted each token agree within 1e-4, and so does the best token, unless the
    oracle's two best are closer than twice that. Raises AssertionError.
    """
    if not completion.token_ids:
        assert completion.logits is None, "logits without tokens"
        return
    assert completion.logits is not None, "no logits: ask with keep_logits=True"
    expected = logits_from_scratch(model, completion)
    assert completion.logits.shape == expected.shape
    # An answer with NaN must fail, so: not (distance > tolerance).
    distance = float((completion.logits - expected).abs().max())
    assert distance <= TOLERANCE, f"logits are {distance:.2g} away from those from scratch"
    best, second = expected.topk(2).values.T
    clear = best - second >= 2 * TOLERANCE
    assert torch.equal(completion.logits.argmax(-1)[clear], expected.argmax(-1)[clear])


def check_greedy(model: Mamba2, tokenizer: Tokenizer, completion: Completion) -> None:
    """Hold every generated token to be the oracle's best of those that stand for text, or a tie.

    For answers that are not `raw`. Raises AssertionError.
    """
    if not completion.n_generated:
        return
    logits = logits_from_scratch(model, completion)[-completion.n_generated :]
    texts = [i for i, piece in enumerate(tokenizer.pieces) if piece]
    for row, token_id in zip(logits, completion.token_ids[-completion.n_generated :], strict=True):
        assert token_id in texts, f"{token_id} stands for no text"
        best = float(row[[*texts, tokenizer.eos_id]].max())
        assert row[token_id] >= best - 2 * TOLERANCE, f"{token_id} was not the best token"


def logits_from_scratch(model: Mamba2, completion: Completion) -> Tensor:
    """Give the logits (len(token_ids), vocab_size) that predict each token of the answer."""
    ids = [*completion.prompt_ids, *completion.token_ids[:-1]]
    with torch.inference_mode():
        hidden, _ = model.prefill(torch.tensor([ids]))
        return model.logits(hidden[0, completion.n_prompt - 1 :])
