"""Mixes the languages' samples so that each gets its share of the tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from training.samples import Sampler

# Shares of the tokens. Python is what must be good.
SHARES = {"python": 0.6, "javascript": 0.075, "typescript": 0.075, "go": 0.125, "rust": 0.125}


@dataclass
class Mixture:
    """Draws from the languages' samplers so that tokens come in the proportions of `shares`.

    Shares are relative to one another; a language without a sampler gets none.
    """

    samplers: dict[str, Sampler]
    seed: int
    shares: dict[str, float] = field(default_factory=lambda: SHARES)
    rng: np.random.Generator = field(init=False)
    _given: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        """Seed the generator."""
        self.rng = np.random.default_rng(self.seed)
        # Streams side by side must not all go through the languages in the same order.
        self._given = {
            language: self.rng.random() * 2000 * self.shares[language] for language in self.samplers
        }

    def sample(self) -> list[int]:
        """Give a sample of the language that is furthest below its share."""
        language = min(self._given, key=lambda each: self._given[each] / self.shares[each])
        ids = self.samplers[language].sample()
        self._given[language] += len(ids)
        return ids
