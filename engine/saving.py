"""Which states outlast the process, and when they are written."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engine.cache import Checkpoint, StateCache
    from engine.mamba2 import Mamba2
    from engine.warm_restart import SavedStates


class _Interrupted(Exception):
    """Something came that goes first."""


class Saving:
    """Saves the last states of every document; without `states`, which is a folder, nothing.

    `exclude` and `ask` may be called from any thread, under the engine's condition; the rest by
    who owns the cache: the engine's thread, and once that has ended whoever closes it.
    """

    def __init__(self, states: SavedStates | None) -> None:
        """Save there when asked to, and at the end."""
        self.states = states
        self.is_due = False
        self._excluded: set[str] = set()
        self._has_ended = False

    def exclude(self, document: str) -> None:
        """Never write a state of this document."""
        self._excluded.add(document)

    def ask(self) -> None:
        """Have what `end` would write written once nothing else is to do."""
        self.is_due = self.states is not None

    def load(self, model: Mamba2) -> Iterator[Checkpoint]:
        """Yield what was saved and fits the model."""
        if self.states is not None:
            yield from self.states.load(model)

    def save_while(self, is_idle: Callable[[], bool], cache: StateCache) -> None:
        """Write what was asked for, state by state; it stays due when something comes between.

        What fails is not tried again until it is asked for.
        """
        assert self.states is not None, "saving is due only where there is a folder"

        def while_idle() -> Iterator[Checkpoint]:
            for checkpoint in self._worth_saving(cache):
                if not is_idle():
                    # What is on disk by now, and what was before, stays.
                    raise _Interrupted
                yield checkpoint

        self.is_due = False
        try:
            self.states.save(while_idle(), cache.unclaimed())
        except _Interrupted:
            self.is_due = True

    def end(self, cache: StateCache) -> None:
        """Write the states, the first time that this is called."""
        if self.states is not None and not self._has_ended:
            self._has_ended = True
            self.states.save(self._worth_saving(cache), cache.unclaimed())

    def _worth_saving(self, cache: StateCache) -> Iterator[Checkpoint]:
        """Yield the last checkpoint of every epoch and trunk that may be saved."""
        seen = set()
        for checkpoint, owner in cache.checkpoints():
            document = owner[0] if isinstance(owner, tuple) else owner
            if owner is not None and owner not in seen and document not in self._excluded:
                seen.add(owner)
                yield checkpoint
