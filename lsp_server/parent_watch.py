"""Noticing that the client's process has ended, without looking every now and then.

Linux: a pidfd. macOS and the BSDs: a kqueue. Windows: a thread that waits for the process. Where
none of them is to be had, the end of stdin has to say it, which comes with the process's end too.
"""

from __future__ import annotations

import ctypes
import logging
import os
import select
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

logger = logging.getLogger(__name__)

SYNCHRONIZE, INFINITE = 0x00100000, 0xFFFFFFFF


def watch(
    loop: asyncio.AbstractEventLoop, pid: int, on_end: Callable[[], None]
) -> Callable[[], None]:
    """Call `on_end` once in the loop when a process ends; gives what ends the watch.

    A process that is not to be found is not watched: a client in another container counts its
    processes otherwise, and is there all the same.
    """
    try:
        if sys.platform == "win32":
            _wait_on_thread(loop, pid, on_end)
            return lambda: None
        queue, descriptor = _descriptor(pid)
    except (OSError, AttributeError, NotImplementedError) as error:
        logger.info("the client's process is not watched: %s", error)
        return lambda: None

    def ended() -> None:
        end()
        on_end()

    def end() -> None:
        nonlocal descriptor
        if descriptor >= 0:
            loop.remove_reader(descriptor)
            if queue is None:
                os.close(descriptor)
            else:
                queue.close()
            descriptor = -1

    loop.add_reader(descriptor, ended)
    return end


def _descriptor(pid: int) -> tuple[Any, int]:
    """What can be read from once a process has ended: a queue or None, and a descriptor."""
    if hasattr(os, "pidfd_open"):
        return None, os.pidfd_open(pid)
    kinds: Any = select
    queue = kinds.kqueue()
    try:
        ends = kinds.kevent(
            pid,
            filter=kinds.KQ_FILTER_PROC,
            flags=kinds.KQ_EV_ADD | kinds.KQ_EV_ONESHOT,
            fflags=kinds.KQ_NOTE_EXIT,
        )
        queue.control([ends], 0)
    except OSError:
        queue.close()
        raise
    return queue, queue.fileno()


def _wait_on_thread(loop: asyncio.AbstractEventLoop, pid: int, on_end: Callable[[], None]) -> None:
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009 - not there for mypy elsewhere
    kernel.OpenProcess.restype = ctypes.c_void_p
    kernel.WaitForSingleObject.argtypes = (ctypes.c_void_p, ctypes.c_ulong)
    process = kernel.OpenProcess(SYNCHRONIZE, False, pid)
    if not process:
        raise OSError(f"no process {pid}")

    def wait() -> None:
        kernel.WaitForSingleObject(process, INFINITE)
        if not loop.is_closed():
            loop.call_soon_threadsafe(on_end)

    threading.Thread(target=wait, name="parent", daemon=True).start()
