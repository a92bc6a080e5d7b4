"""States of recently edited documents, saved on exit and taken up on the next start.

A folder a model, side by side, with a cap on what they hold in all. One safetensors file a
checkpoint, named by the hash of its token ids; each says which model, tokenizer and format it
belongs to. Several processes may save into one folder, as the windows of an editor do that all
close at once: each replaces what it has found there and gone on from, and what it has written
itself. What it has not gone on from stays for a week.

Files are readable by their owner alone and hold token ids and states, which tell about the text
they were made from: `Engine` saves none unless it is given a folder, and none for documents that
its caller excludes.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from logging import getLogger
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from engine.cache import Checkpoint
from engine.owner_file import PART_SUFFIX, write_owner_file
from engine.saved_files import Leftovers, SavedFile, delete, mark_used, saved_files
from engine.state import RecurrentState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from engine.mamba2 import Mamba2
    from engine.quantized import Quantization

log = getLogger(__name__)

FORMAT = "keystate-state-1"
DEFAULT_CAP_BYTES = 256 * 2**20
# What nobody has gone on from in a week is of little use; each start reads it.
UNCLAIMED_S = 7 * 24 * 3600.0
# No file is written for as long: what is half-written then is of a process that was killed.
PART_S = 60.0
# Of every weight file: enough to tell two models apart without reading 14 GB.
_SAMPLE_BYTES = 2**16
_N_SAMPLES = 16


@dataclass(frozen=True)
class SavedStates:
    """A folder of states of one model, beside those of others."""

    folder: Path
    model_id: str
    cap_bytes: int = DEFAULT_CAP_BYTES
    # What this process has found there, or written.
    _known: set[Path] = field(default_factory=set, init=False, repr=False, compare=False)

    @classmethod
    def of_model(
        cls,
        parent: Path,
        directory: Path,
        *,
        dtype: torch.dtype,
        quantization: Quantization | None = None,
        int8_states: bool = False,
    ) -> SavedStates:
        """Give the folder below `parent` for the model in `directory` at this dtype.

        Quantized weights are another model. States that were kept as int8 have a folder and an id
        of their own: they are not exact, and no engine that is may go on from them.
        """
        kind = "" if quantization is None else f"-{quantization.name}-weights"
        kind += "-int8" if int8_states else ""
        model_id = fingerprint(directory)
        return cls(parent / f"{model_id[:16]}-{dtype}{kind}", model_id + kind)

    def save(
        self,
        checkpoints: Iterable[Checkpoint],
        unclaimed: Iterable[NDArray[np.int32]] = (),
    ) -> int:
        """Replace what this process knows of, the first checkpoints first; give the number saved.

        `unclaimed`: the ids of loaded ones that nobody went on from: they stay for a week. Where
        there is no room for all, the oldest goes of what other processes and models saved.
        """
        waiting = {state_path(self.folder, self.model_id, ids) for ids in unclaimed}
        now_s = time.time()

        def is_replaced(file: SavedFile) -> bool:
            age_s = now_s - file.changed_s
            if file.path.suffix == PART_SUFFIX:
                return age_s > PART_S
            if file.path in waiting:
                return age_s > UNCLAIMED_S
            return file.path in self._known

        def noted() -> Iterator[Checkpoint]:
            for checkpoint in checkpoints:
                self._known.add(state_path(self.folder, self.model_id, checkpoint.ids))
                yield checkpoint

        return save_states(self.folder, self.model_id, noted(), self.cap_bytes, is_replaced)

    def load(self, model: Mamba2) -> Iterator[Checkpoint]:
        """Yield what is saved and fits the model; what models saved that are long unused goes."""
        mark_used(self.folder)
        self._known.update(file.path for file in saved_files(self.folder))
        return load_states(self.folder, self.model_id, model)


def fingerprint(directory: Path) -> str:
    """Give an id of a checkpoint folder's weights, config and tokenizer."""
    digest = hashlib.sha256(FORMAT.encode())
    for path in sorted(directory.iterdir()):
        if not path.is_file() or path.suffix not in {".safetensors", ".json", ".model", ".v3"}:
            continue
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}".encode())
        with path.open("rb") as file:
            for i in range(_N_SAMPLES if size > _N_SAMPLES * _SAMPLE_BYTES else 1):
                file.seek(i * size // _N_SAMPLES)
                n_bytes = _SAMPLE_BYTES if size > _N_SAMPLES * _SAMPLE_BYTES else size
                digest.update(file.read(n_bytes))
    return digest.hexdigest()


def state_path(folder: Path, model_id: str, ids: NDArray[np.int32]) -> Path:
    """Give the file of the state after `ids`."""
    name = hashlib.sha256(ids.tobytes() + model_id.encode()).hexdigest()[:32]
    return folder / f"{name}.safetensors"


def save_states(
    folder: Path,
    model_id: str,
    checkpoints: Iterable[Checkpoint],
    cap_bytes: int,
    is_replaced: Callable[[SavedFile], bool] = lambda _: True,
) -> int:
    """Replace what `folder` holds by these checkpoints, the first ones first, up to the cap.

    `is_replaced`: whether a file there gives way to them. The cap is for the folders of other
    models beside it as well; of all that stays the oldest files go. Gives the number saved. What
    cannot be written is logged and left out.
    """
    kept: set[Path] = set()
    n_bytes = 0
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        before = Leftovers(folder, kept, is_replaced)
        for checkpoint in checkpoints:
            # Large ones take a second to pack, which would be for nothing each time.
            if n_bytes + checkpoint.state.n_bytes > cap_bytes:
                break
            content = _packed(checkpoint, model_id)
            if n_bytes + len(content) > cap_bytes:
                break
            path = state_path(folder, model_id, checkpoint.ids)
            n_bytes += len(content)
            before.shrink(cap_bytes - n_bytes)
            write_owner_file(path, content)
            kept.add(path)
        for file in saved_files(folder):
            if file.path not in kept and is_replaced(file):
                delete(file.path)
        # Others may have saved meanwhile.
        Leftovers(folder, kept, is_replaced).shrink(cap_bytes - n_bytes)
    except (OSError, MemoryError, RuntimeError) as error:
        log.warning("states were not saved for the next start: %s", error)
    return len(kept)


def load_states(folder: Path, model_id: str, model: Mamba2) -> Iterator[Checkpoint]:
    """Yield the checkpoints in `folder` that belong to this model; others are logged, not used."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".safetensors")
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("no states were taken up: %s", error)
        return
    for path in paths:
        try:
            yield _unpacked(path, model_id, model)
        except (SafetensorError, OSError, ValueError, KeyError, MemoryError, RuntimeError) as error:
            log.info("a saved state is not used: %s: %s", path.name, error)


def _packed(checkpoint: Checkpoint, model_id: str) -> bytes:
    ids = np.ascontiguousarray(checkpoint.ids)
    tensors = {
        "ids": torch.from_numpy(ids.copy()),
        "conv_state": checkpoint.state.conv_state,
        "ssm_state": checkpoint.state.ssm_state,
        "hidden": checkpoint.hidden,
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = b"".join(_bytes(tensors[name]) for name in sorted(tensors))
    return save(
        tensors,
        metadata={
            "format": FORMAT,
            "model": model_id,
            "sha256": hashlib.sha256(content).hexdigest(),
        },
    )


def _unpacked(path: Path, model_id: str, model: Mamba2) -> Checkpoint:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise ValueError(f"format {metadata.get('format')!r}, expected {FORMAT!r}")
        if metadata.get("model") != model_id:
            raise ValueError("it is of another model")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    content = b"".join(_bytes(tensors[name]) for name in sorted(tensors))
    if hashlib.sha256(content).hexdigest() != metadata.get("sha256"):
        raise ValueError("it is damaged")
    empty = model.initial_state()
    n_ids = tensors["ids"].numel()
    for name, shape, dtype in (
        ("ids", (n_ids,), torch.int32),
        ("hidden", (model.config.d_model,), model.dtype),
        ("conv_state", empty.conv_state.shape, empty.conv_state.dtype),
        ("ssm_state", empty.ssm_state.shape, empty.ssm_state.dtype),
    ):
        found = tensors[name]
        if found.shape != shape or found.dtype != dtype:
            raise ValueError(f"{name} is {found.dtype} {tuple(found.shape)}")
    # Copied, or they would keep the file mapped.
    ids, hidden = tensors["ids"].numpy().copy(), tensors["hidden"].clone().to(model.device)
    state = RecurrentState(
        tensors["conv_state"].to(model.device), tensors["ssm_state"].to(model.device)
    )
    return Checkpoint(ids, state, hidden)


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
