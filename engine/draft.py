"""A completion while it is being written."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from engine.copying import Copier
    from engine.walk import Walk

# A token that was not taken, and its log-probability.
Second = tuple[int, float]

_FIRST_LINE = re.compile(rb"\s*[^\s][^\r\n]*[\r\n]")


@dataclass(kw_only=True)
class Draft:
    """A completion being written. The last token may still have to be walked.

    `n_held` bytes of `text` were given; `copier` finds what its next tokens may be copied from.
    """

    walk: Walk
    copier: Copier | None = None
    n_held: int = 0
    token_ids: list[int] = field(default_factory=list)
    text: bytes = b""
    # For each token: where it ends in `text`, its log-probability, and the next best token then.
    ends: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    seconds: list[Second | None] = field(default_factory=list)
    # Tokens that stand before the walk's start.
    n_before: int = 0
    # Copied text whose first token is the last one: worth a pass over all of it.
    ahead: tuple[int, ...] = ()
    # Of the end-of-sequence token that ended it, if one did; it is in none of the lists.
    end: tuple[float, Second | None] | None = None

    @property
    def rows(self) -> list[Tensor] | None:
        """Give the logits that predicted each token, if they are kept."""
        if self.walk.rows is None:
            return None
        return [*self.walk.rows, self.walk.row][: len(self.token_ids)]

    @property
    def written(self) -> bytes:
        """Give what was written behind the held-back text."""
        return self.text[self.n_held :]

    @property
    def shown(self) -> str:
        """Give what was written as text.

        A character may be cut in the middle of its bytes while tokens are still to come.
        """
        return self.written.decode("utf-8", errors="ignore")

    def add(self, token_id: int, piece: bytes, log_prob: float, second: Second | None) -> None:
        """Append a token."""
        self.token_ids.append(token_id)
        self.text += piece
        self.ends.append(len(self.text))
        self.log_probs.append(log_prob)
        self.seconds.append(second)

    def n_first_line(self) -> int:
        """Give the number of tokens up to the end of the first line written.

        Its break counts to it; a line with nothing but blanks on it does not count.
        """
        found = _FIRST_LINE.match(self.written)
        if found is None:
            return len(self.token_ids)
        return bisect_left(self.ends, self.n_held + found.end()) + 1

    def log_prob(self) -> float:
        """Give the first line's joint log-probability, with that of the token that ended it."""
        n = self.n_first_line()
        total = sum(self.log_probs[:n], 0.0)
        if _FIRST_LINE.match(self.written) is None and self.end is not None:
            return total + self.end[0]
        return total if self.token_ids else -math.inf
