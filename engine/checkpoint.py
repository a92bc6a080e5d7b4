"""Mamba-2 checkpoints: loading, and what their headers tell."""

from __future__ import annotations

import math
import os
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from engine.hub import fetch
from engine.layout import (
    Layout,
    find_layout,
    module_name,
    read_config,
    weight_files,
)
from engine.mamba2 import Mamba2
from engine.quantized import Quantization, QuantizedLinear
from engine.safetensors_header import (
    DTYPES,
    NOT_QUANTIZED,
    CheckpointError,
    StoredTensor,
    check_complete,
    read_header,
    unreadable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor

    from engine.config import Mamba2Config

__all__ = ["CheckpointError", "inspect", "load_model", "read_checkpoint", "resolve_model"]

EMBEDDED = Path(__file__).parent / "embedded"
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint's headers, checked against its config.

    `tensors` has exactly the module's parameters and buffers; `tied_head` is the second copy of
    tied embeddings that some tools write.
    """

    layout: Layout
    config: Mamba2Config
    tensors: Mapping[str, StoredTensor]
    tied_head: StoredTensor | None

    @property
    def dtype(self) -> torch.dtype:
        """What to run in: bfloat16 if the weights are, else float32 (float16's range is short)."""
        stored = self.tensors["backbone.norm_f.weight"].dtype
        return torch.bfloat16 if stored == torch.bfloat16 else torch.float32


def load_model(
    path: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    *,
    quantize: Quantization | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Mamba2:
    """Load the checkpoint in directory `path` for inference.

    `dtype` is the weights' (None: bfloat16 if stored so, else float32); the recurrence's own
    parameters stay float32. With `quantize` the projections and the head are quantized on the
    device as they come. The files are memory-mapped and copied tensor by tensor, so no second copy
    of the weights is ever held. `on_progress` is told the share that is done, 0 to 1. Raises
    CheckpointError, for a checkpoint that is already quantized in another way too.
    """
    checkpoint = read_checkpoint(path)
    config = _quantized_config(path, checkpoint, quantize)
    model = Mamba2(config, device="meta", dtype=dtype or checkpoint.dtype)
    targets = model.state_dict()
    weights: dict[str, Tensor] = {}
    n_done, n_weights = 0, sum(math.prod(stored.shape) for stored in checkpoint.tensors.values())
    for name, tensor in _read_tensors(checkpoint):
        if name in targets:
            # Copied: a view of the mapping would fault if the file were overwritten.
            weights[name] = tensor.to(device, targets[name].dtype, copy=True)
        else:
            layer = model.get_submodule(name.removesuffix(".weight"))
            assert isinstance(layer, QuantizedLinear), "names were checked"
            stored = checkpoint.tensors[name]
            weights |= _quantized(layer.kind, name, tensor.to(device), stored)
        n_done += tensor.numel()
        if on_progress is not None:
            on_progress(n_done / n_weights)
    if checkpoint.tied_head:
        _check_tied(checkpoint.tied_head, checkpoint.tensors["backbone.embeddings.weight"])
    model.load_state_dict(weights, strict=True, assign=True)
    return model.requires_grad_(False).eval()


def inspect(path: Path) -> dict[str, Any]:
    """Describe the checkpoint in directory `path` from its config and headers alone.

    The answer can be written as JSON; an infinite dt_limit is null. Raises CheckpointError.
    """
    checkpoint = read_checkpoint(path)
    plain = Mamba2(replace(checkpoint.config, quantization=None), device="meta")
    config = asdict(checkpoint.config)
    config["dt_limit"] = [bound if math.isfinite(bound) else None for bound in config["dt_limit"]]
    states = checkpoint.config.layer_states(checkpoint.dtype)
    state_bytes = {
        kind: sum(spec.n_bytes for spec in states if spec.name == f"{kind}_state")
        for kind in ("conv", "ssm")
    }
    return {
        "family": "mamba2",
        "parameters": sum(parameter.numel() for parameter in plain.parameters()),
        "config": config,
        "state_bytes": {**state_bytes, "total": sum(state_bytes.values())},
        "layout": checkpoint.layout.name,
        "dtype": str(checkpoint.dtype).removeprefix("torch."),
    }


def resolve_model(
    name_or_path: str | None, on_progress: Callable[[float], None] | None = None
) -> Path:
    """Give the directory of a model: None is the embedded one, else a directory or a hub id.

    A hub id is fetched, which `on_progress` is told of: see `hub.fetch`. Raises CheckpointError.
    """
    if name_or_path is None:
        return EMBEDDED
    # Not `Path.expanduser`, which raises where it knows no such home.
    path = Path(os.path.expanduser(name_or_path))
    if name_or_path and path.is_dir():
        return path
    if name_or_path and path.exists():
        raise CheckpointError(
            path, expected="a directory", found="a file", remedy="Name the directory it is in."
        )
    if not HUB_ID.fullmatch(name_or_path):
        raise CheckpointError(
            repr(name_or_path),
            expected="a directory with a checkpoint, or a hub id such as owner/name",
            found="neither",
            remedy="Check the spelling of the path.",
        )
    return fetch(name_or_path, on_progress)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the config and the headers in directory `path`, and check one against the other.

    No byte of a tensor is read. Raises CheckpointError.
    """
    layout = find_layout(path)
    files = weight_files(path, layout)
    config = read_config(path / layout.config_file, layout)
    stored: dict[str, StoredTensor] = {}
    for file in files:
        for tensor in read_header(file):
            name = module_name(tensor.name)
            if name in stored:
                raise CheckpointError(
                    file,
                    tensor=tensor.name,
                    expected="every tensor once",
                    found=f"a second one, the first is in {stored[name].file.name}",
                    remedy="Remove the files that belong to another checkpoint.",
                )
            stored[name] = tensor
    state = Mamba2(config, device="meta").state_dict()
    expected = {name: tuple(tensor.shape) for name, tensor in state.items()}
    may_have_copy = config.tie_embeddings and config.quantization is None
    tied_head = stored.pop("lm_head.weight", None) if may_have_copy else None
    _check_names(path, files, layout, expected, stored)
    for name, tensor in stored.items():
        _check_shape(tensor, expected[name], layout)
        _check_dtype(tensor, state[name].dtype)
    if tied_head:
        _check_shape(tied_head, expected["backbone.embeddings.weight"], layout)
    return Checkpoint(layout=layout, config=config, tensors=stored, tied_head=tied_head)


def _check_names(
    path: Path,
    files: list[Path],
    layout: Layout,
    expected: Mapping[str, tuple[int, ...]],
    stored: Mapping[str, StoredTensor],
) -> None:
    missing = [name for name in expected if name not in stored]
    if missing:
        raise CheckpointError(
            files[0] if len(files) == 1 else path,
            tensor=layout.stored_name(missing[0]),
            expected=f"shape {list(expected[missing[0]])}",
            found=f"no such tensor{_and_more(missing)}",
            remedy=f"Fetch the weights again, or the {layout.config_file} that belongs to them.",
        )
    extra = [name for name in stored if name not in expected]
    if extra:
        raise CheckpointError(
            stored[extra[0]].file,
            tensor=stored[extra[0]].name,
            expected=f"no such tensor in the model of {layout.config_file}",
            found=f"shape {list(stored[extra[0]].shape)}{_and_more(extra)}",
            remedy=f"Use the {layout.config_file} that belongs to the weights.",
        )


def _and_more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more like it)" if len(names) > 1 else ""


def _check_shape(tensor: StoredTensor, expected: tuple[int, ...], layout: Layout) -> None:
    if tensor.shape != expected:
        raise CheckpointError(
            tensor.file,
            tensor=tensor.name,
            expected=f"shape {list(expected)}",
            found=f"shape {list(tensor.shape)}",
            remedy=f"Use the {layout.config_file} that belongs to the weights.",
        )


def _check_dtype(tensor: StoredTensor, expected: torch.dtype) -> None:
    # Any float dtype is converted to what the model runs in.
    both = (tensor.dtype, expected)
    if tensor.dtype != expected and not all(dtype.is_floating_point for dtype in both):
        found, wanted = (next(n for n, dtype in DTYPES.items() if dtype == one) for one in both)
        raise CheckpointError(
            tensor.file,
            tensor=tensor.name,
            expected="floating point numbers" if expected.is_floating_point else wanted,
            found=found,
            remedy=NOT_QUANTIZED,
        )


def _quantized_config(
    path: Path, checkpoint: Checkpoint, quantize: Quantization | None
) -> Mamba2Config:
    """Give the config of the model to be made."""
    stored = checkpoint.config.quantization
    if quantize is None or quantize == stored:
        return checkpoint.config
    if stored is not None:
        raise CheckpointError(
            path,
            expected=f"weights to quantize to {quantize.name}",
            found=f"weights that are {stored.name} already",
            remedy="Use the checkpoint that it was quantized from, or do not quantize it again.",
        )
    try:
        return replace(checkpoint.config, quantization=quantize)
    except ValueError as error:
        raise CheckpointError(
            path,
            expected=f"a model that can be quantized to {quantize.name}",
            found=f"one that cannot: {error}",
            remedy="The original weights can be used as they are.",
        ) from error


def _quantized(
    kind: Quantization, name: str, weight: Tensor, stored: StoredTensor
) -> dict[str, Tensor]:
    """Give the buffers of a layer by their names, from its weight's name and value."""
    try:
        made = kind.apply(weight)
    except ValueError as error:
        raise CheckpointError(
            stored.file,
            tensor=stored.name,
            expected=f"weights that can be quantized to {kind.name}",
            found=f"some that cannot: {error}",
            remedy="Fetch the file again, or use it without quantizing.",
        ) from error
    stem = name.removesuffix("weight")
    return {stem + part: tensor for part, tensor in made.tensors.items()}


def _read_tensors(checkpoint: Checkpoint) -> Iterator[tuple[str, Tensor]]:
    """Yield the module's names with views of the files, file by file."""
    by_file: dict[Path, list[str]] = {}
    for name, stored in checkpoint.tensors.items():
        by_file.setdefault(stored.file, []).append(name)
    for file, names in by_file.items():
        check_complete(file, [checkpoint.tensors[name] for name in names])
        try:
            with safe_open(file, framework="pt", device="cpu") as opened:
                for name in names:
                    yield name, opened.get_tensor(checkpoint.tensors[name].name)
        except SafetensorError as error:
            raise unreadable(file, str(error)) from error


def _check_tied(head: StoredTensor, embeddings: StoredTensor) -> None:
    check_complete(head.file, [head])
    with (
        safe_open(head.file, framework="pt", device="cpu") as of_head,
        safe_open(embeddings.file, framework="pt", device="cpu") as of_embeddings,
    ):
        stored = of_embeddings.get_tensor(embeddings.name)
        same = torch.equal(of_head.get_tensor(head.name).to(stored), stored)
    if not same:
        raise CheckpointError(
            head.file,
            tensor=head.name,
            expected="the embeddings' values, which the config says are tied to it",
            found="other values",
            remedy="Use the config that belongs to the weights: its embeddings are not tied.",
        )
