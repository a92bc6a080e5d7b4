"""Which files of a directory are the checkpoint, in the two layouts that are in use.

huggingface: `config.json`, `model*.safetensors`, names such as `backbone.embeddings.weight`.
mistral: `params.json`, `consolidated*.safetensors`, `model.backbone.embedding.weight`.
Either may be cut into shards, with or without an index.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.config import Mamba2Config
from engine.safetensors_header import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Names of the files and tensors of one kind of checkpoint."""

    name: str
    stem: str
    config_file: str
    read_config: Callable[[Mapping[str, Any]], Mamba2Config]
    prefix: str
    embedding: str

    @property
    def index_file(self) -> str:
        return f"{self.stem}.safetensors.index.json"

    def shards(self, directory: Path) -> list[Path]:
        """Every file that may be part of the weights."""
        return sorted(directory.glob(f"{self.stem}*.safetensors"))

    def stored_name(self, name: str) -> str:
        """How a parameter of the module is called in the files."""
        return self.prefix + name.replace("backbone.embeddings.", f"backbone.{self.embedding}.")


HUGGING_FACE = Layout(
    name="huggingface",
    stem="model",
    config_file="config.json",
    read_config=Mamba2Config.from_hugging_face,
    prefix="",
    embedding="embeddings",
)
MISTRAL = Layout(
    name="mistral",
    stem="consolidated",
    config_file="params.json",
    read_config=Mamba2Config.from_mistral,
    prefix="model.",
    embedding="embedding",
)
# Published directories may hold both; the first that is whole is used.
LAYOUTS = (HUGGING_FACE, MISTRAL)


def module_name(stored: str) -> str:
    """Give the module's parameter for a tensor's name in a file of either layout."""
    name = stored.removeprefix("model.")
    return name.replace("backbone.embedding.", "backbone.embeddings.")


def find_layout(path: Path) -> Layout:
    """Tell which layout the checkpoint in directory `path` has; raises CheckpointError."""
    if not path.is_dir():
        raise CheckpointError(
            path,
            expected="a directory with a checkpoint",
            found="a file" if path.exists() else "nothing",
            remedy="Check the spelling of the path.",
        )
    with_weights = [layout for layout in LAYOUTS if layout.shards(path)]
    for layout in with_weights:
        if (path / layout.config_file).exists():
            return layout
    for layout in with_weights:
        raise CheckpointError(
            path / layout.config_file,
            expected=f"the config that belongs to {layout.stem}*.safetensors",
            found="no such file",
            remedy=f"Put the checkpoint's own {layout.config_file} beside its weights.",
        )
    for layout in LAYOUTS:
        if (path / layout.index_file).exists():
            _indexed_files(path / layout.index_file)
    pickles = sorted(p.name for p in path.iterdir() if p.suffix in PICKLE_SUFFIXES)
    if pickles:
        raise CheckpointError(
            path / pickles[0],
            expected="weights as safetensors",
            found="a pickle, which is never loaded: it could run any code",
            remedy="Use a safetensors copy of the model, or convert it with its own tools.",
        )
    raise CheckpointError(
        path,
        expected="model*.safetensors or consolidated*.safetensors",
        found="no such file",
        remedy="Name a directory that holds a whole checkpoint.",
    )


def weight_files(path: Path, layout: Layout) -> list[Path]:
    """Give the files that hold the weights; raises CheckpointError where a shard is missing."""
    index = path / layout.index_file
    if index.exists():
        return _indexed_files(index)
    single = path / f"{layout.stem}.safetensors"
    if single.exists():
        return [single]
    shards = layout.shards(path)
    numbered = re.compile(rf"{layout.stem}-(\d+)-of-(\d+)\.safetensors")
    for match in filter(None, (numbered.fullmatch(shard.name) for shard in shards)):
        digits, total = len(match[1]), int(match[2])
        for number in range(1, total + 1):
            _check_exists(path / f"{layout.stem}-{number:0{digits}}-of-{match[2]}.safetensors")
    return shards


def read_config(file: Path, layout: Layout) -> Mamba2Config:
    """Read the layout's config file; raises CheckpointError, for an unknown family too."""
    content = _read_json(file)
    try:
        return layout.read_config(content)
    except ValueError as error:
        raise CheckpointError(
            file,
            expected="the config of a Mamba-2 model",
            found=f"one that says: {error}",
            remedy="Use a Mamba-2 checkpoint, with the config that came with it.",
        ) from error


def _indexed_files(index: Path) -> list[Path]:
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(
            index,
            expected="a weight_map from tensors to files",
            found=f"{type(weight_map).__name__} {str(weight_map)[:40]}",
            remedy="Fetch the file again.",
        )
    files = {}
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(
                index,
                tensor=tensor,
                expected="the name of a file in the same directory",
                found=repr(name),
                remedy="Fetch the file again.",
            )
        files[name] = index.parent / name
        if not files[name].exists():
            _check_exists(files[name], tensor)
    return [files[name] for name in sorted(files)]


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        content = error
    if not isinstance(content, dict):
        raise CheckpointError(
            file,
            expected="a JSON object",
            found=str(content)[:80],
            remedy="Fetch the file again.",
        )
    return content


def _check_exists(file: Path, tensor: str | None = None) -> None:
    if not file.exists():
        raise CheckpointError(
            file,
            tensor=tensor,
            expected="a shard of the weights",
            found="no such file",
            remedy="Fetch the missing file.",
        )
