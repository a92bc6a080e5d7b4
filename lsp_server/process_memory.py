"""The memory of a process that lives all day: what garbage collection and malloc do with it."""

from __future__ import annotations

import atexit
import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

from engine.malloc import Option, tell_malloc

if TYPE_CHECKING:
    from collections.abc import Iterator

# From here on a block is the system's. States and prompts' logs are larger, what a keystroke
# leaves behind is smaller.
LARGE_BYTES = 2**19
# So much may stay free at the end of a heap, or it is given back and taken again at every key.
KEPT_FREE_BYTES = 2**23
# By itself each thread gets a heap of its own, and what is free in one serves no other. Two
# threads work at a time: the one that speaks with the client and the engine's.
N_HEAPS = 2


def give_back_large_blocks() -> None:
    """Tell glibc's malloc to give large blocks back as soon as they are freed, where there is one.

    By itself it keeps blocks as large as the largest that was freed so far, up to 32 MB, in heaps;
    there what is freed later holds what was freed before. Over hours a server's memory grew in
    steps of 8 MB, and it was 60 MB larger.
    """
    tell_malloc(
        {
            Option.MMAP_THRESHOLD: LARGE_BYTES,
            Option.TRIM_THRESHOLD: KEPT_FREE_BYTES,
            Option.ARENA_MAX: N_HEAPS,
        }
    )


@contextmanager
def lasting() -> Iterator[None]:
    """Spare the garbage collector what is made in here, and all that was there before.

    Of the 375,000 objects that torch and numba come with, none is garbage. Each full collection
    looked at them all, and stopped every thread for 0.3 s while somebody typed; those during the
    load took 0.6 s of its 2 s. `gc.unfreeze` ends it.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
        # Or extensions complain at the end that what they made is still there.
        atexit.register(gc.unfreeze)
    finally:
        gc.enable()
