"""Memory and processor time of a process and of those that it started, seen from outside."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
# Fields of /proc/PID/stat behind the name in brackets (proc(5) counts from 1, the name is 2).
_FLAGS, _UTIME, _STIME, _CUTIME, _CSTIME = 6, 11, 12, 13, 14
# The kernel's PF_FORKNOEXEC, which ps(1) shows as "forked but didn't exec".
_FORKED_ONLY = 0x40


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What processes hold and have used; None where this platform does not tell."""

    rss_bytes: int | None
    cpu_s: float | None

    @classmethod
    def of(cls, pid: int) -> Usage:
        """Of a process with all below it, those that have ended included in the time.

        A child's memory counts from the program that it runs on. Until then it has its parent's
        pages: those of a vfork, for which /proc tells them all a second time, or copies that
        neither has written to. So workers that a server forks and keeps have no memory here.
        """
        if not (PROC / "self" / "stat").exists():
            return cls(rss_bytes=_rss_by_ps(pid), cpu_s=None)
        rss_bytes, ticks = 0, 0
        waiting = [pid]
        while waiting:
            one = waiting.pop()
            try:
                stat = (PROC / str(one) / "stat").read_text().rpartition(")")[2].split()
                pages = int((PROC / str(one) / "statm").read_text().split()[1])
                for task in (PROC / str(one) / "task").iterdir():
                    waiting += map(int, (task / "children").read_text().split())
            except (OSError, IndexError):
                # Gone meanwhile.
                continue
            if one == pid or not int(stat[_FLAGS]) & _FORKED_ONLY:
                rss_bytes += pages * os.sysconf("SC_PAGESIZE")
            ticks += sum(int(stat[n]) for n in (_UTIME, _STIME, _CUTIME, _CSTIME))
        return cls(rss_bytes=rss_bytes, cpu_s=ticks / os.sysconf("SC_CLK_TCK"))


def _rss_by_ps(pid: int) -> int | None:
    """Of the one process; for platforms without /proc."""
    try:
        command = ["ps", "-o", "rss=", "-p", str(pid)]
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return 1024 * int(found)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None
