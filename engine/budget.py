"""How much of the machine is taken where nobody says: memory for kept states, and threads."""

from __future__ import annotations

import os

import torch

CPU_BYTES = 512 * 2**20
# Beside a GPU: a quarter of the host's memory, and no more than this.
MAX_HOST_BYTES = 8 * 2**30


def default_budgets(device: torch.device) -> tuple[int, int]:
    """Give the bytes for states on the model's device, and in the host's memory behind it.

    To be asked once the weights are loaded. On a GPU it is half of what they leave free; on a CPU
    there is one tier.
    """
    if device.type != "cuda":
        return CPU_BYTES, 0
    n_free, _ = torch.cuda.mem_get_info(device)
    return n_free // 2, min(MAX_HOST_BYTES, host_bytes() // 4)


def default_threads() -> int:
    """Give half the cores, so that the editor stays smooth, and at least one."""
    return max(1, (os.cpu_count() or 1) // 2)


def host_bytes() -> int:
    """Give the bytes of the host's memory; 0 where the platform does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0
