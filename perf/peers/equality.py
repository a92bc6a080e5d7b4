"""Whether llama.cpp reads the exported file as we do: token ids, and what it predicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from engine.fim import PromptOrder, fim_format
from perf.peers.scenario import source_text

if TYPE_CHECKING:
    from engine.mamba2 import Mamba2
    from engine.tokenizer import Tokenizer
    from perf.peers.llama_cpp import LlamaServer

N_TEXTS, N_PROMPTS, N_BEST = 200, 20, 10
TEXT_CHARS, TOKENS_APART = 1_500, 300
# Signs of two to four bytes, blanks of all kinds, and control pieces spelled out.
ODD_TEXTS = (
    'signs = "é 漢字 Привет → 🍰 👩\u200d👩\u200d👧 🇫🇷 ﬁ Ａ e\u0301"\n\t  x',
    "[SUFFIX] [PREFIX] <s> </s> <0x0A>",
    "    \t\t  \r\n\r\n x  ",
)


def equality(
    server: LlamaServer,
    tokenizer: Tokenizer,
    model: Mamba2,
    *,
    n_texts: int = N_TEXTS,
    n_prompts: int = N_PROMPTS,
) -> dict[str, Any]:
    """Compare token ids of texts, and log-probabilities behind suffix-first prompts.

    `model` is the reference in float32, `server` has the float32 file.
    """
    code = source_text(tokenizer, n_texts * TOKENS_APART)
    starts = range(0, len(code) - TEXT_CHARS, (len(code) - TEXT_CHARS) // n_texts)
    texts = [*(code[start : start + TEXT_CHARS] for start in starts[:n_texts]), *ODD_TEXTS]
    n_differing = sum(server.tokenize(text) != tokenizer.encode(text) for text in texts)

    fim = fim_format(tokenizer)
    furthest, n_compared, n_other_best = 0.0, 0, 0
    for text in texts[:: len(texts) // n_prompts]:
        middle = len(text) // 2
        prompt = fim.prompt(PromptOrder.SUFFIX_FIRST, text[:middle], text[middle:])
        theirs = server.log_probs(prompt, N_BEST)
        if not theirs:
            continue
        with torch.inference_mode():
            hidden, _ = model.prefill(torch.tensor([prompt]))
            ours = torch.log_softmax(model.logits(hidden[0, -1]).double(), dim=-1)
        n_compared += 1
        n_other_best += max(theirs, key=theirs.__getitem__) != int(ours.argmax())
        furthest = max(furthest, *(abs(p - float(ours[i])) for i, p in theirs.items()))
    return {
        "texts": len(texts),
        "texts_differing": n_differing,
        "prompts": n_compared,
        "prompts_other_best": n_other_best,
        "max_log_prob_difference": furthest,
    }
