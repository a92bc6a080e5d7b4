"""The language server: its state, how its engine is loaded, and its life on two streams."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

from lsprotocol import types
from pygls.lsp.server import LanguageServer

from lsp_server.answers import Answers
from lsp_server.configuration import Configuration
from lsp_server.documents import Document, Documents, Position
from lsp_server.features import register
from lsp_server.filters import excluding_glob, reason_off
from lsp_server.inbox import Inbox
from lsp_server.notebooks import NOTEBOOK_SYNC, Notebooks
from lsp_server.offers import Offers
from lsp_server.parent_watch import watch
from lsp_server.power import Power
from lsp_server.protocol import Protocol
from lsp_server.scheduler import Scheduler
from lsp_server.status import STATUS, Status
from lsp_server.stdio import MessageWriter
from lsp_server.type_through import TypeThrough
from lsp_server.version import package_version
from lsp_server.workspace_files import WorkspaceFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from lsp_server.settings import Settings
    from lsp_server.suggestions import Suggester

    Loader = Callable[[Settings, Callable[[str, float], None]], Suggester]

logger = logging.getLogger(__name__)

# After so long without a change, a header that the code has outgrown is replaced.
IDLE_S = 1.0


def import_suggester() -> Loader:
    """Import what loads a model: torch takes seconds, which `initialize` must not wait for."""
    from lsp_server.suggestions import Suggester

    return Suggester.load


class Server(LanguageServer):
    """What lasts from one message to the next. To be made and used inside one event loop."""

    protocol: Protocol

    def __init__(
        self,
        forced_settings: Mapping[str, Any],
        import_loader: Callable[[], Loader] = import_suggester,
    ) -> None:
        super().__init__(
            "keystate",
            package_version(),
            notebook_document_sync=NOTEBOOK_SYNC,
            protocol_cls=Protocol,
        )
        self.configuration = Configuration(forced_settings)
        self.settings = self.configuration.settings
        self.setting_problems: list[str] = []
        self.roots: list[str] = []
        """URIs of the workspace's folders."""
        self.documents = Documents()
        self.notebooks = Notebooks(self.documents)
        self.files = WorkspaceFiles(self.documents)
        """Those that are not open."""
        self.scheduler = Scheduler()
        self.answers = Answers()
        self.is_shut_down = False
        self._loop = asyncio.get_running_loop()
        self.type_through = TypeThrough()
        self.offers = Offers(self._loop.call_later, lambda: self.settings.statistics)
        self.status = Status(self._loop, partial(self.protocol.notify, STATUS))
        self._power = Power()
        self._end_watch: Callable[[], None] = lambda: None
        self._idle: asyncio.TimerHandle | None = None
        # When the loop last was at reading ahead: from and to.
        self._read_ahead_s = (0.0, 0.0)
        self._exit_code: asyncio.Future[int] = self._loop.create_future()
        self._suggester: asyncio.Future[Suggester | None] = self._loop.create_future()
        self._configured = threading.Event()
        self._import_loader = import_loader
        self.inbox = Inbox(self._loop, self.protocol.receive)
        self.protocol.on_sent = self.answers.sent
        self.protocol.once_handled = self.inbox.once_handled
        register(self)
        threading.Thread(target=self._load, name="loader", daemon=True).start()

    async def run(self, messages: Iterable[bytes], stdout: BinaryIO) -> int:
        """Serve until the client says exit or is gone; gives the exit code LSP asks for."""
        self.protocol.set_writer(MessageWriter(stdout))
        thread = threading.Thread(target=self._read, args=(messages,), name="reader", daemon=True)
        thread.start()
        try:
            return await self._exit_code
        finally:
            # A loader that has not begun need not.
            self._configured.set()
            self._end_watch()
            self.offers.close()
            self.files.close()
            suggester = self.loaded_suggester
            if suggester is not None:
                suggester.close()

    def stop(self) -> None:
        """End `run`: with 0 after a shutdown, else with 1."""
        if not self._exit_code.done():
            self._exit_code.set_result(0 if self.is_shut_down else 1)

    def configure(self, settings: Settings, problems: list[str]) -> None:
        """Take the settings of the start, and load the engine in the background."""
        self.settings, self.setting_problems = settings, problems
        self.files.configure(settings)
        self.status.switch(settings.enabled)
        self._configured.set()

    def reconfigure(self, section: Mapping[str, Any]) -> None:
        """Take what the client's configuration says now; it holds from the next request on."""
        self.warn(self.configuration.change(section))
        self.settings = self.configuration.settings
        self.files.configure(self.settings)
        self.status.switch(self.settings.enabled)
        suggester = self.loaded_suggester
        if suggester is not None:
            suggester.configure(self.settings)

    def watch_parent(self, pid: int) -> None:
        """End with the client's process, should it forget to say so."""
        self._end_watch()
        self._end_watch = watch(self._loop, pid, self.stop)

    def place(self, uri: str, position: Position) -> tuple[Document | None, Position, int]:
        """The open document at a place of the client's, the position there, and where it begins.

        A notebook's cell is part of a document, and begins at some line of it.
        """
        place = self.notebooks.place(uri)
        if place is None:
            return self.documents.get(uri), position, 0
        return place.document, place.position(position), place.first_line

    def may_read_ahead(self, document: Document) -> bool:
        """Whether the engine may work on a document before anything is asked."""
        if reason_off(self.settings, document) is not None:
            return False
        return self.settings.speculate_on_battery or not self._power.is_on_battery()

    def read_ahead_ms(self, start_s: float, end_s: float) -> float:
        """How much of a time the loop last was at reading ahead, parsing what changed included."""
        first_s, last_s = self._read_ahead_s
        return 1e3 * max(0.0, min(last_s, end_s) - max(first_s, start_s))

    @property
    def loaded_suggester(self) -> Suggester | None:
        """The suggester, if its model is loaded by now."""
        return self._suggester.result() if self._suggester.done() else None

    @property
    def is_loaded(self) -> bool:
        """Whether loading the model has come to an end, good or bad."""
        return self._suggester.done()

    async def suggester(self, deadline_ms: float | None) -> Suggester | None:
        """The suggester, waited for up to a deadline; None past it or if there will be none."""
        # Not `wait_for`, which would cancel what others wait for too.
        timeout_s = None if deadline_ms is None else deadline_ms / 1e3
        if not self._suggester.done():
            await asyncio.wait([self._suggester], timeout=timeout_s)
        return self.loaded_suggester

    def prepare_soon(self, document: Document, offset: int | None = None) -> None:
        """Have the engine read up to an offset, unless more arrives first.

        Left out, it is where the last change ended: whoever types goes on there.
        """
        self._while_idle(None)
        self.offers.follow(document)
        self._loop.call_soon(self._prepare, document, document.revision, offset)

    def drop(self, uri: str) -> None:
        """Forget a document, or one that stands for a notebook's cells, everywhere."""
        self.scheduler.supersede(uri)
        document = self.documents.close(uri)
        if document is not None:
            self.offers.forget(document)
            self.files.forget(document)
        suggester = self.loaded_suggester
        if suggester is not None:
            suggester.forget(uri)

    def warn(self, problems: list[str]) -> None:
        """Show what is wrong with the settings, if anything is."""
        for problem in problems:
            logger.warning("%s", problem)
        if problems:
            self.show(types.MessageType.Warning, f"keystate: {'; '.join(problems)}")

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
        if not self.may_read_ahead(document):
            return
        start_s = time.monotonic()
        try:
            suggester.prepare(document, offset)
        except Exception:
            logger.exception("could not read ahead")
        else:
            self._while_idle(partial(self._refresh, document, revision, offset))
        self._read_ahead_s = (start_s, time.monotonic())

    def _refresh(self, document: Document, revision: int, offset: int) -> None:
        """Renew the header of a document at rest; once more, to use it when it has been read."""
        suggester = self.loaded_suggester
        if suggester is None or document.revision != revision:
            return
        if self.documents.get(document.uri) is not document or not self.may_read_ahead(document):
            return
        again = partial(self._refresh, document, revision, offset)
        try:
            if self.scheduler.is_busy(document.uri) or suggester.refresh(document, offset):
                self._while_idle(again)
        except Exception:
            logger.exception("could not renew the header")

    def _while_idle(self, work: Callable[[], None] | None) -> None:
        """Do this after a second in which nothing comes; in place of what was to be done."""
        if self._idle is not None:
            self._idle.cancel()
        self._idle = None if work is None else self._loop.call_later(IDLE_S, work)

    def _read(self, messages: Iterable[bytes]) -> None:
        """Hand messages to the loop; on a thread of its own."""
        for body in messages:
            self.inbox.put(body)
        self._in_loop(self.stop)

    def _load(self) -> None:
        """Load the engine; on a thread of its own."""
        try:
            # Begun before the settings are known.
            load = self._import_loader()
            self._configured.wait()
            if self._exit_code.done():
                return
            if not self.settings.save_states:
                from lsp_server.suggestions import forget_saved_states

                # Not left to `load`, which commands that save nothing of their own call as well.
                forget_saved_states()
            suggester = load(self.settings, partial(self._in_loop, self.status.progress))
        except Exception as error:
            self._in_loop(self._loading_failed, error)
        else:
            self._in_loop(self._loading_done, suggester)

    def _loading_done(self, suggester: Suggester) -> None:
        suggester.documents = _Readable(self)
        suggester.files = self.files
        # They may have changed while it was loaded.
        suggester.configure(self.settings)
        self._suggester.set_result(suggester)
        logger.info("ready: %s on %s", suggester.name, suggester.device)
        self.status.loaded(suggester.name, suggester.device)
        for document in self.documents:
            self.prepare_soon(document)

    def _loading_failed(self, error: Exception) -> None:
        self._suggester.set_result(None)
        logger.error("the model could not be loaded", exc_info=error)
        # The engine's own errors are ValueErrors that name their remedy.
        remedy = "" if isinstance(error, ValueError) else " `keystate doctor` tells what is broken."
        message = f"its model could not be loaded: {error}{remedy}"
        self.show(types.MessageType.Error, f"keystate makes no suggestions, {message}")
        self.status.failed(message)

    def _in_loop(self, function: Any, *args: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *args)


class _Readable:
    """The open documents that may be read while another is edited."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def __iter__(self) -> Iterator[Document]:
        settings = self._server.settings
        for document in self._server.documents:
            if excluding_glob(settings.exclude, document.path, document.full_path) is None:
                yield document
