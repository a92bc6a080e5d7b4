"""What the engine is asked, and what it answers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

# Why an answer ended. The last three say that no text was computed to its end.
STOPS = ("line", "block", "eos", "limit", "deadline", "cancel", "superseded", "error")


@dataclass(frozen=True, kw_only=True)
class CompletionRequest:
    """The text around a cursor. A newer request of the same document supersedes an older one."""

    document: str
    header: str
    prefix: str
    suffix: str
    multiline: bool = False
    # Where a single line opens a block with a brace, the block is written too.
    with_block: bool = False
    max_tokens: int = 64
    # From the moment of submission; None waits for ever.
    deadline_ms: float | None = 300.0
    explicit: bool = False
    # The model's own greedy continuation: no stop rule but the end of the sequence, all pieces.
    raw: bool = False
    # Text that may follow the cursor. It is checked in one pass and never changes the answer.
    proposal: str = ""
    # Other text that the answer may copy from, the most relevant first; prefix and suffix always.
    sources: tuple[str, ...] = ()
    # So many other continuations are wanted besides.
    n_alternatives: int = 0
    # Where none are: the best token at each step may not make the most probable first line. If
    # another one can have more than this log-probability, and more than the answer, it is tried.
    search_above: float | None = None
    # What stands before the prefix where there is no epoch yet, if that is less than `header`.
    trunk_header: str | None = None
    # False: no state of this document is ever written to disk.
    may_be_saved: bool = True
    # Keep the logits that predicted each token of the answer (for tests of exactness).
    keep_logits: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens}, expected 1 or more")
        if self.n_alternatives < 0:
            raise ValueError(f"n_alternatives is {self.n_alternatives}, expected 0 or more")
        if self.deadline_ms is not None and self.deadline_ms < 0:
            raise ValueError(f"deadline_ms is {self.deadline_ms}, expected 0 or more, or None")


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """Another text to insert; `log_prob` and `stop` are as a completion's."""

    text: str
    log_prob: float
    stop: str


@dataclass(frozen=True, kw_only=True)
class Completion:
    """An answer: text to insert at the cursor, and what it took.

    token_ids start at the end of prompt_ids and cover the held-back text first; `text` is what
    they add to it. logits (len(token_ids), vocab_size) float32 when asked for.
    """

    text: str
    stop: str
    kind: str = "epoch"
    # Kept as it is: making 100,000 ids into Python's numbers takes milliseconds.
    prompt: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32), repr=False)
    token_ids: tuple[int, ...] = ()
    # Natural log-probability of each of token_ids under the distribution that chose it: the
    # model's, with the copied tokens' share where copying is on. Of tokens that spell held-back
    # text: among the tokens that agree with that text.
    log_probs: tuple[float, ...] = ()
    # The sum over the first line of `text` that has something on it, with the token that ended
    # that line (or the sequence) if one did: exp of it estimates how often the line is right as a
    # whole, given the held-back text. Where time or tokens ran out, of what was written by then.
    # -inf for an answer without tokens.
    log_prob: float = -math.inf
    alternatives: tuple[Alternative, ...] = ()
    n_recomputed: int = 0
    n_generated: int = 0
    n_passes: int = 0
    n_healing_passes: int = 0
    # Passes that wrote the alternatives; they are in none of the other counts.
    n_alternative_passes: int = 0
    # Where the state came from: "trail" (this document's last answer), a tier of the cache, "none".
    source: str = "none"
    timings_ms: dict[str, float] = field(default_factory=dict)
    logits: Tensor | None = None

    @property
    def n_prompt(self) -> int:
        """Give the number of tokens in the prompt."""
        return len(self.prompt)

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """Give the prompt's ids."""
        return tuple(self.prompt.tolist())
