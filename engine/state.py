"""What a Mamba-2 model remembers of the tokens it has read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from engine.config import Mamba2Config


@dataclass(frozen=True, eq=False)
class RecurrentState:
    """The state of all layers after some tokens; never changed in place once it is made.

    conv_state (n_layers, batch, d_conv - 1, conv_dim) in the model's dtype: the last inputs of the
    convolution, oldest first. ssm_state (n_layers, batch, nheads, headdim, d_state) float32.
    """

    conv_state: Tensor
    ssm_state: Tensor

    @classmethod
    def zeros(
        cls,
        config: Mamba2Config,
        *,
        batch: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> RecurrentState:
        """Give the state before any token."""
        conv_shape = (config.n_layers, batch, config.d_conv - 1, config.conv_dim)
        ssm_shape = (config.n_layers, batch, config.nheads, config.headdim, config.d_state)
        return cls(
            torch.zeros(conv_shape, dtype=dtype, device=device),
            torch.zeros(ssm_shape, dtype=torch.float32, device=device),
        )

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """Give the tensors in the order of the fields."""
        return self.conv_state, self.ssm_state

    @property
    def n_bytes(self) -> int:
        """Give the bytes that both tensors hold."""
        return self.conv_state.nbytes + self.ssm_state.nbytes

    def detach(self) -> RecurrentState:
        """Give the same state, cut off from the graph that computed it."""
        return RecurrentState(self.conv_state.detach(), self.ssm_state.detach())
