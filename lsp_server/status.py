"""What the server says of itself: `keystate/status`, sent whenever it changes.

Sent to clients with the capability `experimental: {keystateStatus: true}`; a notification with

- `kind`: "starting" while the model loads, "ready", "busy" while a request has waited for longer
  than 100 ms, "off" where settings switch suggestions off everywhere, "error" where the model
  cannot be loaded;
- `message`: for people; with "error" it names the remedy;
- `model` and `device`: once the model is loaded, else null.

The same as a request, with `{textDocument: {uri}}` for one document, is answered with the same
object for that place: "off" and why, where nothing is suggested there unasked.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

STATUS, STATUS_CAPABILITY = "keystate/status", "keystateStatus"
# A wait that nobody notices is not shown.
BUSY_AFTER_S = 0.1
# How far loading is, no oftener than this: a small model is loaded without a word.
PROGRESS_S = 1.0


class Status:
    """What the server is at, and the telling of it. For one event loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, send: Callable[[dict[str, Any]], None]
    ) -> None:
        self._loop = loop
        self._send = send
        self._may_send = False
        self._sent: dict[str, Any] | None = None
        self._loading: tuple[str, str] | None = ("starting", "loading the model")
        """Kind and message until the model is loaded."""
        self._progress_due_s: float | None = None
        self.on_progress: Callable[[str, float], None] = lambda _what, _share: None
        """Told as well how far loading is."""
        self._model: str | None = None
        self._device: str | None = None
        self._is_on = True
        self._is_busy = False
        self._n_waiting = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """From now on the client may be told; it hears how things stand."""
        self._may_send = True
        self._tell()

    def progress(self, what: str, share: float) -> None:
        """So much of this, 0 to 1, is done before the model is loaded; may be said often."""
        now_s = self._loop.time()
        if self._progress_due_s is None:
            self._progress_due_s = now_s + PROGRESS_S
        if now_s >= self._progress_due_s and self._model is None:
            self._progress_due_s = now_s + PROGRESS_S
            self._loading = ("starting", f"{what}: {share:.0%}")
            self._tell()
            self.on_progress(what, share)

    def loaded(self, model: str, device: str) -> None:
        self._loading, self._model, self._device = None, model, device
        self._tell()

    def failed(self, message: str) -> None:
        """The model cannot be loaded; the message names the remedy."""
        self._loading = ("error", message)
        self._tell()

    def switch(self, is_on: bool) -> None:
        """Suggestions are switched on or off everywhere."""
        self._is_on = is_on
        self._tell()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While a request waits for its answer."""
        self._n_waiting += 1
        if self._timer is None:
            self._timer = self._loop.call_later(BUSY_AFTER_S, self._be_busy)
        try:
            yield
        finally:
            self._n_waiting -= 1
            if not self._n_waiting:
                self._timer.cancel()
                self._timer, self._is_busy = None, False
                self._tell()

    def now(self, reason_off: str | None = None) -> dict[str, Any]:
        """How things stand; `reason_off` is why nothing is suggested unasked at some place."""
        if reason_off is None and not self._is_on:
            reason_off = "suggestions are switched off"
        if self._loading is not None and self._loading[0] == "error":
            kind, message = self._loading
        elif reason_off is not None:
            kind, message = "off", reason_off
        elif self._loading is not None:
            kind, message = self._loading
        elif self._is_busy:
            kind, message = "busy", "thinking"
        else:
            kind, message = "ready", "ready"
        return {"kind": kind, "message": message, "model": self._model, "device": self._device}

    def _be_busy(self) -> None:
        self._is_busy = True
        self._tell()

    def _tell(self) -> None:
        now = self.now()
        if self._may_send and now != self._sent:
            self._sent = now
            self._send(now)
