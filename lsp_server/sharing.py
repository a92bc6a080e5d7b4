"""Which engine a window gets: one of its own, or the one that the user's windows share.

Imports little: every window comes through here before it is either.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

SHARE_ENGINE = "shareEngine"
CHOICES = ("auto", "always", "never")
# What several windows had better not hold once each.
LARGE_BYTES = 10**9


def choice_of(forced: str | None, options: object) -> str:
    """The command line's choice, else that of `initializationOptions`, else "never"."""
    if forced is not None:
        return forced
    given = options.get(SHARE_ENGINE) if isinstance(options, dict) else None
    # What is wrong with another value is said by whoever serves.
    return given if given in CHOICES else "never"


def is_shared(choice: str, model: str | None, device: str) -> bool:
    """Whether a window joins the host of a model, named as in the settings.

    "auto": where the model lives on a GPU, or weighs over 1 GB. One from the hub counts as large,
    whatever it weighs: it may not be here yet.
    """
    if choice != "auto":
        return choice == "always"
    if _has_cuda() if device == "auto" else not device.startswith("cpu"):
        return True
    if model is None:
        return False
    # Not `Path.expanduser`, which raises where it knows no such home.
    folder = Path(os.path.expanduser(model))
    if not folder.is_dir():
        return True
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) > LARGE_BYTES


def _has_cuda() -> bool:
    """Whether NVIDIA's driver has a device; torch, which would know, takes seconds to import."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        n_devices = ctypes.c_int()
        if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(n_devices)):
            return False
    except (OSError, AttributeError):
        return False
    return n_devices.value > 0
