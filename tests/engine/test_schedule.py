"""Whose turn it is, played by hand: no model, no threads, a clock that a test moves."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from engine.request import CompletionRequest
from engine.schedule import PATIENCE_MS, Schedule
from engine.ticket import Ticket
from tests.engine.engine_world import Clock


@dataclass
class Desk:
    """A schedule, what is asked of it, and what it gives passes to."""

    schedule: Schedule = field(default_factory=Schedule)
    clock: Clock = field(default_factory=Clock)

    def ask(self, document: str, deadline_ms: float | None = None) -> Ticket:
        ticket = self.ticket(document, deadline_ms=deadline_ms)
        self.schedule.add(ticket)
        return ticket

    def build(
        self, document: str, key: str | None = None, deadline_ms: float | None = None
    ) -> Ticket:
        ticket = self.ticket(document, key, deadline_ms=deadline_ms, is_build=True)
        self.schedule.add_build(ticket)
        return ticket

    def turn(self, ms: float = 5.0) -> Ticket:
        """Run a pass that takes so long."""
        ticket = self.schedule.turn(self.clock.now)
        assert ticket is not None
        self.clock.advance_ms(ms)
        self.schedule.charge(ticket, ms / 1e3)
        return ticket

    def turns(self, n: int, ms: float = 5.0) -> list[Ticket]:
        return [self.turn(ms) for _ in range(n)]

    def ticket(
        self,
        document: str,
        key: str | None = None,
        *,
        deadline_ms: float | None = None,
        is_build: bool = False,
    ) -> Ticket:
        request = CompletionRequest(
            document=document, header="", prefix="", suffix="", deadline_ms=deadline_ms
        )
        return Ticket(
            request=request, key=key or document, submitted=self.clock.now, is_build=is_build
        )


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_nothing_waits(desk: Desk) -> None:
    assert desk.schedule.turn(desk.clock.now) is None
    assert not desk.schedule.has_work()


# Among requests


@pytest.mark.parametrize("ms", [0.0, 5.0])
def test_equals_take_turns(desk: Desk, ms: float) -> None:
    tickets = [desk.ask(name) for name in "abc"]
    assert desk.turns(9, ms) == tickets * 3


def test_who_has_had_the_least_time_goes_first(desk: Desk) -> None:
    long = desk.ask("long")
    desk.turns(10, ms=10.0)
    short = desk.ask("short")
    # 100 ms less a tenth of the waiting, of either.
    assert desk.turns(9, ms=10.0) == [short] * 9
    desk.schedule.remove(short)
    assert desk.turn() is long


@pytest.mark.parametrize(("spent_ms", "is_first"), [(9.0, True), (11.0, False)])
def test_a_tenth_of_the_waiting_counts_as_time_not_had(
    desk: Desk, spent_ms: float, is_first: bool
) -> None:
    older = desk.ask("older")
    desk.turn(spent_ms)
    desk.clock.advance_ms(100.0 - spent_ms)
    newer = desk.ask("newer")
    assert desk.turn() is (older if is_first else newer)


@pytest.mark.parametrize("why", ["late", "called off"])
def test_who_is_done_with_one_step_more_goes_first(desk: Desk, why: str) -> None:
    last = desk.ask("last", deadline_ms=50.0)
    desk.turn(49.0)
    other = desk.ask("other", deadline_ms=50.0)
    assert desk.turn(0.5) is other
    if why == "late":
        desk.clock.advance_ms(0.6)
    else:
        last.cancel()
    assert desk.turn() is last


def test_nobody_starves(desk: Desk) -> None:
    """Short answers, one after the other in two documents, while a long one is written."""
    long = desk.ask("long")
    desk.turns(60)
    since_ms, waited_ms = desk.clock.now, [0.0]
    short = {name: desk.ask(name) for name in "ab"}
    for _ in range(3000):
        ticket = desk.turn()
        if ticket is long:
            waited_ms.append(1e3 * (desk.clock.now - since_ms))
            since_ms = desk.clock.now
        elif ticket.spent_s > 0.015:
            desk.schedule.remove(ticket)
            short[ticket.key] = desk.ask(ticket.key)
    # It had 300 ms when they came: they get ten times as much before it goes on.
    assert 2000 < waited_ms[1] < 3000
    assert max(waited_ms[2:]) < 100
    assert long.spent_s == pytest.approx(0.1 * (desk.clock.now - long.submitted), rel=0.1)


# Builds beside requests


@pytest.mark.parametrize("ms", [0.0, 5.0])
def test_a_build_waits_for_requests_until_it_has_waited_300_ms(desk: Desk, ms: float) -> None:
    request, build = desk.ask("a"), desk.build("b")
    assert desk.turns(59) == [request] * 59
    desk.clock.advance_ms(PATIENCE_MS - 59 * 5 + 0.1)
    assert desk.turns(10, ms) == [build, request] * 5


def test_alone_a_build_waits_for_nobody(desk: Desk) -> None:
    builds = [desk.build(name) for name in "ab"]
    assert desk.turns(4) == builds * 2


def test_a_build_gets_no_more_time_than_the_requests(desk: Desk) -> None:
    """A chunk of a prompt takes as long as five written tokens: they come before the next one."""
    request, build = desk.ask("a"), desk.build("b")
    desk.clock.advance_ms(PATIENCE_MS + 0.1)
    for _ in range(4):
        assert desk.turn(24.0) is build
        assert desk.turns(5) == [request] * 5


def test_a_request_goes_before_a_build_that_has_run_alone(desk: Desk) -> None:
    build = desk.build("b")
    assert desk.turns(20, ms=25.0) == [build] * 20
    request = desk.ask("a")
    assert desk.turns(5) == [request] * 5
    assert desk.turn() is build


def test_a_build_of_a_late_request_is_not_late(desk: Desk) -> None:
    """The deadline is the request's, which has been answered; all builds take turns."""
    builds = [desk.build("a", deadline_ms=0.0), desk.build("b")]
    assert desk.turns(4) == builds * 2


def test_steady_typing_does_not_keep_a_build_from_its_turn(desk: Desk) -> None:
    """One that replaces another has waited since the first was asked for, and had its time."""
    request, builds = desk.ask("a"), [desk.build("b")]
    for _ in range(29):
        assert desk.turn(10.0) is request
        builds.append(desk.build("b"))
    desk.clock.advance_ms(PATIENCE_MS - 290 + 0.1)
    assert desk.turn(10.0) is builds[-1]
    newest = desk.build("b")
    assert (newest.submitted, newest.spent_s) == (builds[0].submitted, 0.01)
    assert desk.schedule.take_dropped() == builds


# What is queued, and what leaves


def test_the_newest_request_of_a_document_replaces_the_older_one(desk: Desk) -> None:
    older, other, build = desk.ask("a"), desk.ask("b"), desk.build("a")
    assert desk.turn() is older
    newer = desk.ticket("a")
    assert desk.schedule.add(newer) is older
    assert desk.schedule.add(desk.ticket("c")) is None
    assert desk.schedule.take_dropped() == [older]
    assert desk.schedule.take_dropped() == []
    assert set(desk.turns(9)) == {newer, other, *desk.schedule.clear()}
    assert older.spent_s == 0.005
    assert newer.older_build is build, "a request drops no build"


@pytest.mark.parametrize("is_build", [False, True], ids=["request", "build"])
def test_who_is_done_leaves_and_a_newer_one_stays(desk: Desk, is_build: bool) -> None:
    submit = desk.build if is_build else desk.ask
    older = submit("a")
    newer = submit("a")
    desk.schedule.remove(older)
    assert desk.turn() is newer
    desk.schedule.remove(newer)
    assert desk.schedule.turn(desk.clock.now) is None
    assert desk.schedule.has_work(), "the older one is still to be closed"
    assert desk.schedule.take_dropped() == [older]
    assert not desk.schedule.has_work()


def test_a_request_and_a_build_of_one_key_leave_apart(desk: Desk) -> None:
    request, build = desk.ask("a"), desk.build("a")
    desk.schedule.remove(request)
    assert desk.turn() is build
    request = desk.ask("a")
    desk.schedule.remove(build)
    assert desk.turn() is request


def test_a_build_is_newer_than_a_request_if_it_came_behind_it(desk: Desk) -> None:
    request = desk.ask("a")
    assert not desk.schedule.has_newer_build(request)
    desk.build("b")
    assert not desk.schedule.has_newer_build(request)
    desk.build("a")
    assert desk.schedule.has_newer_build(request)
    request = desk.ask("a")
    assert not desk.schedule.has_newer_build(request)
    desk.build("a")
    assert desk.schedule.has_newer_build(request)


def test_builds_of_a_document_go_whatever_their_keys(desk: Desk) -> None:
    own, next_window = desk.build("a"), desk.build("a", key="a, the next window")
    other, request = desk.build("b", key="a, too"), desk.ask("a")
    desk.schedule.drop_builds("a")
    assert desk.schedule.take_dropped() == [own, next_window]
    assert not desk.schedule.has_build("a")
    assert desk.turn() is request
    desk.schedule.remove(request)
    assert desk.turn() is other


def test_clearing_gives_the_requests_that_wait(desk: Desk) -> None:
    requests = [desk.ask(name) for name in "ab"]
    desk.build("c")
    assert desk.schedule.clear() == requests
    assert not desk.schedule.has_work()
    assert desk.schedule.turn(desk.clock.now) is None
