"""Which implementation an operation takes: Triton on a GPU, torch elsewhere."""

from __future__ import annotations

from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

# Plain globals: torch.compile, which training uses, cannot look into anything cleverer.
_HAS_TRITON = find_spec("triton") is not None
_is_forced = False


def has_triton() -> bool:
    """Tell whether Triton can be imported here."""
    return _HAS_TRITON


def use_triton(x: Tensor) -> bool:
    """Tell whether an operation on `x` runs as a Triton kernel: none of them has gradients."""
    if torch.is_grad_enabled() and x.requires_grad:
        return False
    return _is_forced or (x.is_cuda and _HAS_TRITON)


@contextmanager
def triton_forced() -> Iterator[None]:
    """Run every operation inside as a Triton kernel, whatever its device.

    On a CPU this needs TRITON_INTERPRET=1 in the environment before Triton is imported: it is how
    the kernels are checked where there is no GPU.
    """
    global _is_forced
    before, _is_forced = _is_forced, True
    try:
        yield
    finally:
        _is_forced = before
