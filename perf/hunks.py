"""What changed between two texts, cut the way a person would make the change."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher

# Changed lines this much alike are edited within; others are taken out and written again.
ALIKE = 0.5
# Words are compared in changes up to this size: it takes the square of that time.
MAX_COMPARED_CHARS = 4000
# Nobody moves the cursor over less than this between two changes on a line.
MIN_KEPT_CHARS = 6

_WORD = re.compile(r"\w+|\s|[^\w\s]")


@dataclass(frozen=True, kw_only=True)
class Hunk:
    """Old text from `start` to `end` gives way to `text`."""

    start: int
    end: int
    text: str


def hunks_between(old: str, new: str) -> list[Hunk]:
    """The changes that make `new` of `old`, ascending and apart; offsets are in `old`."""
    return [
        _from_line_end(hunk, old)
        for start, end, text in _differences(_lines(old), _lines(new))
        for hunk in _within(old[start:end], text, start)
    ]


def _lines(text: str) -> list[str]:
    # Not splitlines(), for which form feeds and other separators end a line too.
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _differences(old: list[str], new: list[str]) -> list[tuple[int, int, str]]:
    """Unequal runs of two lists: old offsets in characters, and the new text."""
    starts = [0]
    for part in old:
        starts.append(starts[-1] + len(part))
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    return [
        (starts[i1], starts[i2], "".join(new[j1:j2]))
        for tag, i1, i2, j1, j2 in matcher.get_opcodes()
        if tag != "equal"
    ]


def _within(old: str, new: str, offset: int) -> list[Hunk]:
    """The changes inside one changed run of lines that starts at `offset`."""
    parts = [(0, len(old), new)]
    if old and new and len(old) + len(new) <= MAX_COMPARED_CHARS:
        old_words, new_words = _WORD.findall(old), _WORD.findall(new)
        matcher = SequenceMatcher(None, old_words, new_words, autojunk=False)
        if matcher.ratio() >= ALIKE:
            parts = _merged(old, _differences(old_words, new_words))
    hunks = []
    for start, end, text in parts:
        n_before = n_common(old[start:end], text)
        n_after = n_common(old[start + n_before : end][::-1], text[n_before:][::-1])
        hunks.append(
            Hunk(
                start=offset + start + n_before,
                end=offset + end - n_after,
                text=text[n_before : len(text) - n_after],
            )
        )
    return hunks


def _merged(old: str, parts: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """The parts, those joined between which too little stays as it is."""
    merged: list[tuple[int, int, str]] = []
    for start, end, text in parts:
        if merged:
            first, last, before = merged[-1]
            kept = old[last:start]
            if len(kept) < MIN_KEPT_CHARS:
                merged[-1] = (first, end, before + kept + text)
                continue
        merged.append((start, end, text))
    return merged


def _from_line_end(hunk: Hunk, old: str) -> Hunk:
    """Insert whole lines from the end of the line above: Enter first, as people do."""
    is_insertion = hunk.start == hunk.end and hunk.text.endswith("\n")
    if not is_insertion or not old[: hunk.start].endswith("\n"):
        return hunk
    return Hunk(start=hunk.start - 1, end=hunk.end - 1, text="\n" + hunk.text[:-1])


def n_common(a: str, b: str) -> int:
    """Length of the longest common prefix."""
    for n, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return n
    return min(len(a), len(b))
