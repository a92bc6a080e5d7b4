"""Tokenizers that the engine's tests share."""

from __future__ import annotations

import shutil
from pathlib import Path

import mistral_common
import pytest
import sentencepiece

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def mistral_tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Codestral's tokenizer, as a checkpoint has it."""
    directory = tmp_path_factory.mktemp("mistral-tokenizer")
    package = Path(next(iter(mistral_common.__path__)))
    model = package / "data" / "mistral_instruct_tokenizer_240323.model.v3"
    shutil.copy(model, directory / "tokenizer.model.v3")
    return directory


@pytest.fixture(scope="session")
def small_tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer of 400 pieces that has the embedded model's options."""
    directory = tmp_path_factory.mktemp("small-tokenizer")
    lines = [
        line
        for path in sorted((REPOSITORY / "engine").glob("*.py"))
        for line in path.read_text(encoding="utf-8").split("\n")
        if line and "\t" not in line
    ]
    with (directory / "tokenizer.model").open("wb") as model:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            vocab_size=400,
            model_type="bpe",
            # The rarest characters stay byte pieces.
            character_coverage=0.995,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            byte_fallback=True,
            control_symbols=["[PREFIX]", "[MIDDLE]", "[SUFFIX]"],
            minloglevel=2,
            num_threads=1,
        )
    return directory
