"""A ticket's work, pass by pass, with work that a test makes up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
import torch

from engine.request import Completion
from engine.ticket import Ticket
from tests.engine.engine_world import Clock, ask

if TYPE_CHECKING:
    from collections.abc import Generator

    from engine.completing import Completer
    from engine.decode import Work

DONE = Completion(text="done", stop="limit")


class Playing:
    """In the place of a completer: two passes, the answer, and what is kept; noted as it goes."""

    def __init__(self, fails_at: str = "") -> None:
        self.fails_at = fails_at
        self.noted: list[str] = []
        self.asked: dict[str, Any] = {}

    def work(
        self, request: object, *, cost: Work, **asked: Any
    ) -> Generator[Completion | None, None, None]:
        self.asked = asked
        try:
            for _ in range(2):
                self._note("pass")
                cost.n_passes += 1
                yield None
            yield DONE
            self._note("kept")
        finally:
            self._note("closed")

    def _note(self, what: str) -> None:
        self.noted.append(what)
        assert torch.is_inference_mode_enabled()
        if what == self.fails_at:
            raise RuntimeError("broken")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ticket(clock: Clock) -> Ticket:
    return Ticket(request=ask(), key="cart.py", submitted=clock.now)


def advance(ticket: Ticket, playing: Playing, clock: Clock) -> Completion | None:
    return ticket.advance(cast("Completer", playing), clock)


def test_a_pass_at_a_time_then_the_answer_then_what_is_kept(ticket: Ticket, clock: Clock) -> None:
    playing = Playing()
    assert [advance(ticket, playing, clock) for _ in range(3)] == [None, None, DONE]
    assert playing.noted == ["pass"] * 2
    ticket.finish()
    assert playing.noted == ["pass"] * 2 + ["kept", "closed"]


@pytest.mark.parametrize("is_build", [False, True], ids=["request", "build"])
def test_time_before_the_first_pass_is_waiting(clock: Clock, is_build: bool) -> None:
    playing = Playing()
    ticket = Ticket(request=ask(), key="a", submitted=clock.now, is_build=is_build)
    for _ in range(2):
        clock.advance_ms(7.0)
        advance(ticket, playing, clock)
    assert ticket.timings_ms == {"queue": pytest.approx(7.0)}
    assert playing.asked == {
        "submitted": ticket.submitted,
        "times": ticket.timings_ms,
        "only_read": is_build,
    }
    ticket.close()


@pytest.mark.parametrize("n_passes", [0, 1])
def test_what_is_called_off_is_closed_and_answered_with_what_it_cost(
    ticket: Ticket, clock: Clock, n_passes: int
) -> None:
    playing = Playing()
    for _ in range(n_passes):
        advance(ticket, playing, clock)
    ticket.cancel()
    assert ticket.interrupt("superseded") == "cancel", "the first reason counts"
    completion = advance(ticket, playing, clock)
    assert completion is not None
    assert (completion.text, completion.stop, completion.n_passes) == ("", "cancel", n_passes)
    assert playing.noted == ["pass", "closed"] * n_passes
    ticket.close()
    assert playing.noted == ["pass", "closed"] * n_passes


def test_what_fails_is_answered_empty(
    ticket: Ticket, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    completion = advance(ticket, Playing("pass"), clock)
    assert completion is not None
    assert (completion.text, completion.stop) == ("", "error")
    assert "a completion failed" in caplog.text


def test_what_cannot_be_kept_is_a_log_line(
    ticket: Ticket, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    playing = Playing("kept")
    while advance(ticket, playing, clock) is None:
        pass
    ticket.finish()
    assert playing.noted[-2:] == ["kept", "closed"]
    assert "was not kept" in caplog.text
