"""What glibc's malloc can be told."""

from __future__ import annotations

import ctypes
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Option(IntEnum):
    """As malloc.h has them."""

    TRIM_THRESHOLD = -1
    TOP_PAD = -2
    MMAP_THRESHOLD = -3
    MMAP_MAX = -4
    ARENA_MAX = -8


def tell_malloc(options: Mapping[Option, int]) -> None:
    """Set options, in their order, for the whole process; does nothing where there is no glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for option, value in options.items():
        mallopt(int(option), value)
