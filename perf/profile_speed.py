"""How fast a session is replayed."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perf.trace_format import Done

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf.trace_format import Session

_FACTOR = re.compile(r"(\d+(?:\.\d+)?)x?")
_RATE = re.compile(r"(\d+(?:\.\d+)?)/s")


@dataclass(frozen=True, kw_only=True)
class Speed:
    """`factor` times as fast as recorded, or `per_second` events; neither: as fast as answers."""

    factor: float | None = None
    per_second: float | None = None

    @classmethod
    def parse(cls, text: str) -> Speed:
        """`recorded`, `max`, a factor such as `2x` or a rate such as `10/s`."""
        if text == "max":
            return cls()
        if text == "recorded":
            return cls(factor=1.0)
        for name, pattern in (("factor", _FACTOR), ("per_second", _RATE)):
            match = pattern.fullmatch(text)
            if match and 0 < float(match[1]) < math.inf:
                return cls(**{name: float(match[1])})
        raise ValueError(
            f"speed is {text!r}, expected recorded, max, a factor such as 2x or a rate such as 10/s"
        )

    @property
    def waits_for_answers(self) -> bool:
        """Whether each answer is waited for before the next event."""
        return self.factor is None and self.per_second is None

    def due_s(self, session: Session) -> Sequence[float]:
        """When each step of a session is due, from its first one on."""
        if self.per_second is not None:
            return [n / self.per_second for n in range(len(session.steps))]
        if self.factor is None:
            return [0.0] * len(session.steps)
        times_ms = [
            step.event.t_ms if isinstance(step, Done) else step.t_ms for step in session.steps
        ]
        return [(t_ms - times_ms[0]) / 1e3 / self.factor for t_ms in times_ms]
