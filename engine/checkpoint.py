"""Mamba-2 checkpoints: loading, and what their headers tell."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from engine.layout import (
    HUGGING_FACE,
    MISTRAL,
    Layout,
    find_layout,
    module_name,
    read_config,
    weight_files,
)
from engine.mamba2 import Mamba2
from engine.safetensors_header import (
    CheckpointError,
    StoredTensor,
    check_complete,
    read_header,
    unreadable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.config import Mamba2Config

__all__ = ["CheckpointError", "inspect", "load_model", "read_checkpoint", "resolve_model"]

EMBEDDED = Path(__file__).parent / "embedded"
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint's headers, checked against its config.

    `tensors` has exactly the module's parameters; `tied_head` is the second copy of tied
    embeddings that some tools write.
    """

    layout: Layout
    config: Mamba2Config
    tensors: Mapping[str, StoredTensor]
    tied_head: StoredTensor | None

    @property
    def dtype(self) -> torch.dtype:
        """What to run in: bfloat16 if the embedding is, else float32 (float16's range is short)."""
        stored = self.tensors["backbone.embeddings.weight"].dtype
        return torch.bfloat16 if stored == torch.bfloat16 else torch.float32


def load_model(
    path: Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> Mamba2:
    """Load the checkpoint in directory `path` for inference.

    `dtype` is the weights' (None: bfloat16 if stored so, else float32); the recurrence's own
    parameters stay float32. The files are memory-mapped and copied tensor by tensor, so no second
    copy of the weights is ever held. Raises CheckpointError.
    """
    checkpoint = read_checkpoint(path)
    model = Mamba2(checkpoint.config, device="meta", dtype=dtype or checkpoint.dtype)
    targets = dict(model.named_parameters())
    by_file: dict[Path, list[str]] = {}
    for name, stored in checkpoint.tensors.items():
        by_file.setdefault(stored.file, []).append(name)
    weights = {}
    for file, names in by_file.items():
        check_complete(file, [checkpoint.tensors[name] for name in names])
        try:
            with safe_open(file, framework="pt", device="cpu") as opened:
                for name in names:
                    tensor = opened.get_tensor(checkpoint.tensors[name].name)
                    # Copied: a view of the mapping would fault if the file were overwritten.
                    weights[name] = tensor.to(device, targets[name].dtype, copy=True)
        except SafetensorError as error:
            raise unreadable(file, str(error)) from error
    if checkpoint.tied_head:
        _check_tied(checkpoint.tied_head, weights["backbone.embeddings.weight"])
    model.load_state_dict(weights, strict=True, assign=True)
    return model.requires_grad_(False).eval()


def inspect(path: Path) -> dict[str, Any]:
    """Describe the checkpoint in directory `path` from its config and headers alone.

    The answer can be written as JSON; an infinite dt_limit is null. Raises CheckpointError.
    """
    checkpoint = read_checkpoint(path)
    config = asdict(checkpoint.config)
    config["dt_limit"] = [bound if math.isfinite(bound) else None for bound in config["dt_limit"]]
    states = checkpoint.config.layer_states(checkpoint.dtype)
    state_bytes = {
        kind: sum(spec.n_bytes for spec in states if spec.name == f"{kind}_state")
        for kind in ("conv", "ssm")
    }
    return {
        "family": "mamba2",
        "parameters": sum(math.prod(tensor.shape) for tensor in checkpoint.tensors.values()),
        "config": config,
        "state_bytes": {**state_bytes, "total": sum(state_bytes.values())},
        "layout": checkpoint.layout.name,
        "dtype": str(checkpoint.dtype).removeprefix("torch."),
    }


def resolve_model(name_or_path: str | None) -> Path:
    """Give the directory of a model: None is the embedded one, else a directory or a hub id.

    A hub id is fetched, safetensors, JSON and tokenizer files only. Raises CheckpointError.
    """
    if name_or_path is None:
        return EMBEDDED
    path = Path(name_or_path).expanduser()
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
    return _fetch(name_or_path)


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
    parameters = Mamba2(config, device="meta").named_parameters()
    expected = {name: tuple(parameter.shape) for name, parameter in parameters}
    tied_head = stored.pop("lm_head.weight", None) if config.tie_embeddings else None
    _check_names(path, files, layout, expected, stored)
    for name, tensor in stored.items():
        _check_shape(tensor, expected[name], layout)
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


def _check_tied(head: StoredTensor, embeddings: torch.Tensor) -> None:
    check_complete(head.file, [head])
    with safe_open(head.file, framework="pt", device="cpu") as opened:
        same = torch.equal(opened.get_tensor(head.name).to(embeddings), embeddings)
    if not same:
        raise CheckpointError(
            head.file,
            tensor=head.name,
            expected="the embeddings' values, which the config says are tied to it",
            found="other values",
            remedy="Use the config that belongs to the weights: its embeddings are not tied.",
        )


def _fetch(hub_id: str) -> Path:
    # Imported here: loading a directory needs no network code.
    import huggingface_hub

    patterns = ["*.json", "tokenizer*", f"{HUGGING_FACE.stem}*.safetensors"]
    try:
        path = Path(huggingface_hub.snapshot_download(hub_id, allow_patterns=patterns))
        # Only now, because a repository with both layouts would send everything twice.
        if not any(path.glob(f"{HUGGING_FACE.stem}*.safetensors")):
            patterns = [f"{MISTRAL.stem}*.safetensors"]
            path = Path(huggingface_hub.snapshot_download(hub_id, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(
            hub_id,
            expected="a directory, or a model that the hub has or the local cache holds",
            found=f"{type(error).__name__}: {reason}",
            remedy="Check the spelling and the network, or name a directory.",
        ) from error
    return path
