"""A person who changes one text into another: hunk by hunk, key by key."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from perf.auto_editing import CLOSER_OF
from perf.hunks import Hunk, hunks_between
from perf.keyboard import Keyboard
from perf.trace_format import Trace
from perf.typed_run import Habits, Run

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from perf.trace_format import Event

# Longer text than these is selected, not deleted line by line or key by key.
MAX_LINE_DELETES = 5
MAX_BACKSPACES = 20
# Nobody selects so little.
MAX_UNSELECTED_CHARS = 3

# A hunk's number from the top, and that of its part.
_Place = tuple[int, int]
_WORD = re.compile(r"\w+\s*|[^\w\s]+\s*|\s+")


def type_changes(
    old: str,
    new: str,
    dice: random.Random,
    *,
    path: str,
    language_id: str,
    habits: Habits | None = None,
    in_order: bool = True,
    max_events: int | None = None,
) -> Trace:
    """A trace that starts at `old` and, unless `max_events` cuts it short, ends in `new`.

    in_order: from top to bottom, else the hunks come in an order of the dice's. Raises ValueError
    for texts with a carriage return: no cursor can stand within their line ends.
    """
    if "\r" in old + new:
        raise ValueError("a text has carriage returns, expected line feeds alone")
    document = Trace(path=path, language_id=language_id, text=old, events=()).open()
    hunks = hunks_between(document.text, new)
    order = list(range(len(hunks)))
    if not in_order:
        dice.shuffle(order)
    events = _edit(Keyboard(document, dice), habits or Habits(), hunks, order)
    return Trace(
        path=path,
        language_id=language_id,
        text=document.text,
        events=tuple(islice(events, max_events)),
    )


def _edit(
    keyboard: Keyboard, habits: Habits, hunks: list[Hunk], order: list[int]
) -> Iterator[Event]:
    growth: dict[_Place, int] = {}
    for place, hunk in _interrupted(keyboard, habits, [((n, 0), hunks[n]) for n in order]):
        shift = sum(n_chars for above, n_chars in growth.items() if above < place)
        yield from _replace(keyboard, habits, hunk.start + shift, hunk.end - hunk.start, hunk.text)
        growth[place] = len(hunk.text) - (hunk.end - hunk.start)


def _interrupted(
    keyboard: Keyboard, habits: Habits, steps: list[tuple[_Place, Hunk]]
) -> list[tuple[_Place, Hunk]]:
    """Some hunks of several lines in two parts, what comes next between them if it is above."""
    done: list[tuple[_Place, Hunk]] = []
    while steps:
        (place, hunk), *steps = steps
        line_ends = [n for n, character in enumerate(hunk.text) if n and character == "\n"]
        is_followed_above = bool(steps) and steps[0][0] < place
        if line_ends and is_followed_above and keyboard.chance(habits.interrupt):
            cut = line_ends[len(line_ends) // 2]
            rest = Hunk(start=hunk.end, end=hunk.end, text=hunk.text[cut:])
            hunk = replace(hunk, text=hunk.text[:cut])
            steps.insert(1, ((place[0], 1), rest))
        done.append((place, hunk))
    return done


def _replace(
    keyboard: Keyboard, habits: Habits, start: int, n_chars: int, text: str
) -> Iterator[Event]:
    """Go there, take the old text away, and type the new one."""
    old = keyboard.document.slice(start, start + n_chars)
    run = Run(keyboard, habits, text, start)
    # Brackets and quotes would be put around a selection.
    may_type_over = old and text and "\n" not in old + text[0] and text[0] not in CLOSER_OF
    if may_type_over and keyboard.chance(habits.select):
        yield keyboard.jump(start + n_chars)
        yield run.type_over(n_chars)
    elif old:
        yield from _delete(keyboard, start, old, then=run.next)
    else:
        yield keyboard.jump(start, run.next)
    yield from run.type()


def _delete(keyboard: Keyboard, start: int, old: str, then: str) -> Iterator[Event]:
    """Take text away; `then` is what comes in its place."""
    lengths, from_end = _deletions(keyboard, start, old)
    left = len(old)
    yield keyboard.jump(start + left if from_end else start)
    for length in lengths:
        left -= length
        at = start + left if from_end else start
        yield keyboard.change("delete", at, length, "", cursor=at, next_="" if left else then)


def _deletions(keyboard: Keyboard, start: int, old: str) -> tuple[list[int], bool]:
    """How text is taken away: lengths, and whether from its end back or from its start."""
    n_lines = old.count("\n")
    if n_lines:
        whole_lines = old.endswith("\n") and not keyboard.line_before(start)
        if whole_lines and n_lines <= MAX_LINE_DELETES and keyboard.chance(0.5):
            return [len(line) + 1 for line in old.split("\n")[:-1]], False
        return [len(old)], False
    if len(old) <= MAX_UNSELECTED_CHARS or (len(old) <= MAX_BACKSPACES and keyboard.chance(0.5)):
        return [1] * len(old), True
    if keyboard.chance(0.6):
        return [len(word) for word in reversed(_WORD.findall(old))], True
    return [len(old)], True
