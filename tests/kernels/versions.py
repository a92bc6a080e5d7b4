"""The versions of an operation that the same tests run on, and what tests need of Triton."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from kernels.choice import has_triton

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

needs_triton = pytest.mark.skipif(not has_triton(), reason="Triton is not installed")


def with_triton(*others: ModuleType) -> list[ModuleType]:
    """Give versions of one operation, and behind them that in Triton where it can be imported."""
    package = others[0].__name__.rpartition(".")[0]
    return [*others, *([import_module(f"{package}.triton")] if has_triton() else [])]


def each(found: Sequence[ModuleType]) -> pytest.MarkDecorator:
    """Give a mark for tests that take a `version`."""
    return pytest.mark.parametrize("version", found, ids=short_name)


def short_name(version: ModuleType) -> str:
    return version.__name__.rpartition(".")[2]
