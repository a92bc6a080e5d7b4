"""One model behind three ways of keeping states: this cache, one that only appends, none."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import torch

from engine.cache import Checkpoint, StateCache
from engine.checkpoint import load_model, resolve_model
from engine.engine import Engine
from engine.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from engine.mamba2 import Mamba2
    from engine.slots import SlotPool
    from perf.replay import MakeEngine


class AppendOnlyCache(StateCache):
    """A prefix cache that keeps the end of each prompt and nothing before it."""

    def add(self, checkpoint: Checkpoint, owner: Hashable = None) -> bool:
        """Keep a checkpoint in place of the owner's others."""
        added = super().add(checkpoint, owner)
        for entry in list(self._owned.get(owner, ())):
            if len(entry.ids) != len(checkpoint.ids) and not entry.n_leases:
                self._drop(entry, "replaced")
        return added


class AppendOnlyEngine(Engine):
    """An engine as others have it: a state can only grow."""

    def _begin(self, tiers: Sequence[SlotPool]) -> None:
        super()._begin(tiers)
        self.cache = self.decoder.cache = AppendOnlyCache(self.cache.tiers, self.cache.device)
        self.decoder.trail_budget_bytes = 0


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A model and its tokenizer, for engines that are stepped by hand."""

    model: Mamba2 = field(repr=False)
    tokenizer: Tokenizer = field(repr=False)

    @classmethod
    def load(cls, name: str | None) -> Self:
        """Load a model in float32 (None: the embedded one). Raises CheckpointError."""
        path = resolve_model(name)
        return cls(model=load_model(path, dtype=torch.float32), tokenizer=Tokenizer.load(path))

    def this(self, clock: Callable[[], float] = time.monotonic, **options: Any) -> Engine:
        """Make an engine as it is."""
        return Engine(self.model, self.tokenizer, clock=clock, **options)

    def append_only(self, clock: Callable[[], float] = time.monotonic) -> Engine:
        """Make an engine whose cache can only append."""
        return AppendOnlyEngine(self.model, self.tokenizer, clock=clock)

    def none(self, clock: Callable[[], float] = time.monotonic) -> Engine:
        """Make an engine that keeps nothing."""
        return Engine(self.model, self.tokenizer, clock=clock, budget_bytes=0)

    @property
    def caches(self) -> Mapping[str, MakeEngine]:
        """Give the three by name."""
        return {"this cache": self.this, "append only": self.append_only, "none": self.none}
