"""The version of this distribution."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def package_version() -> str:
    """The installed distribution's version; "unknown" where it runs from a bare checkout."""
    try:
        return version("keystate")
    except PackageNotFoundError:
        return "unknown"
