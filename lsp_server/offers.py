"""What was offered to the client, and what it says became of it."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lsp_server.private_files import statistics_path
from lsp_server.retention import Retention
from lsp_server.statistics import Statistics, save_statistics

if TYPE_CHECKING:
    from collections.abc import Callable

    from lsp_server.documents import Document
    from lsp_server.retention import CallLater
    from lsp_server.statistics import Days

logger = logging.getLogger(__name__)

# Offers that a client may still speak of.
MAX_OFFERS = 256
# Numbers are written so long after the first that is new.
SAVE_S = 60.0
# A client may tell of an acceptance before it tells of the edit.
AGAIN_S = 1.0


@dataclass(eq=False)
class Fate:
    """What became of one suggestion, in however many offers it came."""

    happened: set[str] = field(default_factory=set)

    def is_first(self, what: str) -> bool:
        """Whether this had not happened yet; now it has."""
        is_new = what not in self.happened
        self.happened.add(what)
        return is_new


@dataclass(eq=False)
class Offer:
    """Text to insert, in place of its first `n_taken` characters where some stand there already."""

    id: str
    fate: Fate
    document: Document
    start: int
    revision: int
    text: str
    n_taken: int


class Offers:
    """The items sent last, and the statistics of what became of them. For one event loop."""

    def __init__(self, call_later: CallLater, is_on: Callable[[], bool]) -> None:
        """`call_later` as the loop's; `is_on` tells whether the user wants statistics now."""
        self._call_later, self._is_on = call_later, is_on
        self.statistics = Statistics()
        self._retention = Retention(call_later, self._retained)
        self._offers: OrderedDict[str, Offer] = OrderedDict()
        self._save_timer: asyncio.TimerHandle | None = None

    def add(self, document: Document, start: int, text: str, n_standing: int, fate: Fate) -> str:
        """Note that `text` is offered for an offset; gives the offer's id.

        n_standing: so many characters of it stand there. The rest of a suggestion that was
        typed along shares its fate.
        """
        offer = Offer(uuid.uuid4().hex, fate, document, start, document.revision, text, n_standing)
        self._offers[offer.id] = offer
        while len(self._offers) > MAX_OFFERS:
            self._offers.popitem(last=False)
        return offer.id

    def shown(self, offer_id: str) -> None:
        """The user sees it. An id that is not known (any more) is nothing."""
        offer = self._offers.get(offer_id)
        if offer is not None and offer.fate.is_first("shown"):
            self._count(offer.document.language_id, shown=1)

    def partially_accepted(self, offer_id: str, n_units: int) -> None:
        """So many UTF-16 units of its text stand in the document now, or will in a moment."""
        offer = self._offers.get(offer_id)
        if offer is None:
            return
        self.shown(offer_id)
        took = self._take(offer, _n_chars(offer.text, n_units))
        if took and offer.fate.is_first("partially accepted"):
            self._count(offer.document.language_id, partially_accepted=1)

    def accepted(self, offer_id: str) -> None:
        """All of its text stands in the document now, or will in a moment."""
        offer = self._offers.get(offer_id)
        if offer is None:
            return
        self.shown(offer_id)
        self._take(offer, len(offer.text))
        if offer.fate.is_first("accepted"):
            self._count(offer.document.language_id, accepted=1)

    def follow(self, document: Document) -> None:
        """Take account of a document's edits."""
        self._retention.follow(document)

    def forget(self, document: Document) -> None:
        """Drop what was offered in a document that is closed."""
        self._retention.forget(document)
        for offer in [one for one in self._offers.values() if one.document is document]:
            del self._offers[offer.id]

    def close(self) -> None:
        """Write what is new, and end all timers."""
        self._retention.close()
        if self._save_timer is not None:
            self._save_timer.cancel()
        days = self.statistics.take()
        if days and self._is_on():
            _save(days)

    def _take(self, offer: Offer, n_chars: int) -> bool:
        """Note how much of an offer's text was accepted by now; False where that is nothing new."""
        first, offer.n_taken = offer.n_taken, max(offer.n_taken, n_chars)
        if first == offer.n_taken:
            return False
        self._count(offer.document.language_id, accepted_chars=offer.n_taken - first)
        if self._is_on() and not self._watch(offer, first, n_chars):
            self._call_later(AGAIN_S, self._watch, offer, first, n_chars)
        return True

    def _watch(self, offer: Offer, first: int, last: int) -> bool:
        """Watch a part of an offer's text; False if it does not stand in the document."""
        document = offer.document
        at = document.carry(offer.start, offer.revision)
        if at is None or document.slice(at + first, at + last) != offer.text[first:last]:
            return False
        self._retention.watch(document, at + first, at + last)
        return True

    def _retained(self, language: str, time: str, n_chars: int, n_found: int) -> None:
        amounts = {f"checked_{time}_chars": n_chars, f"retained_{time}_chars": n_found}
        self._count(language, **amounts)

    def _count(self, language: str, **amounts: int) -> None:
        if not self._is_on():
            return
        self.statistics.add(language, **amounts)
        if self._save_timer is None:
            self._save_timer = self._call_later(SAVE_S, self._save)

    def _save(self) -> None:
        self._save_timer = None
        days = self.statistics.take()
        if days and self._is_on():
            # Off the loop: a home directory may be far away.
            loop = asyncio.get_running_loop()
            loop.run_in_executor(None, _save, days)


def _save(days: Days) -> None:
    """Add numbers to the user's file; one that cannot be written is logged."""
    try:
        path = statistics_path()
    except OSError as error:
        logger.warning("statistics were not saved: %s", error)
    else:
        save_statistics(path, days)


def _n_chars(text: str, n_units: int) -> int:
    """Characters in the first `n_units` UTF-16 units; half a character counts as none of it."""
    return len(text.encode("utf-16-le")[: 2 * n_units].decode("utf-16-le", "ignore"))
