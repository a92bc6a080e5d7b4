"""The engine that windows share, as one of them sees it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import threading

    from engine.engine import Engine
    from engine.request import CompletionRequest
    from engine.ticket import OnDone, Ticket


class WindowEngine:
    """The shared engine as one window sees it: its documents have names of their own.

    For the window's event loop, except `gone`, which any thread may ask.
    """

    def __init__(self, engine: Engine, window: int, *, may_save: bool, gone: threading.Event):
        self._engine, self._window, self._may_save = engine, window, may_save
        self._gone = gone
        self._tickets: dict[str, Ticket] = {}
        self._documents: set[str] = set()
        self.n_asked = 0
        """How often anything was asked of the engine from here."""

    def __getattr__(self, name: str) -> Any:
        # What is no matter of documents: the model, its declaration, counters.
        return getattr(self._engine, name)

    def submit(self, request: CompletionRequest, on_done: OnDone) -> Ticket:
        own = self._own(request)
        ticket = self._tickets[own.document] = self._engine.submit(own, on_done)
        return ticket

    def prepare(self, request: CompletionRequest, *, key: str | None = None) -> None:
        if not self._gone.is_set():
            own_key = None if key is None else self._name(key)
            self._engine.prepare(self._own(request), key=own_key)

    def is_preparing(self, document: str) -> bool:
        return self._engine.is_preparing(self._name(document))

    def forget(self, document: str) -> None:
        name = self._name(document)
        self._documents.discard(name)
        self._tickets.pop(name, None)
        self._engine.forget(name)

    def close(self) -> None:
        """Leave: what this window waits for ends, its documents are forgotten; the engine stays."""
        self._gone.set()
        for ticket in self._tickets.values():
            ticket.cancel()
        for name in self._documents:
            self._engine.forget(name)

    def _own(self, request: CompletionRequest) -> CompletionRequest:
        self.n_asked += 1
        name = self._name(request.document)
        self._documents.add(name)
        may_be_saved = request.may_be_saved and self._may_save
        return replace(request, document=name, may_be_saved=may_be_saved)

    def _name(self, document: str) -> str:
        return f"{self._window}:{document}"
