"""Which token comes next: the most probable ones among those that may, copied ones weighed anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernels.token_choice import on_device, on_host
from kernels.token_choice.choice import Choice, Copied
from kernels.token_choice.on_device import distribution

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from torch import Tensor

__all__ = ["Choice", "Copied", "choose", "distribution", "log_mass"]


def choose(
    row: Tensor, ends: Tensor, steps: Sequence[int] = (), copied: Sequence[Copied] = ()
) -> Choice:
    """Choose from logits (vocab_size,); arguments as in `reference`. Waits for a device once."""
    return _version(row).choose(row, ends, steps, copied)


def log_mass(row: Tensor) -> float:
    """Give the log-sum-exp of all logits (vocab_size,): against it a choice's `mass` is held."""
    return _version(row).log_mass(row)


def _version(row: Tensor) -> ModuleType:
    return on_host if row.device.type == "cpu" else on_device
