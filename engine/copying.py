"""What followed the same text elsewhere, and how far to trust it beside the model.

A small recurrent model is worst at repeating names and call shapes from the file it completes, and
code needs that most. So the places where the last bytes of the text stood before are looked up at
each step, and the tokens that followed there gain probability.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from operator import mul
from typing import TYPE_CHECKING

import numpy as np

from engine.checkpoint import CheckpointError
from engine.lines_beside import LinesBeside, line_above, line_below
from engine.tokenizer import normal_form

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from engine.tokenizer import Tokenizer
    from kernels.token_choice import Copied

# Matches are by bytes of UTF-8, so that half-typed words count.
MIN_MATCH_BYTES, MAX_MATCH_BYTES = 2, 60
# The text that is searched: that much before the cursor, and in all.
MAX_BEFORE_CHARS, MAX_CHARS = 2**15, 2**16
# Looked at for each of some lengths, from the longest match's down by a third each time.
PLACES_PER_LENGTH = 8
# More than any piece that code has often.
NEXT_TOKEN_BYTES = 24
MAX_DRAFT_BYTES, MAX_DRAFT_TOKENS = 96, 12

# What a candidate's weight depends on; each is about 1 in size.
FEATURES = (
    *("one", "root_length", "share", "share_of_longest", "log_distance"),
    *("share_above", "share_below"),
)
WEIGHTS_FILE = "copying.json"


@dataclass(frozen=True, kw_only=True)
class CopyWeights:
    """How far copying is trusted beside one model, fitted on held-out text.

    A candidate of probability p under the model gets the odds exp(bias · features)
    p^(1 + slope · features) against the other tokens, which keep their p; all are normalized.
    """

    bias: tuple[float, ...]
    slope: tuple[float, ...]

    @classmethod
    def load(cls, directory: Path) -> CopyWeights | None:
        """Read the weights beside a model, None where there are none. Raises CheckpointError."""
        path = directory / WEIGHTS_FILE
        if not path.is_file():
            return None
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            bias, slope = tuple(fields["bias"]), tuple(fields["slope"])
            known = tuple(fields["features"]) == FEATURES
            # Not `float`, which takes words that look like numbers.
            is_finite = all(map(math.isfinite, (*bias, *slope)))
        except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError) as error:
            raise _damaged(path, f"what cannot be read ({error!r})") from error
        if not known or {len(bias), len(slope)} != {len(FEATURES)} or not is_finite:
            raise _damaged(path, "other features or numbers")
        return cls(bias=bias, slope=slope)

    def save(self, directory: Path) -> None:
        """Write the weights beside a model."""
        fields = {"features": FEATURES, **asdict(self)}
        (directory / WEIGHTS_FILE).write_text(json.dumps(fields, indent=1) + "\n")


def _damaged(path: Path, found: str) -> CheckpointError:
    return CheckpointError(
        path,
        expected=f"a finite bias and slope for each of {', '.join(FEATURES)}",
        found=found,
        remedy="make it anew with training.calibrate",
    )


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A token that followed the text's last bytes elsewhere."""

    token_id: int
    # Bytes of the longest match that it followed.
    n_matched: int
    features: tuple[float, ...]
    # The nearest place behind such a match, counted from the start of what is searched.
    place: int


class Copier:
    """Finds in a request's texts what followed where the same was written. A pure function of them.

    Cost is bounded by the size of the texts kept, whatever the size of the document: about 0.15 ms
    a step for 65 kB.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        before: str,
        others: Sequence[str] = (),
        *,
        weights: CopyWeights | None = None,
        below: str = "",
    ) -> None:
        """Search the text `before` the cursor and `others`, the most relevant of them first.

        Of all texts together 64k characters are kept: the end of `before`, the starts of others.
        Without `weights` candidates are found but never change a distribution. `below` is the
        text behind the cursor: lines above its first one elsewhere, and those below the last one
        before it, are candidates, too.
        """
        self._tokenizer, self.weights = tokenizer, weights
        texts = [before[-MAX_BEFORE_CHARS:]]
        left = MAX_CHARS - len(texts[0])
        for other in others:
            texts.append(other[:left])
            left -= len(texts[-1])
        # The nearest last: searches go backwards.
        self._text = normal_form("\0".join(texts[::-1])).encode()
        before_bytes = normal_form(texts[0]).encode()
        self._n_before = len(before_bytes)
        neighbours = [line_above(texts[0]), line_below(below)]
        last_line, next_line = (normal_form(line).encode() for line in neighbours)
        begun = before_bytes.rpartition(b"\n")[2]
        # What stands beside the cursor is not wanted there again.
        without = {last_line, next_line}
        self._beside = (
            LinesBeside.above(self._text, next_line, begun, without),
            LinesBeside.below(self._text, last_line, begun, without),
        )
        self._found: tuple[bytes, dict[int, int]] = (b"", _places(self._text, self._n_before))

    def candidates(self, written: bytes = b"", left: bytes = b"") -> list[Candidate]:
        """Give what may come next after the text and what was `written` behind it, by id.

        With `left`, the end of the text that is still to be spelled by tokens: the tokens given
        begin there.
        """
        text = self._text + written
        if self._found[0] != written:
            self._found = (written, _places(text, self._n_before + len(written)))
        sides = [lines.places(written) for lines in self._beside]
        beside = {place: _n_common(text, place) for side in sides for place in side}
        places = beside | self._found[1]
        followed: dict[int, list[tuple[int, int]]] = {}
        n_places = longest = 0
        for place, n_matched in places.items():
            following = _following(text, place, NEXT_TOKEN_BYTES)
            token_id = self._first_token(left + following) if following else None
            if token_id is not None:
                followed.setdefault(token_id, []).append((n_matched, place))
                n_places, longest = n_places + 1, max(longest, n_matched)
        n_equal = {
            token_id: sum(n == longest for n, _ in matches)
            for token_id, matches in followed.items()
        }
        n_longest = sum(n_equal.values())
        candidates = []
        for token_id, matches in sorted(followed.items()):
            n_matched, place = max(matches)
            features = (
                1.0,
                math.sqrt(n_matched) / 4,
                len(matches) / n_places,
                n_equal[token_id] / n_longest,
                math.log(len(text) - place) / 10,
                *(sum(side.get(place, 0.0) for _, place in matches) for side in sides),
            )
            candidates.append(
                Candidate(token_id=token_id, n_matched=n_matched, features=features, place=place)
            )
        return candidates

    def odds(self, candidates: Sequence[Candidate]) -> list[Copied]:
        """Give candidates as `kernels.token_choice` takes them; none where nothing is mixed."""
        if self.weights is None:
            return []
        bias, slope = self.weights.bias, self.weights.slope
        return [
            (
                candidate.token_id,
                sum(map(mul, bias, candidate.features)),
                sum(map(mul, slope, candidate.features)),
            )
            for candidate in candidates
        ]

    def draft(self, candidate: Candidate, written: bytes = b"", left: bytes = b"") -> list[int]:
        """Give the tokens that would copy on from a candidate's place, up to the line's end."""
        text = self._text + written
        run = self._encoded(left + _following(text, candidate.place, MAX_DRAFT_BYTES))
        return run[:MAX_DRAFT_TOKENS]

    def _encoded(self, text: bytes) -> list[int]:
        """Give the tokens of a part of a line; none where it begins inside a character."""
        if text and 0x80 <= text[0] < 0xC0:
            return []
        return self._tokenizer.encode_part(text.decode("utf-8", errors="ignore"))

    def _first_token(self, text: bytes) -> int | None:
        """Give the first of the tokens that `_encoded` gives."""
        if text and 0x80 <= text[0] < 0xC0:
            return None
        return self._tokenizer.first_of_part(text.decode("utf-8", errors="ignore"))


def _places(text: bytes, n_own: int) -> dict[int, int]:
    """Give places behind earlier matches of the text's end, with the bytes that match there.

    Matches are parts of the last `n_own` bytes: what is before them is other text.
    """
    behind = _by_length(text, min(MAX_MATCH_BYTES, n_own, len(text) - 1))
    longest = length = MIN_MATCH_BYTES + len(behind) - 1
    places: dict[int, int] = {}
    while length >= MIN_MATCH_BYTES:
        for place in behind[length - MIN_MATCH_BYTES][: -PLACES_PER_LENGTH - 1 : -1].tolist():
            if place not in places:
                # Mostly more by nothing or a few bytes.
                places[place] = _n_common(text, place, length, longest)
        if length == MIN_MATCH_BYTES:
            break
        length = max(MIN_MATCH_BYTES, length * 2 // 3)
    return places


def _n_common(text: bytes, place: int, known: int = 0, limit: int = MAX_MATCH_BYTES) -> int:
    """Give how many bytes before a place, `known` or more, are the text's last ones."""
    n = known
    while n < min(limit, place) and text[-n - 1] == text[place - n - 1]:
        n += 1
    return n


def _by_length(text: bytes, limit: int) -> list[NDArray[np.intp]]:
    """Give all places behind earlier matches of the text's end, for each length that has some.

    From the shortest length to `limit`. All places of two bytes are looked for; every further byte
    leaves fewer of them.
    """
    if limit < MIN_MATCH_BYTES:
        return []
    codes = np.frombuffer(text, np.uint8)
    n = len(codes) - MIN_MATCH_BYTES
    is_match = codes[:n] == text[n]
    for i in range(1, MIN_MATCH_BYTES):
        is_match &= codes[i : n + i] == text[n + i]
    places = np.flatnonzero(is_match) + MIN_MATCH_BYTES
    behind: list[NDArray[np.intp]] = []
    for length in range(MIN_MATCH_BYTES + 1, limit + 2):
        if not len(places):
            break
        behind.append(places)
        if places[0] < length:
            # Nothing stands before it.
            places = places[1:]
        places = places[codes[places - length] == text[-length]]
    return behind


def _following(text: bytes, place: int, n_bytes: int) -> bytes:
    """Give what follows a place up to its line's end; at the text's end it repeats itself."""
    following = text[place : place + n_bytes]
    if place + n_bytes > len(text):
        following = (following * n_bytes)[:n_bytes]
    following = following.partition(b"\0")[0]
    line, line_break, _ = following.partition(b"\n")
    return line + line_break
