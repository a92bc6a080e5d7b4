"""Numbers on their way from the host to a device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def send(values: Sequence[float] | Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Give numbers as a tensor on a device, without waiting for what the device is doing."""
    tensor = torch.as_tensor(values, dtype=dtype)
    if device.type != "cuda":
        return tensor
    # Only from pinned memory does a copy line up behind the device's work instead of waiting.
    return tensor.pin_memory().to(device, non_blocking=True)
