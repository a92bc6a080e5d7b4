"""Models of the hub: fetched once, into the cache that all of its clients share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.layout import HUGGING_FACE, MISTRAL
from engine.safetensors_header import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable


def fetch(hub_id: str, on_progress: Callable[[float], None] | None = None) -> Path:
    """The folder of a model: what is missing is downloaded, safetensors, JSON and tokenizer alone.

    `on_progress` is told the share of the bytes that are known of, 0 to 1, from several threads;
    left out, the hub's client shows bars where there is a terminal. Raises CheckpointError.
    """
    # Imported here: loading a directory needs no network code.
    import huggingface_hub

    bar = None if on_progress is None else _bar(on_progress)

    def download(*patterns: str) -> Path:
        path = huggingface_hub.snapshot_download(
            hub_id, allow_patterns=list(patterns), tqdm_class=bar
        )
        return Path(path)

    try:
        path = download("*.json", "tokenizer*", f"{HUGGING_FACE.stem}*.safetensors")
        # Only now, because a repository with both layouts would send everything twice.
        if not any(path.glob(f"{HUGGING_FACE.stem}*.safetensors")):
            path = download(f"{MISTRAL.stem}*.safetensors")
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(
            hub_id,
            expected="a directory, or a model that the hub has or the local cache holds",
            found=f"{type(error).__name__}: {reason}",
            remedy="Check the spelling and the network, or name a directory.",
        ) from error
    return path


def _bar(on_progress: Callable[[float], None]) -> type[Any]:
    """A progress bar that is not drawn: of those that the hub's client makes, it tells of bytes."""
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._n_done = kwargs.get("initial", 0)
            # Another counts files, most of which are small.
            self._is_told = kwargs.get("unit") == "B"
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> None:
            self._n_done += n or 0
            if self._is_told and self.total:
                on_progress(min(1.0, self._n_done / self.total))

    return Bar
