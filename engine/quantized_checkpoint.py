"""Writes a checkpoint whose weights are quantized, so that loading it takes no quantizing."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import save_file

from engine.checkpoint import load_model
from engine.layout import HUGGING_FACE, LAYOUTS
from engine.safetensors_header import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from engine.mamba2 import Mamba2
    from engine.quantized import Quantization

# Writing a file takes as much memory again.
SHARD_BYTES = 2**30
# What belongs to a model beside its weights and their config.
BESIDE = ("tokenizer*", "*.json", "LICENSE*")
# In the new directory, until it is whole.
PART = "unfinished.part"


def write_quantized(
    source: Path,
    target: Path,
    quantize: Quantization,
    on_progress: Callable[[float], None] | None = None,
) -> None:
    """Quantize the checkpoint in directory `source` into the new directory `target`.

    In Hugging Face's layout, whatever that of `source`: the config says what the weights are under
    `quantization_config`, and a layer's `weight` is `values`, `scales` and, where there are any,
    `zero_points` (see `kernels.quantized_linear.weight`). All else is as a load gives
    it. What comes with the model, its tokenizer first, is copied. All is written into a directory
    in the new one and moved out of it at the end. Raises CheckpointError, OSError.
    """
    part = target / PART
    is_new = not target.exists()
    if not is_new and (not target.is_dir() or any(path != part for path in target.iterdir())):
        raise CheckpointError(
            target,
            expected="a directory that is empty, or none yet",
            found="a directory with files in it" if target.is_dir() else "a file",
            remedy="Name another one.",
        )
    model = load_model(source, quantize=quantize, on_progress=on_progress)
    # What a run that was killed has left.
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        _write(model, source, part)
        # The config last: without it nothing here is a checkpoint.
        for file in sorted(part.iterdir(), key=lambda file: file.name == HUGGING_FACE.config_file):
            file.rename(target / file.name)
        part.rmdir()
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        if is_new:
            # Whatever somebody else has put there stays.
            with suppress(OSError):
                target.rmdir()
        raise


def _write(model: Mamba2, source: Path, target: Path) -> None:
    """Write the weights and the config of a model, and copy what else comes with `source`."""
    shards = _shards(model.state_dict())
    for i, shard in enumerate(shards):
        number = f"-{i + 1:05}-of-{len(shards):05}" if len(shards) > 1 else ""
        file = target / f"{HUGGING_FACE.stem}{number}.safetensors"
        try:
            save_file(shard, file, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(f"{file}: {error}") from error
    content = json.dumps(model.config.to_hugging_face(), indent=2)
    (target / HUGGING_FACE.config_file).write_text(content + "\n", encoding="utf-8")
    not_copied = {name for layout in LAYOUTS for name in (layout.config_file, layout.index_file)}
    for pattern in BESIDE:
        for file in source.glob(pattern):
            if file.is_file() and file.name not in not_copied:
                shutil.copyfile(file, target / file.name)


def _shards(weights: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Cut weights into parts of about a gigabyte."""
    shards: list[dict[str, Tensor]] = [{}]
    n_bytes = 0
    for name, tensor in weights.items():
        if n_bytes and n_bytes + tensor.nbytes > SHARD_BYTES:
            shards.append({})
            n_bytes = 0
        shards[-1][name] = tensor
        n_bytes += tensor.nbytes
    return shards
