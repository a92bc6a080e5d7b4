"""Work that was asked of the engine, and how far it has come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from logging import getLogger
from typing import TYPE_CHECKING

import torch

from engine.decode import Work
from engine.request import Completion

if TYPE_CHECKING:
    from collections.abc import Generator

    from engine.completing import Completer
    from engine.request import CompletionRequest

log = getLogger(__name__)

OnDone = Callable[[Completion], None]


@dataclass(eq=False, kw_only=True)
class Ticket:
    """A submitted request, or the build of a request's exact prompt, which answers nobody.

    `cancel`, `interrupt` and `empty` may be called from any thread, more than once; the engine's
    thread alone runs its work and closes it.
    """

    request: CompletionRequest
    # The newest of those with the same key counts: a request's document, or what a build is for.
    key: str
    submitted: float
    on_done: OnDone | None = None
    is_build: bool = False
    # What was being built for the document when this was submitted: of an older text.
    older_build: Ticket | None = None
    # Set from outside: why the work should end before it is done.
    interrupted: str | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)
    cost: Work = field(default_factory=Work)
    # In its passes.
    spent_s: float = 0.0
    _work: Generator[Completion | None, None, None] | None = field(default=None, init=False)

    def cancel(self) -> None:
        """Ask for the work to end after the pass that runs now; it is answered "cancel"."""
        self.interrupt("cancel")

    def interrupt(self, stop: str) -> str:
        """Ask for the work to end; gives the reason that counts, which is the first."""
        self.interrupted = self.interrupted or stop
        return self.interrupted

    def advance(self, completer: Completer, clock: Callable[[], float]) -> Completion | None:
        """Run one pass; give the answer when that was the last. `clock` gives seconds.

        What is interrupted is closed instead, and what fails is logged: both are answered empty.
        """
        if self.interrupted is not None:
            self.close()
            return self.empty(self.interrupted)
        try:
            if self._work is None:
                self.timings_ms["queue"] = 1e3 * (clock() - self.submitted)
                self._work = completer.work(
                    self.request,
                    submitted=self.submitted,
                    times=self.timings_ms,
                    cost=self.cost,
                    only_read=self.is_build,
                )
            with torch.inference_mode():
                return next(self._work)
        except Exception:
            log.exception("a completion failed; it is answered empty")
            return self.empty("error")

    def finish(self) -> None:
        """Do what is left of the work once it is answered."""
        try:
            with torch.inference_mode():
                if self._work is not None:
                    next(self._work, None)
        except Exception:
            log.exception("what an answer took was not kept")

    def close(self) -> None:
        """End the work where it stands; it may clean up, and keeps what it has computed."""
        if self._work is not None:
            with torch.inference_mode():
                self._work.close()

    def empty(self, stop: str) -> Completion:
        """Give an answer without text: what it cost until now, and why it ended."""
        cost = self.cost
        return Completion(
            text="",
            stop=stop,
            n_recomputed=cost.n_recomputed,
            n_generated=cost.n_generated,
            n_passes=cost.n_passes,
            n_healing_passes=cost.n_healing_passes,
            n_alternative_passes=cost.n_alternative_passes,
            timings_ms=dict(self.timings_ms),
        )
