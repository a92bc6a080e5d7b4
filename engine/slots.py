"""Room for recurrent states, allocated once and handed out in slots."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from logging import getLogger
from typing import TYPE_CHECKING

import torch

from engine.state import RecurrentState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from engine.config import Mamba2Config

log = getLogger(__name__)


@contextmanager
def if_memory_allows(what: str) -> Iterator[None]:
    """Leave the block with a log line where memory runs out: what is kept can be done without."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        log.warning("no memory to %s: %s", what, error)


def is_out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """Tell whether memory ran out, a device's or the host's."""
    # A device's has an error class; the host's has a message alone, pinned or not.
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return "can't allocate memory" in str(error) or "out of memory" in str(error)


class StaleSlotError(RuntimeError):
    """A slot was used after it had been given to another state."""


@dataclass(frozen=True)
class Slot:
    """A place in a pool. It is good for as long as nobody else has been given the place."""

    index: int
    generation: int


class SlotPool:
    """States of one model in a fixed number of slots on one device.

    With `int8`, SSM states are kept as 8-bit rows with a float32 scale for each (head, channel):
    a quarter of the bytes, and no longer exact.
    """

    def __init__(
        self,
        config: Mamba2Config,
        budget_bytes: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        int8: bool = False,
        pinned: bool = False,
    ) -> None:
        """Allocate as many slots as fit into the budget; none where memory does not allow it."""
        self.int8 = int8
        self.slot_bytes = slot_bytes(config, dtype, int8=int8)
        ssm_shape = (config.n_layers, config.nheads, config.headdim, config.d_state)
        conv_shape = (config.n_layers, config.d_conv - 1, config.conv_dim)
        n_slots = max(0, budget_bytes // self.slot_bytes)
        self.n_slots = 0
        with if_memory_allows(f"keep {n_slots} states of {self.slot_bytes} bytes"):
            self._conv, self._ssm, self._scale = (
                torch.empty((n_slots, *shape), dtype=kind, device=device, pin_memory=pinned)
                for shape, kind in (
                    (conv_shape, dtype),
                    (ssm_shape, torch.int8 if int8 else torch.float32),
                    (ssm_shape[:-1] if int8 else (0,), torch.float32),
                )
            )
            self.n_slots = n_slots
        self._generation = [0] * self.n_slots
        self._free = list(range(self.n_slots - 1, -1, -1))

    @property
    def n_free(self) -> int:
        """Give the number of slots nobody has."""
        return len(self._free)

    @property
    def n_bytes(self) -> int:
        """Give the bytes of the slots in use."""
        return (self.n_slots - self.n_free) * self.slot_bytes

    def acquire(self) -> Slot | None:
        """Give a free slot, or None."""
        if not self._free:
            return None
        index = self._free.pop()
        return Slot(index, self._generation[index])

    def release(self, slot: Slot) -> None:
        """Take a slot back; every later use of it raises StaleSlotError."""
        self._check(slot)
        self._generation[slot.index] += 1
        self._free.append(slot.index)

    def clear(self) -> None:
        """Take all slots back."""
        self._generation = [generation + 1 for generation in self._generation]
        self._free = list(range(self.n_slots - 1, -1, -1))

    def write(self, slot: Slot, state: RecurrentState) -> None:
        """Copy a state (batch 1) into a slot, from whatever device it is on."""
        self._check(slot)
        self._conv[slot.index].copy_(state.conv_state[:, 0])
        ssm = state.ssm_state[:, 0]
        if not self.int8:
            self._ssm[slot.index].copy_(ssm)
            return
        scale = ssm.abs().amax(dim=-1) / 127.0  # (layers, h, p)
        rows = ssm / scale.clamp_min(1e-30)[..., None]
        self._ssm[slot.index].copy_(rows.round_().clamp_(-127, 127).to(torch.int8))
        self._scale[slot.index].copy_(scale)

    def read(self, slot: Slot, device: torch.device | str) -> RecurrentState:
        """Give the state in a slot: a view where it is float32 and on `device`, else a copy.

        A view is good until the slot is released. Raises StaleSlotError for a slot that was.
        """
        self._check(slot)
        conv = self._conv[slot.index].to(device, non_blocking=True)
        ssm = self._ssm[slot.index].to(device, non_blocking=True)
        if self.int8:
            scale: Tensor = self._scale[slot.index].to(device, non_blocking=True)
            ssm = ssm.float() * scale[..., None]
        return RecurrentState(conv[:, None], ssm[:, None])

    def _check(self, slot: Slot) -> None:
        if self._generation[slot.index] != slot.generation:
            raise StaleSlotError(
                f"slot {slot.index} is of generation {self._generation[slot.index]} now, this"
                f" handle of {slot.generation}: its state was given up"
            )


def slot_bytes(config: Mamba2Config, dtype: torch.dtype, *, int8: bool = False) -> int:
    """Give the bytes of one slot, in a model of this dtype."""
    specs = config.layer_states(dtype)
    if not int8:
        return sum(spec.n_bytes for spec in specs)
    rows = config.n_layers * config.nheads * config.headdim
    conv_bytes = sum(spec.n_bytes for spec in specs if spec.name == "conv_state")
    return conv_bytes + rows * (config.d_state + torch.float32.itemsize)
