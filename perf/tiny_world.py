"""Tiny models and tokenizers that show whether a state is right: what the fuzzing runs on.

A random model with default initialization forgets within a few tokens, so that a wrong state would
go unseen. These remember about 160.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import sentencepiece
import torch
from torch import nn

from engine.config import Mamba2Config
from engine.mamba2 import Mamba2
from engine.tokenizer import Tokenizer
from engine.tokenizer_training import CONTROL_PIECES, learnable_lines, train_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

SAMPLE = Path(__file__).parent / "samples" / "job_queue.py"
# What the sample lacks: long numbers, signs of two to four bytes, emoji sequences.
ODD_LINES = (
    "totals = [0, 17, 256, 1_024, 65_536, 3.14159, 2.998e8, 0x7f3a, 20_261_122]",
    'greeting = "Grüße aus Köln, naïve façade, Straße, señor"',
    'signs = "é 漢字 日本語 Привет → ∑ ▁ 🍰 👩‍👩‍👧 🇫🇷"',
)
# Ids that stand for nothing, as in vocabularies padded to a round size.
N_PADDED = 6


@dataclass(frozen=True, kw_only=True)
class World:
    """A model and the tokenizer that belongs to it."""

    name: str
    model: Mamba2 = field(repr=False)
    tokenizer: Tokenizer = field(repr=False)
    # The tokenizer's own vocabulary, for tokenizing whole texts at once.
    processor: sentencepiece.SentencePieceProcessor = field(repr=False)

    @classmethod
    def of_directory(cls, name: str, directory: Path, model: Mamba2) -> World:
        """Join a model and the `tokenizer.model` of a folder."""
        processor = sentencepiece.SentencePieceProcessor(
            model_file=str(directory / "tokenizer.model")
        )
        return cls(name=name, model=model, tokenizer=Tokenizer.load(directory), processor=processor)


def suffix_and_prefix_first(directory: Path) -> World:
    """A family that knows both orders of a prompt, as the embedded model does."""
    train_tiny_tokenizer(directory)
    return World.of_directory("both orders", directory, long_memory_model(directory))


def suffix_first(directory: Path) -> World:
    """A family that knows one order, and puts a dummy space before text, as Codestral does."""
    train_tiny_tokenizer(directory, ("[PREFIX]", "[SUFFIX]"), dummy_prefix=True)
    return World.of_directory("suffix first", directory, long_memory_model(directory, seed=1))


def train_tiny_tokenizer(
    directory: Path, control_pieces: Sequence[str] = CONTROL_PIECES, *, dummy_prefix: bool = False
) -> None:
    """Write a `tokenizer.model` of 400 pieces with the embedded model's options; always the same.

    It is learned from a text that does not change with the code, nor do its pieces then.
    """
    texts = (SAMPLE.read_text(encoding="utf-8"), *ODD_LINES)
    train_tokenizer(
        learnable_lines(texts),
        directory,
        vocab_size=400,
        # The rarest characters stay byte pieces.
        character_coverage=0.995,
        control_pieces=control_pieces,
        dummy_prefix=dummy_prefix,
    )


def long_memory_model(tokenizer_directory: Path, seed: int = 0) -> Mamba2:
    """A random float32 model for a folder's tokenizer; equal seeds, equal weights."""
    tokenizer = Tokenizer.load(tokenizer_directory)
    config = Mamba2Config(
        d_model=64,
        n_layers=2,
        vocab_size=tokenizer.n_vocab + N_PADDED,
        d_state=16,
        headdim=16,
        ngroups=2,
        tie_embeddings=False,
    )
    model = Mamba2(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            parameter.copy_(_value(name, torch.randn(parameter.shape, generator=generator)))
        assert isinstance(model.lm_head, nn.Linear)
        # Or lines and answers would hardly ever end before their limit.
        model.lm_head.weight[[tokenizer.eos_id, *tokenizer.encode("\n")]] *= 2
    return model.requires_grad_(False).eval()


def memory_of(model: Mamba2, n_tokens: int) -> float:
    """How far the next token's logits move when all but the last n tokens are other ones."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(100, 300, (2, 100 + n_tokens), generator=generator)
    tokens[1, -n_tokens:] = tokens[0, -n_tokens:]
    with torch.inference_mode():
        first, second = model.logits(model.prefill(tokens)[0][:, -1])
    return float((first - second).abs().max())


def _value(name: str, noise: Tensor) -> Tensor:
    """Slow decay and small steps, with a spread over the heads that shows a mix-up."""
    if name.endswith("dt_bias"):
        return -2 + 0.3 * noise
    if name.endswith("A_log"):
        return -3 + 0.3 * noise
    if name.endswith("mixer.D"):
        return 0.1 * noise
    if "norm" in name:
        return 1 + 0.1 * noise
    if "conv1d" in name:
        return 0.5 * noise
    return noise if "embeddings" in name else noise / math.sqrt(noise.shape[1])
