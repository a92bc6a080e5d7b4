"""Whether the machine runs on its battery, asked of the system without a library.

Linux: `/sys/class/power_supply`. Windows: `GetSystemPowerStatus`. macOS: `pmset`. Elsewhere, and
where the system does not say, the machine counts as plugged in.
"""

from __future__ import annotations

import ctypes
import logging
import subprocess
import sys
import threading
import time
from pathlib import Path

logger = logging.getLogger(__name__)

SUPPLIES = Path("/sys/class/power_supply")
# How old an answer may be. A cable that is pulled is noticed that much later.
FRESH_S = 30.0
PMSET_TIMEOUT_S = 5.0


class Power:
    """The last answer, at once; one that is old is renewed on a thread, and only when asked."""

    def __init__(self) -> None:
        self._is_on_battery = False
        self._asked_s: float | None = None

    def is_on_battery(self) -> bool:
        """Whether it ran on its battery when last looked; False before the first look is done."""
        now_s = time.monotonic()
        if self._asked_s is None or now_s - self._asked_s > FRESH_S:
            self._asked_s = now_s
            threading.Thread(target=self._look, name="power", daemon=True).start()
        return self._is_on_battery

    def _look(self) -> None:
        try:
            self._is_on_battery = on_battery()
        except (OSError, ValueError, AttributeError, subprocess.SubprocessError) as error:
            logger.info("the system does not say whether it runs on a battery: %s", error)


def on_battery() -> bool:
    """Ask the system; may take a while, and raise OSError."""
    if sys.platform == "win32":
        return _windows()
    if sys.platform == "darwin":
        command = ["/usr/bin/pmset", "-g", "batt"]
        said = subprocess.run(
            command, capture_output=True, text=True, timeout=PMSET_TIMEOUT_S, check=False
        )
        return "'Battery Power'" in said.stdout
    return supplies_say(SUPPLIES)


def supplies_say(folder: Path) -> bool:
    """Whether a battery of the machine's own discharges and no cable feeds it, as Linux has it."""
    discharging = False
    for supply in folder.iterdir() if folder.is_dir() else ():
        kind = _said(supply / "type")
        if kind == "Battery":
            # Of a mouse or a pen, say.
            is_ours = _said(supply / "scope") != "Device"
            discharging |= is_ours and _said(supply / "status") == "Discharging"
        elif _said(supply / "online") == "1":
            return False
    return discharging


def _said(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _windows() -> bool:
    class Status(ctypes.Structure):
        _fields_ = [
            ("line", ctypes.c_ubyte),
            ("flag", ctypes.c_ubyte),
            ("percent", ctypes.c_ubyte),
            ("saver", ctypes.c_ubyte),
            ("left_s", ctypes.c_ulong),
            ("full_s", ctypes.c_ulong),
        ]

    status = Status()
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009 - not there for mypy elsewhere
    # 0 is the battery, 1 the cable, 255 unknown.
    return bool(kernel.GetSystemPowerStatus(ctypes.byref(status))) and status.line == 0
