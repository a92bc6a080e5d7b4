"""Passages of many texts, found by what is around a cursor, at a cost that hardly grows with them.

All places are kept in the order of the bytes before them, read backwards: a suffix array of the
reversed text, as deep as matches are long. The places behind one string stand together in it, so
that they are found by two bisections.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate, islice
from typing import TYPE_CHECKING

import numpy as np

from engine.lines_beside import line_above, line_below

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from numpy.typing import NDArray

# Of the bytes before a place its order is told by so many; a power of two times 8.
DEPTH = 64
MIN_MATCH_BYTES = 4
# A string that stands in more places says too little about what follows it.
MAX_PLACES = 2048
PLACES_PER_LENGTH = 8
# Places of the line above the cursor, and of that below it.
MAX_BESIDE = 16
# Places of texts that are left out, passed by in search of the longest match.
MAX_SKIPPED = 256
# Of what follows a place, that much is given, and of what is before it what a match may need.
PASSAGE_BYTES = 160


class TextIndex:
    """Texts that never change, and the order of all places in them: 5 bytes for a byte of text."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Put all places in order: about 0.3 s of processor time for a million bytes.

        Meanwhile it takes 40 bytes for a byte of text. numpy sorts without Python's lock, so that
        other threads go on.
        """
        parts = [text.encode() for text in texts]
        self._text = b"\0".join((*parts, b""))
        self._starts = [0, *accumulate(len(part) + 1 for part in parts)]
        self._order = _ordered(np.frombuffer(self._text, np.uint8)).data

    @property
    def n_bytes(self) -> int:
        """Bytes held: the texts and the order."""
        return len(self._text) + self._order.nbytes

    def holds(self, number: int, text: str) -> bool:
        """Tell whether the text of a number is this one."""
        start, end = self._starts[number], self._starts[number + 1] - 1
        return self._text[start:end] == text.encode()

    def passages(
        self, before: str, after: str = "", *, near: int = 0, without: Collection[int] = ()
    ) -> tuple[str, ...]:
        """Give what stands around places like a cursor's, between `before` and `after`.

        First those behind the longest strings that `before` ends with, the longest match first: of
        each length, from the longest match's down by a third each time, 8 places at most. Then
        what ends with the line below the cursor, and what begins with the line above it, 16 each
        at most. Of equals those nearest to the text of number `near`, in the order that texts were
        given in, the nearest first. None in texts whose numbers are in `without`.
        """
        middle = sum(self._starts[near : near + 2]) // 2
        taken: list[tuple[int, int]] = []

        def take(start: int, stop: int) -> None:
            if not any(first <= start and stop <= last for first, last in taken):
                taken.append((start, stop))

        # No match goes from one text to another.
        end = before[-DEPTH:].rpartition("\0")[2].encode()[-DEPTH:]
        for place in self._places(end, middle, without):
            first, last = self._text_around(place)
            start = max(place - DEPTH, first)
            # From a line's start on, unless that is far: half a line must not count as a line.
            line_start = self._text.rfind(b"\n", first, start) + 1 or first
            is_near = start - line_start <= PASSAGE_BYTES
            take(line_start if is_near else start, min(place + PASSAGE_BYTES, last))
        for place, at in self._lines_that_are(line_below(after), middle, without):
            first, _ = self._text_around(place)
            start = max(at - PASSAGE_BYTES, first)
            if start > first:
                # The line above is of use only as a whole.
                start = self._text.find(b"\n", start, at) + 1 or at
            take(start, place)
        for place, at in self._lines_that_are(line_above(before), middle, without):
            _, last = self._text_around(place)
            take(at, min(place + PASSAGE_BYTES, last))
        # Cut between characters.
        return tuple(self._text[first:last].decode(errors="ignore") for first, last in taken)

    def _places(self, end: bytes, near: int, without: Collection[int]) -> Iterator[int]:
        known: set[int] = set()
        length = self._longest(end, without)
        while length >= MIN_MATCH_BYTES:
            places = self._nearest(end[-length:], near, without, PLACES_PER_LENGTH)
            if not places:
                return
            new = [place for place in places if place not in known]
            known.update(new)
            yield from new
            length = length * 2 // 3

    def _lines_that_are(
        self, line: str, near: int, without: Collection[int]
    ) -> Iterator[tuple[int, int]]:
        """Yield places behind whole lines, and where these begin; 16 at most, the nearest first."""
        whole = line.encode() + b"\n"
        for place in self._nearest(whole[-DEPTH:], near, without, MAX_BESIDE) if line else ():
            first, _ = self._text_around(place)
            at = self._text.rfind(b"\n", first, place - 1) + 1 or first
            if self._text[at:place].lstrip(b" \t") == whole:
                yield place, at

    def _nearest(self, end: bytes, near: int, without: Collection[int], n: int) -> list[int]:
        """Give the n places nearest to one that stand behind a string; none if it has too many."""
        places = self._behind(end)
        if len(places) > MAX_PLACES:
            return []
        nearest: list[int] = places[np.lexsort((places, abs(places - near)))].tolist()
        # As few as it takes: after a pull thousands of texts may be left out.
        return list(islice((p for p in nearest if self._number_of(p) not in without), n))

    def _behind(self, end: bytes) -> NDArray[np.int32]:
        """Give all places behind a string of at most `DEPTH` bytes."""
        wanted, before = end[::-1], self._before(len(end))
        first = bisect_left(self._order, wanted, key=before)
        last = bisect_right(self._order, wanted, first, key=before)
        return np.asarray(self._order)[first:last]

    def _longest(self, end: bytes, without: Collection[int]) -> int:
        """Give how many of a string's last bytes, `DEPTH` at most, stand anywhere together."""
        wanted, before = end[::-1], self._before(len(end))
        at = bisect_left(self._order, wanted, key=before)
        # What has most in common with it stands next to it, on one side or the other.
        below = islice(range(at - 1, -1, -1), MAX_SKIPPED)
        above = islice(range(at, len(self._order)), MAX_SKIPPED)
        longest = 0
        for side in (below, above):
            n = 0
            for i in side:
                place = self._order[i]
                # Where all that are looked at are left out, of the last of them: no less.
                n = _n_common(wanted, before(place))
                if self._number_of(place) not in without:
                    break
            longest = max(longest, n)
        return longest

    def _before(self, n: int) -> Callable[[int], bytes]:
        """Give a function from places to the n bytes before them, the last first."""
        text = self._text
        return lambda place: text[max(place - n, 0) : place][::-1]

    def _text_around(self, place: int) -> tuple[int, int]:
        """Give where the text begins and ends that a place lies in."""
        number = self._number_of(place)
        return self._starts[number], self._starts[number + 1] - 1

    def _number_of(self, place: int) -> int:
        return bisect_right(self._starts, place) - 1


def _n_common(one: bytes, other: bytes) -> int:
    n = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        n += 1
    return n


def _ordered(codes: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Give all places in bytes, from the first's to behind the last, ordered by what is before."""
    n = len(codes)
    key = np.zeros(n + 1, np.uint64)
    for i in range(8):
        key[i + 1 :] |= codes[: max(n - i, 0)].astype(np.uint64) << np.uint64(56 - 8 * i)
    order = np.argsort(key)
    depth = 8
    while depth < DEPTH:
        # The rank of a place, and that of the one before what its rank was told by.
        ordered = key[order]
        rank = np.empty(n + 1, np.uint32)
        rank[order] = np.cumsum(
            np.concatenate(([False], ordered[1:] != ordered[:-1])), dtype=np.uint32
        )
        key = rank.astype(np.uint64) << np.uint64(32)
        key[depth:] |= rank[:-depth]
        order = np.argsort(key)
        depth *= 2
    return order.astype(np.int32)
