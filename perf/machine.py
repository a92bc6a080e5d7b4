"""What a time was measured on, for results that are kept."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def processor(*, with_model: bool) -> str:
    """Name the processor as the system does."""
    fields = _cpuinfo()
    try:
        name = fields["model name"]
        if with_model:
            name += f" (family {fields['cpu family']}, model {fields['model']})"
    except KeyError:
        return platform.processor() or platform.machine()
    return name


def machine(*, with_model: bool = False) -> str:
    """Name the processor, on request with its family and model numbers, and count the cores."""
    return f"{processor(with_model=with_model)}, {os.cpu_count()} cores"


def _cpuinfo() -> dict[str, str]:
    """Give the fields of the first processor; none where there is no such file."""
    fields: dict[str, str] = {}
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return fields
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip(), value.strip())
    return fields
