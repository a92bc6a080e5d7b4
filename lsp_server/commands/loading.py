"""A bar that shows how far the loading of a model is."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def loading_bar() -> Iterator[Callable[[str, float], None]]:
    """Give what is told what is being done, and the share of it that is.

    Shown on stderr, where that is a terminal.
    """
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("loading the model", total=1.0)
        yield lambda what, share: progress.update(task, description=what, completed=share)
