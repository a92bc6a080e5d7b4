"""What the last answers took, for who measures from outside."""

from __future__ import annotations

from collections import deque
from typing import Any

# A measuring client asks after every answer; what nobody asks for is dropped.
KEPT = 256


class Answers:
    """The latest answers to inline completion requests, by the id of the request."""

    def __init__(self) -> None:
        self._answers: deque[dict[str, Any]] = deque(maxlen=KEPT)

    def add(self, answer: dict[str, Any]) -> None:
        self._answers.append(answer)

    def sent(self, request_id: int | str, seconds: float) -> None:
        """Note how long it took to write an answer out."""
        if self._answers and self._answers[-1]["id"] == request_id:
            self._answers[-1]["timings_ms"]["serialize"] = 1e3 * seconds

    def take(self) -> list[dict[str, Any]]:
        """The answers since this was last called, oldest first."""
        taken = list(self._answers)
        self._answers.clear()
        return taken
