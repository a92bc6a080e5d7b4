"""What the last answers took, for who measures from outside."""

from __future__ import annotations

from collections import deque
from typing import Any

# A measuring client asks after every answer; what nobody asks for is dropped.
KEPT = 256


class Answers:
    """The latest answers to inline completion requests, by the id of the request."""

    def __init__(self) -> None:
        # Each with when it was made.
        self._answers: deque[tuple[dict[str, Any], float]] = deque(maxlen=KEPT)

    def add(self, answer: dict[str, Any], made_s: float) -> None:
        """Keep an answer; `made_s` is the end of its `total`, by `time.monotonic()`."""
        self._answers.append((answer, made_s))

    def sent(self, request_id: int | str, start_s: float, end_s: float) -> None:
        """Note when the writing of an answer began and ended."""
        if not self._answers:
            return
        answer, made_s = self._answers[-1]
        if answer["id"] == request_id:
            answer["timings_ms"]["reply"] = 1e3 * (start_s - made_s)
            answer["timings_ms"]["serialize"] = 1e3 * (end_s - start_s)

    def take(self) -> list[dict[str, Any]]:
        """The answers since this was last called, oldest first."""
        taken = [answer for answer, _ in self._answers]
        self._answers.clear()
        return taken
