"""What an earlier run of a tool has recorded, for one that goes on with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from perf.json_objects import read_object

if TYPE_CHECKING:
    from pathlib import Path


def former_report(record: Path, *, resume: bool) -> dict[str, Any]:
    """Read the record to resume; empty without it. ClickException for what is no report."""
    if not resume or not record.exists():
        return {}
    try:
        return read_object(record)
    except ValueError as error:
        raise click.ClickException(f"{error}; without --resume it is made anew") from error
