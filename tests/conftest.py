"""Tiny random Mamba-2 models that remember: what most tests of the engine run on.

A random model with default initialization forgets within a few tokens, so that a lost or stale
state would go unseen. These keep about 160 tokens (`tests/engine/test_tiny_models.py` holds that).
"""

from __future__ import annotations

import json
import math
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file

from engine.checkpoint import EMBEDDED
from engine.config import Mamba2Config
from engine.mamba2 import Mamba2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from torch import Tensor


if not torch.cuda.is_available():
    # Before anything imports Triton: without a GPU its kernels are interpreted.
    os.environ["TRITON_INTERPRET"] = "1"


def randomize(parameters: Iterable[tuple[str, Tensor]], seed: int) -> None:
    """Give every parameter a random value with long memory, the same for the same seed and names.

    dt_bias is about -2 and A_log about -3, with a spread over the heads that shows a mix-up.
    """
    with torch.no_grad():
        for i, (name, parameter) in enumerate(sorted(parameters)):
            generator = torch.Generator().manual_seed(1000 * seed + i)
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("dt_bias"):
                value = -2 + 0.3 * noise
            elif name.endswith("A_log"):
                value = -3 + 0.3 * noise
            elif name.endswith("mixer.D"):
                value = 0.1 * noise
            elif "norm" in name:
                value = 1 + 0.1 * noise
            elif name.endswith("conv1d.bias"):
                value = 0.3 * noise
            elif "conv1d" in name:
                value = 0.5 * noise
            elif "embeddings" in name:
                value = noise
            else:
                value = noise / math.sqrt(parameter.shape[1])
            parameter.copy_(value)


def make_tiny_model(seed: int = 0, **overrides: Any) -> Mamba2:
    sizes = {
        "d_model": 64,
        "n_layers": 2,
        "vocab_size": 256,
        "d_state": 16,
        "headdim": 16,
        "ngroups": 2,
        "tie_embeddings": False,
    }
    model = Mamba2(Mamba2Config(**{**sizes, **overrides}))
    randomize(model.named_parameters(), seed)
    return model.requires_grad_(False).eval()


def save_hugging_face(model: Mamba2, directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(model.config.to_hugging_face()))
    return directory


@pytest.fixture(scope="session", autouse=True)
def _own_cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test leaves anything in the user's cache folder, nor do the servers it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny tensors gain nothing from threads, and lose a factor of five where cores are busy."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., Mamba2]:
    """`tiny_model(seed=0, **config)`: a random float32 model; equal arguments, equal weights."""
    return make_tiny_model


@pytest.fixture(scope="session")
def save_checkpoint() -> Callable[[Mamba2, Path], Path]:
    """`save_checkpoint(model, directory)` writes it in Hugging Face's layout, no tokenizer."""
    return save_hugging_face


@pytest.fixture(scope="session")
def model_directory(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Callable[..., Any],
    save_checkpoint: Callable[[Any, Path], Path],
) -> Path:
    """A random model in Hugging Face's layout beside the embedded model's tokenizer."""
    directory = tmp_path_factory.mktemp("models") / "tiny"
    save_checkpoint(tiny_model(vocab_size=8192), directory)
    shutil.copy(EMBEDDED / "tokenizer.model", directory)
    return directory


@pytest.fixture(scope="session")
def randomize_parameters() -> Callable[[Iterable[tuple[str, Tensor]], int], None]:
    """`randomize_parameters(named_parameters, seed)`: long memory for any model of these names."""
    return randomize
