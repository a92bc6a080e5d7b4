"""How often quantized weights choose another token than the weights they were made from.

`python -m perf.quantized_agreement CASES` has the model write on from the prompts of CASES, greedy
and without copying, as the server asks it. Along what it wrote the quantized models' choices are
compared with its own, each from the same tokens. Steps at which its two best tokens are as good as
tied are left out: rounding of any kind decides those.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click
import torch

from engine.checkpoint import load_model, resolve_model
from engine.quantized import KINDS
from lsp_server.commands.options import model_option
from lsp_server.settings import Settings
from lsp_server.suggestions import Suggester
from perf.cases import read_cases

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from engine.mamba2 import Mamba2
    from perf.cases import Case

# Of logits: about what separates two ways to compute the same in float32, twice.
TIE = 2e-4


@click.command()
@click.argument("cases_path", metavar="CASES", type=click.Path(path_type=Path, exists=True))
@click.option("--n", "n_prompts", default=200, show_default=True, help="How many prompts.")
@click.option("--tokens", "n_tokens", default=32, show_default=True, help="Written after each.")
@model_option
def main(cases_path: Path, n_prompts: int, n_tokens: int, model: str | None) -> None:
    """Print one JSON object: a count of steps, and of other choices by kind of weights."""
    path = resolve_model(model)
    plain = load_model(path, dtype=torch.float32)
    # The same weights once more: what differs here is the way of computing, not the weights.
    others = {"float32": load_model(path, dtype=torch.float32)}
    for name, kind in KINDS.items():
        others[name] = load_model(path, dtype=torch.float32, quantize=kind)
    written = asyncio.run(_written(read_cases(cases_path, n_prompts), n_tokens, model))
    print(json.dumps(compare(plain, others, written)))


def compare(
    plain: Mamba2, others: dict[str, Mamba2], written: Sequence[tuple[list[int], list[int]]]
) -> dict[str, object]:
    """Count other choices than the plain model's, along prompts and what it wrote after them.

    "changed": prompts after which a model would have written something else, and "divergence" the
    mean KL divergence from the plain model's distribution, in nats a step.
    """
    counts = {name: Counter[str]() for name in others}
    divergence = dict.fromkeys(others, 0.0)
    n_steps = n_ties = 0
    for prompt, tokens in written:
        expected = _logits(plain, prompt, tokens)
        best, second = expected.topk(2).values.T
        is_clear = best - second >= TIE
        n_steps += len(tokens)
        n_ties += int((~is_clear).sum())
        for name, model in others.items():
            found = _logits(model, prompt, tokens)
            is_other = (found.argmax(-1) != expected.argmax(-1)) & is_clear
            counts[name]["disagreements"] += int(is_other.sum())
            counts[name]["changed"] += bool(is_other.any())
            of_expected = expected.log_softmax(-1)
            difference = of_expected - found.log_softmax(-1)
            divergence[name] += float((of_expected.exp() * difference).sum())
    return {
        "prompts": len(written),
        "steps": n_steps,
        "ties": n_ties,
        **{
            name: {
                "disagreements": counted["disagreements"],
                "changed": counted["changed"],
                "divergence": divergence[name] / max(1, n_steps),
            }
            for name, counted in counts.items()
        },
    }


def _logits(model: Mamba2, prompt: list[int], tokens: list[int]) -> Tensor:
    """The logits (len(tokens), vocab_size) that choose each token."""
    with torch.inference_mode():
        hidden, _ = model.prefill(torch.tensor([[*prompt, *tokens[:-1]]]))
        return model.logits(hidden[0, len(prompt) - 1 :])


async def _written(
    cases: Sequence[Case], n_tokens: int, model: str | None
) -> list[tuple[list[int], list[int]]]:
    """Each case's prompt, and what the model writes after it by itself."""
    settings = Settings(model=model, device="cpu", max_tokens=n_tokens, save_states=False)
    suggester = Suggester.load(settings)
    try:
        written = []
        for number, case in enumerate(cases):
            document = case.open(f"file:///case-{number}/{case.path}")
            suggestion = await suggester.suggest(
                document,
                document.position_at(len(case.prefix)),
                explicit=True,
                deadline_ms=None,
                raw=True,
            )
            suggester.forget(document.uri)
            completion = suggestion.completion
            if completion.token_ids:
                written.append((list(completion.prompt_ids), list(completion.token_ids)))
        return written
    finally:
        suggester.close()


if __name__ == "__main__":
    main()
