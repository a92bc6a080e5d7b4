"""Which states are saved and when, with a folder and a cache that are lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from engine.saving import Saving

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

    from engine.cache import Checkpoint, StateCache
    from engine.warm_restart import SavedStates


class Shelf:
    """In the place of a folder: what each save has written, as far as it came."""

    def __init__(self) -> None:
        self.written: list[list[str]] = []

    def save(self, checkpoints: Iterable[Any], unclaimed: Iterable[Any]) -> None:
        assert list(unclaimed) == ["nobody's"]
        self.written.append([])
        for checkpoint in checkpoints:
            self.written[-1].append(checkpoint)

    def load(self, model: object) -> Iterator[Any]:
        yield "saved"


class Kept:
    """In the place of a cache: checkpoints with their owners, the last ones first."""

    def __init__(self, *owned: tuple[str, Hashable]) -> None:
        self.owned = owned

    def checkpoints(self) -> Iterator[tuple[str, Hashable]]:
        yield from self.owned

    def unclaimed(self) -> Iterator[str]:
        yield from (name for name, owner in self.owned if owner is None)


CACHE = cast(
    "StateCache",
    Kept(
        ("a 2", ("a", "epoch")),
        (".env 1", (".env", "epoch")),
        ("a 1", ("a", "epoch")),
        ("a, trunk", ("a", "trunk")),
        ("nobody's", None),
        ("b 1", "b"),
    ),
)
LAST = ["a 2", "a, trunk", "b 1"]


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def saving(shelf: Shelf) -> Saving:
    made = Saving(cast("SavedStates", shelf))
    made.exclude(".env")
    return made


def test_at_the_end_the_last_state_of_every_owner_is_written_once(
    saving: Saving, shelf: Shelf
) -> None:
    saving.end(CACHE)
    saving.end(CACHE)
    assert shelf.written == [LAST]


def test_what_is_asked_for_is_written_while_idle_and_again_at_the_end(
    saving: Saving, shelf: Shelf
) -> None:
    assert not saving.is_due
    saving.ask()
    assert saving.is_due
    saving.save_while(lambda: True, CACHE)
    assert not saving.is_due
    saving.end(CACHE)
    assert shelf.written == [LAST, LAST]


def test_what_comes_in_between_goes_first_and_saving_is_begun_again(
    saving: Saving, shelf: Shelf
) -> None:
    idle = iter([True, False])
    saving.ask()
    saving.save_while(lambda: next(idle), CACHE)
    assert shelf.written == [LAST[:1]]
    assert saving.is_due
    saving.save_while(lambda: True, CACHE)
    assert shelf.written[1:] == [LAST]
    assert not saving.is_due


def test_without_a_folder_nothing_is_saved_or_taken_up() -> None:
    saving = Saving(None)
    saving.ask()
    assert not saving.is_due
    saving.end(CACHE)
    assert list(saving.load(cast("Any", None))) == []


def test_what_was_saved_is_taken_up(saving: Saving) -> None:
    found: list[Checkpoint] = list(saving.load(cast("Any", None)))
    assert found == ["saved"]
