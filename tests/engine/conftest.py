"""Tokenizers, and engines stepped by hand, that the engine's tests share."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mistral_common
import pytest
import torch

from engine.engine import Engine
from engine.tokenizer import Tokenizer
from perf.tiny_world import N_PADDED, train_tiny_tokenizer
from tests.engine.engine_world import Clock, Session, endless

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.mamba2 import Mamba2


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
    train_tiny_tokenizer(directory)
    return directory


@pytest.fixture(scope="session")
def tokenizer(small_tokenizer_dir: Path) -> Tokenizer:
    return Tokenizer.load(small_tokenizer_dir)


@pytest.fixture(scope="session")
def new_session(tiny_model: Callable[..., Mamba2], tokenizer: Tokenizer) -> Callable[..., Session]:
    """`new_session(model=None, **options)`: an engine stepped by hand; it ends no line by itself.

    Options are the engine's own.
    """

    def make(model: Mamba2 | None = None, **options: Any) -> Session:
        clock = Clock()
        model = model or endless(tiny_model(vocab_size=tokenizer.n_vocab + N_PADDED), tokenizer)
        return Session(Engine(model, tokenizer, clock=clock, **options), clock)

    return make


@pytest.fixture
def session(new_session: Callable[..., Session]) -> Session:
    return new_session()


@pytest.fixture
def started(tiny_model: Callable[..., Mamba2], tokenizer: Tokenizer) -> Engine:
    """An engine for a thread of its own; the test starts and closes it."""
    model = endless(tiny_model(vocab_size=tokenizer.n_vocab + N_PADDED), tokenizer)
    return Engine(model, tokenizer, n_threads=1)


@pytest.fixture
def speaking(
    tiny_model: Callable[..., Mamba2], tokenizer: Tokenizer, new_session: Callable[..., Session]
) -> Callable[..., Session]:
    """`speaking(prefix, text)`: a session whose model says `text` after `prefix`, then ends.

    The next token depends on the last one alone. So that no token comes twice, whatever the
    vocabulary, no character does, unless what follows is to be repeated.
    """

    def make(prefix: str, text: str) -> Session:
        n_vocab = tokenizer.n_vocab
        model: Any = tiny_model(vocab_size=n_vocab, n_layers=1, d_model=512, headdim=64)
        model.backbone.embeddings.weight.copy_(torch.eye(n_vocab, 512))
        model.backbone.norm_f.weight.fill_(1)
        model.backbone.layers[0].mixer.out_proj.weight.zero_()
        model.lm_head.weight.zero_()
        ids = [*tokenizer.encode(prefix)[-1:], *tokenizer.encode(text), tokenizer.eos_id]
        following: dict[int, int] = {}
        for token_id, next_id in itertools.pairwise(ids):
            if token_id not in following:
                following[token_id] = next_id
                model.lm_head.weight[next_id, token_id] = 1
        return new_session(model)

    return make
