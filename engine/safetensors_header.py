"""Headers of safetensors files, read without touching a tensor.

A file is the length of its header (8 bytes, little-endian), the header (JSON, from a tensor's name
to its dtype, shape and data_offsets), then the tensors' bytes.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from pathlib import Path

DTYPES = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    # Of weights that are quantized.
    "I8": torch.int8,
    "U8": torch.uint8,
}
NOT_QUANTIZED = (
    "Use a checkpoint that is not quantized, or one that `keystate quantize` has written."
)
MAX_HEADER_BYTES = 100_000_000  # the format's own limit
LFS_POINTER = b"version https://git-lfs"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: which file and tensor, expected, found, and the remedy."""

    def __init__(
        self, file: Path | str, *, expected: str, found: str, remedy: str, tensor: str | None = None
    ) -> None:
        where = f"{file}: tensor {tensor}" if tensor else str(file)
        super().__init__(f"{where}: expected {expected}, found {found}. {remedy}")


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """One entry of a safetensors header; `end` is the size of a file that holds all its bytes."""

    file: Path
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    end: int


def read_header(file: Path) -> list[StoredTensor]:
    with file.open("rb") as opened:
        start = opened.read(8)
        if LFS_POINTER.startswith(start) and start:
            raise CheckpointError(
                file,
                expected="a safetensors file",
                found="a Git LFS pointer to one",
                remedy="Run `git lfs pull` in that directory.",
            )
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= MAX_HEADER_BYTES:
            raise unreadable(file, f"a header of {length} bytes")
        content = opened.read(length)
    if len(content) < length:
        raise unreadable(file, f"a header cut off after {len(content)} of {length} bytes")
    try:
        header = json.loads(content)
        header.pop("__metadata__", None)
        return [_read_entry(file, 8 + length, name, entry) for name, entry in header.items()]
    except (
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        if isinstance(error, CheckpointError):
            raise
        raise unreadable(file, f"a broken header ({error})") from error


def _read_entry(file: Path, data_start: int, name: str, entry: dict[str, Any]) -> StoredTensor:
    if entry["dtype"] not in DTYPES:
        raise CheckpointError(
            file,
            tensor=name,
            expected=f"one of the dtypes {', '.join(DTYPES)}",
            found=str(entry["dtype"]),
            remedy=NOT_QUANTIZED,
        )
    return StoredTensor(
        file=file,
        name=name,
        dtype=DTYPES[entry["dtype"]],
        shape=tuple(int(size) for size in entry["shape"]),
        end=data_start + int(entry["data_offsets"][1]),
    )


def check_complete(file: Path, tensors: list[StoredTensor]) -> None:
    """Raise for the first tensor that the file is too short for."""
    size = file.stat().st_size
    for tensor in sorted(tensors, key=lambda tensor: tensor.end):
        if tensor.end > size:
            raise CheckpointError(
                file,
                tensor=tensor.name,
                expected=f"a file of at least {tensor.end} bytes",
                found=f"{size} bytes: it is truncated",
                remedy="Fetch the file again.",
            )


def unreadable(file: Path, found: str) -> CheckpointError:
    return CheckpointError(
        file, expected="a safetensors file", found=found, remedy="Fetch the file again."
    )
