"""Tokens that were read one after the other, and what is known of them since."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from engine.mamba2 import InputLog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Run:
    """What reading l tokens left: their log, hidden (l, d_model), and logits (l, vocab_size).

    Without logits where they were not needed: they follow from the hidden rows. `is_part`: the
    tensors are parts of larger ones, which they keep in memory.
    """

    tokens: Sequence[int]
    log: InputLog
    hidden: Tensor
    logits: Tensor | None = None
    is_part: bool = False

    def __len__(self) -> int:
        """Give the number of tokens."""
        return len(self.tokens)

    @cached_property
    def n_bytes(self) -> int:
        """Give the bytes of all tensors."""
        logits_bytes = 0 if self.logits is None else self.logits.nbytes
        return self.log.n_bytes + self.hidden.nbytes + logits_bytes

    def row(self, i: int) -> Tensor | None:
        """Give the logits (vocab_size,) after token i, None where they are not at hand."""
        return None if self.logits is None else self.logits[i]

    def without_logits(self) -> Run:
        """Give the run without what follows from the hidden rows."""
        return self if self.logits is None else replace(self, logits=None)

    def part(self, first: int, last: int) -> Run:
        """Give the run of some of the tokens, which shares this one's memory."""
        if first == 0 and last == len(self):
            return self
        return Run(
            self.tokens[first:last],
            InputLog(*(part[:, first:last] for part in self.log.tensors)),
            self.hidden[first:last],
            None if self.logits is None else self.logits[first:last],
            is_part=True,
        )

    def own(self) -> Run:
        """Give the run in memory that holds nothing else."""
        if not self.is_part:
            return self
        return Run(
            self.tokens,
            InputLog(*(part.clone() for part in self.log.tensors)),
            self.hidden.clone(),
            None if self.logits is None else self.logits.clone(),
        )


def between(runs: Sequence[Run], first: int, last: int) -> list[Run]:
    """Give the runs of some of the tokens of runs that follow one another, in their memory."""
    parts, start = [], 0
    for run in runs:
        begin, end = max(first - start, 0), min(last - start, len(run))
        if begin < end:
            parts.append(run.part(begin, end))
        start += len(run)
    return parts


def place(runs: Sequence[Run], i: int) -> tuple[Run, int]:
    """Give the run that token i of runs is of, and the token's number there."""
    for run in runs:
        if i < len(run):
            return run, i
        i -= len(run)
    raise IndexError("there are fewer tokens")


def log_of(runs: Sequence[Run], n: int) -> InputLog:
    """Give a log that begins with the first n tokens (1 or more) of runs, and may go on."""
    logs, n_logged = [], 0
    for run in runs:
        if n_logged < n:
            logs.append(run.log)
            n_logged += len(run)
    return logs[0] if len(logs) == 1 else InputLog.of_runs(logs)
