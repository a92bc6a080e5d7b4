"""The language server: its state, how its engine is loaded, and its life on two streams."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, BinaryIO

from lsprotocol import types
from pygls.lsp.server import LanguageServer

from lsp_server.answers import Answers
from lsp_server.documents import Document, Documents
from lsp_server.features import register
from lsp_server.protocol import Protocol
from lsp_server.scheduler import Scheduler
from lsp_server.settings import Settings
from lsp_server.stdio import MessageWriter, read_messages
from lsp_server.version import package_version

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lsp_server.suggestions import Suggester

    Loader = Callable[[Settings], Suggester]

logger = logging.getLogger(__name__)

# Messages read ahead of the one being handled; past that, the pipe holds the client back.
MAX_READ_AHEAD = 64


def _import() -> Loader:
    # torch takes seconds to import, which a client that waits for `initialize` must not notice.
    from lsp_server.suggestions import Suggester

    return Suggester.load


class Server(LanguageServer):
    """What lasts from one message to the next. To be made and used inside one event loop."""

    protocol: Protocol

    def __init__(
        self, forced_settings: Mapping[str, Any], import_loader: Callable[[], Loader] = _import
    ) -> None:
        super().__init__("keystate", package_version(), protocol_cls=Protocol)
        self.forced_settings = forced_settings
        """Settings from the command line, which win over the client's."""
        self.settings = Settings(**forced_settings)
        self.setting_problems: list[str] = []
        self.roots: list[str] = []
        """URIs of the workspace's folders."""
        self.documents = Documents()
        self.scheduler = Scheduler()
        self.answers = Answers()
        self.is_shut_down = False
        self._loop = asyncio.get_running_loop()
        self._exit_code: asyncio.Future[int] = self._loop.create_future()
        self._suggester: asyncio.Future[Suggester | None] = self._loop.create_future()
        self._configured = threading.Event()
        self._import_loader = import_loader
        self.protocol.on_sent = self.answers.sent
        register(self)
        threading.Thread(target=self._load, name="loader", daemon=True).start()

    async def run(self, stdin: BinaryIO, stdout: BinaryIO) -> int:
        """Serve until the client says exit or is gone; gives the exit code LSP asks for."""
        self.protocol.set_writer(MessageWriter(stdout))
        thread = threading.Thread(target=self._read, args=(stdin,), name="reader", daemon=True)
        thread.start()
        try:
            return await self._exit_code
        finally:
            suggester = self.loaded_suggester
            if suggester is not None:
                suggester.close()

    def stop(self) -> None:
        """End `run`: with 0 after a shutdown, else with 1."""
        if not self._exit_code.done():
            self._exit_code.set_result(0 if self.is_shut_down else 1)

    def configure(self, settings: Settings, problems: list[str]) -> None:
        """Take the settings, and load the engine in the background."""
        self.settings, self.setting_problems = settings, problems
        self._configured.set()

    @property
    def loaded_suggester(self) -> Suggester | None:
        """The suggester, if its model is loaded by now."""
        return self._suggester.result() if self._suggester.done() else None

    async def suggester(self, deadline_ms: float) -> Suggester | None:
        """The suggester, waited for up to a deadline; None past it or if there will be none."""
        # Not `wait_for`, which would cancel what others wait for too.
        await asyncio.wait([self._suggester], timeout=deadline_ms / 1e3)
        return self.loaded_suggester

    def prepare_soon(self, document: Document, offset: int | None = None) -> None:
        """Have the engine read up to an offset, unless more arrives first.

        Left out, it is where the last change ended: whoever types goes on there.
        """
        self._loop.call_soon(self._prepare, document, document.revision, offset)

    def show(self, kind: types.MessageType, message: str) -> None:
        self.window_show_message(types.ShowMessageParams(type=kind, message=message))

    def report_server_error(self, error: Exception, source: Any) -> None:
        """Log what went wrong; pygls would open a popup."""
        logger.error("%s: %s", getattr(source, "__name__", source), error)

    def _prepare(self, document: Document, revision: int, offset: int | None) -> None:
        suggester, edit = self.loaded_suggester, document.last_edit
        if offset is None and edit is not None:
            offset = edit.new_end
        if suggester is None or offset is None or document.revision != revision:
            return
        if self.documents.get(document.uri) is not document or self.scheduler.is_busy(document.uri):
            return
        try:
            suggester.prepare(document, offset)
        except Exception:
            logger.exception("could not read ahead")

    def _read(self, stdin: BinaryIO) -> None:
        """Hand messages to the loop; on a thread of its own."""
        room = threading.BoundedSemaphore(MAX_READ_AHEAD)

        def receive(body: bytes, at_s: float) -> None:
            room.release()
            self.protocol.receive(body, at_s)

        for body in read_messages(stdin):
            room.acquire()
            self._in_loop(receive, body, time.monotonic())
        self._in_loop(self.stop)

    def _load(self) -> None:
        """Load the engine; on a thread of its own."""
        try:
            # Begun before the settings are known.
            load = self._import_loader()
            self._configured.wait()
            suggester = load(self.settings)
        except Exception as error:
            self._in_loop(self._loading_failed, error)
        else:
            self._in_loop(self._loading_done, suggester)

    def _loading_done(self, suggester: Suggester) -> None:
        self._suggester.set_result(suggester)
        logger.info("ready: %s on %s", suggester.name, suggester.device)
        for document in self.documents:
            self.prepare_soon(document)

    def _loading_failed(self, error: Exception) -> None:
        self._suggester.set_result(None)
        logger.error("the model could not be loaded", exc_info=error)
        # The engine's own errors are ValueErrors that name their remedy.
        remedy = "" if isinstance(error, ValueError) else " `keystate doctor` tells what is broken."
        self.show(
            types.MessageType.Error,
            f"keystate makes no suggestions, its model could not be loaded: {error}{remedy}",
        )

    def _in_loop(self, function: Any, *args: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *args)
