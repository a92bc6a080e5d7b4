"""What an answer must equal: the same tokens read from scratch, without any kept state."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from engine.copying import Copier

if TYPE_CHECKING:
    from torch import Tensor

    from engine.copying import CopyWeights
    from engine.mamba2 import Mamba2
    from engine.request import Completion, CompletionRequest
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


def check_copied(
    model: Mamba2,
    tokenizer: Tokenizer,
    request: CompletionRequest,
    completion: Completion,
    weights: CopyWeights,
) -> None:
    """Hold every generated token to be the best of the mixture, and its log-probability to be so.

    Copying is looked up anew, and the mixture computed from logits from scratch, with Python's own
    numbers. For answers that are not `raw`. Raises AssertionError.
    """
    n_covering = len(completion.token_ids) - completion.n_generated
    logits = logits_from_scratch(model, completion)
    texts = [i for i, piece in enumerate(tokenizer.pieces) if piece] + [tokenizer.eos_id]
    copier = Copier(
        tokenizer,
        request.header + request.prefix,
        (request.suffix, *request.sources),
        below=request.suffix,
    )
    covered = b"".join(map(tokenizer.piece_bytes, completion.token_ids[:n_covering]))
    # What stands behind the held-back text, the end of the prompt's own.
    whole = tokenizer.held_bytes(request.header + request.prefix)
    n_held = max(n for n in range(len(covered) + 1) if whole.endswith(covered[:n]))
    written = covered[n_held:]
    for i in range(n_covering, len(completion.token_ids)):
        token_id = completion.token_ids[i]
        expected = mixture(logits[i].tolist(), texts, copier, written, weights)
        assert token_id in expected, f"{token_id} stands for no text"
        assert expected[token_id] >= max(expected.values()) - 4 * TOLERANCE
        assert abs(completion.log_probs[i] - expected[token_id]) <= 10 * TOLERANCE
        written += tokenizer.piece_bytes(token_id)


def mixture(
    logits: list[float],
    texts: list[int],
    copier: Copier,
    written: bytes,
    weights: CopyWeights,
) -> dict[int, float]:
    """Give the log-probability of each token of `texts` with copying's share, the slow way."""
    total = sum(math.exp(logits[i]) for i in texts)
    odds = {i: math.exp(logits[i]) / total for i in texts}
    for candidate in copier.candidates(written):
        if candidate.token_id in odds:
            bias = sum(b * f for b, f in zip(weights.bias, candidate.features, strict=True))
            slope = sum(s * f for s, f in zip(weights.slope, candidate.features, strict=True))
            own = odds[candidate.token_id]
            odds[candidate.token_id] = math.exp(bias) * own ** max(0.0, 1 + slope)
    total = sum(odds.values())
    return {i: math.log(odd / total) for i, odd in odds.items()}


def logits_from_scratch(model: Mamba2, completion: Completion) -> Tensor:
    """Give the logits (len(token_ids), vocab_size) that predict each token of the answer."""
    ids = [*completion.prompt_ids, *completion.token_ids[:-1]]
    with torch.inference_mode():
        hidden, _ = model.prefill(torch.tensor([ids]))
        return model.logits(hidden[0, completion.n_prompt - 1 :])
