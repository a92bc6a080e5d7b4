"""Whose turn it is: requests that wait, and builds of prompts in the background."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.ticket import Ticket

# A build that has waited so long takes turns with requests, however many come.
PATIENCE_MS = 300.0
# So much of the time that a ticket has waited counts as time that it has not had: nobody starves.
SHARE_OF_WAITING = 0.1


class Schedule:
    """The tickets that wait: one request and one build a key, the newest. Times are in seconds.

    Knows neither models nor threads. The engine makes every call under its condition; `turn`,
    `charge`, `remove` and `take_dropped` are its own thread's.
    """

    def __init__(self) -> None:
        """Start with nothing that waits."""
        self._requests: OrderedDict[str, Ticket] = OrderedDict()
        self._builds: OrderedDict[str, Ticket] = OrderedDict()
        # They left before they were done: what they have begun is still to be closed.
        self._dropped: list[Ticket] = []
        # Of the last pass; and the time that builds took, as much of which goes to requests before
        # a build's next turn: a chunk of a prompt takes as long as half a dozen written tokens.
        self._was_build = False
        self._owed_s = 0.0

    def has_work(self) -> bool:
        """Tell whether anything waits, or is still to be closed."""
        return bool(self._requests or self._builds or self._dropped)

    def add(self, request: Ticket) -> Ticket | None:
        """Queue a request; gives the document's older one, which is dropped for it."""
        older = self._requests.pop(request.key, None)
        self._requests[request.key] = request
        request.older_build = self._builds.get(request.key)
        if older is not None:
            self._dropped.append(older)
        return older

    def add_build(self, build: Ticket) -> None:
        """Queue a build; an older one of its key is dropped, and its waiting counts on."""
        older = self._builds.pop(build.key, None)
        if older is not None:
            # Steady typing replaces a build again and again: it has waited since its first.
            build.submitted, build.spent_s = older.submitted, older.spent_s
            self._dropped.append(older)
        self._builds[build.key] = build

    def has_build(self, key: str) -> bool:
        """Tell whether a build of this key waits, or runs."""
        return key in self._builds

    def has_newer_build(self, request: Ticket) -> bool:
        """Tell whether the document's build was added after the request."""
        return self._builds.get(request.key) not in (None, request.older_build)

    def drop_builds(self, document: str) -> None:
        """Drop the builds of a document, whatever their keys."""
        for key, build in list(self._builds.items()):
            if build.request.document == document:
                self._dropped.append(self._builds.pop(key))

    def turn(self, now: float) -> Ticket | None:
        """Give the ticket that has the next pass, which stays queued; None when nothing waits.

        Requests go first. Of several, the one that has had the least time, and less than others
        for how long it has waited: a short answer does not wait for a long one that came before
        it. Among equals, they take turns. A build that has waited 300 ms gets every second pass,
        but not more time than the requests do.
        """
        queue = self._queue(now)
        if not queue:
            return None
        ticket = min(queue.values(), key=lambda ticket: _rank(ticket, now))
        queue.move_to_end(ticket.key)
        return ticket

    def charge(self, ticket: Ticket, spent_s: float) -> None:
        """Note what the pass took that `turn` gave to a ticket."""
        ticket.spent_s += spent_s
        self._was_build = ticket.is_build
        self._owed_s = spent_s if ticket.is_build else max(0.0, self._owed_s - spent_s)

    def remove(self, ticket: Ticket) -> None:
        """Take out a ticket that is done; a newer one in its place stays."""
        queue = self._builds if ticket.is_build else self._requests
        if queue.get(ticket.key) is ticket:
            del queue[ticket.key]

    def take_dropped(self) -> list[Ticket]:
        """Give what has been dropped since the last call."""
        dropped, self._dropped = self._dropped, []
        return dropped

    def clear(self) -> list[Ticket]:
        """Take out all that waits; gives the requests, which are still to be answered."""
        requests = list(self._requests.values())
        self._requests.clear()
        self._builds.clear()
        return requests

    def _queue(self, now: float) -> OrderedDict[str, Ticket]:
        """Give the queue whose turn it is; empty when there is nothing to do."""
        if not (self._requests and self._builds):
            return self._requests or self._builds
        oldest = min(build.submitted for build in self._builds.values())
        has_waited = 1e3 * (now - oldest) >= PATIENCE_MS
        is_builds_turn = has_waited and not self._was_build and self._owed_s <= 0
        return self._builds if is_builds_turn else self._requests


def _rank(ticket: Ticket, now: float) -> tuple[bool, float]:
    """Give a ticket's place among those of its queue: the least goes first.

    Who has no time left, or is called off, is done with one step more.
    """
    waited_s, deadline_ms = now - ticket.submitted, ticket.request.deadline_ms
    is_late = deadline_ms is not None and 1e3 * waited_s >= deadline_ms
    is_last = ticket.interrupted is not None or (is_late and not ticket.is_build)
    return not is_last, ticket.spent_s - SHARE_OF_WAITING * waited_s
