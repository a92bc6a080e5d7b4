"""The process that holds the model for all windows: the same server a connection, one engine.

It starts when a window needs it and ends when it has had none for a while. Windows share states,
which are found by their tokens, and nothing else: not documents, not epochs, not settings.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from lsp_server.server import Server, import_suggester
from lsp_server.settings import Settings
from lsp_server.stdio import read_messages
from lsp_server.window_engine import WindowEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    from engine.engine import Engine
    from lsp_server.server import Loader
    from lsp_server.shared_address import HostAddress
    from lsp_server.suggestions import Suggester

logger = logging.getLogger(__name__)

# Between two looks whether there are states worth saving: a host that crashes loses no more.
TICK_S = 30.0
# When a window could not be let in.
ACCEPT_AGAIN_S = 0.1
# What waits for a window that does not read; past that it is given up.
MAX_UNREAD_BYTES = 2**26
# How long what was written to a window that leaves may take to get there.
FLUSH_S = 2.0


class SharedHost:
    """Serves windows on a listening socket, until there have been none for `idle_s` seconds.

    To be made and used inside one event loop. `import_loader` gives what makes a suggester with
    the engine that is shared; called once.
    """

    def __init__(
        self,
        address: HostAddress,
        forced_settings: Mapping[str, Any],
        idle_s: float,
        import_loader: Callable[[], Loader] = import_suggester,
    ) -> None:
        self._address = address
        self._forced = forced_settings
        self._idle_s = idle_s
        self._import_loader = import_loader
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._idle: asyncio.TimerHandle | None = None
        self._windows: dict[int, asyncio.Task[None]] = {}
        self._n_windows = 0
        self._loading = threading.Lock()
        self._engine: Engine | None = None
        self._engines: dict[int, WindowEngine] = {}
        # What was asked by windows that are gone, and what of all had been when states were saved.
        self._n_asked = self._n_saved = 0

    async def run(self) -> None:
        """Serve; at the end nobody can connect any more, and states are saved."""
        listener = self._address.listen()
        own_file = self._address.file_id
        listener.setblocking(False)
        accepting = asyncio.ensure_future(self._accept(listener))
        ticking = asyncio.ensure_future(self._tick())
        with contextlib.suppress(NotImplementedError):
            self._loop.add_signal_handler(signal.SIGTERM, self.stop)
        self._rest()
        try:
            await self._ended.wait()
        finally:
            # Cleaners may have taken ours away, and another host begun in its place.
            if self._address.file_id == own_file:
                self._address.socket_path.unlink(missing_ok=True)
            for task in (accepting, ticking, *self._windows.values()):
                task.cancel()
            # Until it has ended the loop watches the listener.
            await asyncio.wait([accepting])
            listener.close()
            if self._engine is not None:
                await asyncio.to_thread(self._engine.close)

    def stop(self) -> None:
        self._ended.set()

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = await self._loop.sock_accept(listener)
            except OSError as error:
                # Most likely too many files are open; it waits until there is room for it.
                logger.warning("a window was not let in: %s", error)
                await asyncio.sleep(ACCEPT_AGAIN_S)
                continue
            connection.setblocking(True)
            self._n_windows += 1
            window = self._n_windows
            task = asyncio.ensure_future(self._serve(window, connection))
            self._windows[window] = task
            task.add_done_callback(partial(self._left, window))
            if self._idle is not None:
                self._idle.cancel()

    async def _serve(self, window: int, connection: socket.socket) -> None:
        try:
            if not await asyncio.to_thread(self._address.admit, connection):
                logger.warning("somebody without the token was turned away")
                return
            logger.info("window %d is here", window)
            gone = threading.Event()
            server = Server(self._forced, lambda: self._loader(window, gone))
            with SocketWriter(connection) as writer, connection.makefile("rb") as reader:
                try:
                    await server.run(read_messages(reader), cast("BinaryIO", writer))
                finally:
                    gone.set()
                    await asyncio.to_thread(writer.finish)
                    # Ends the thread that reads.
                    with contextlib.suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)
        except Exception:
            logger.exception("window %d failed", window)
        finally:
            connection.close()

    def _enter(self, window: int, engine: WindowEngine) -> None:
        if window in self._windows:
            self._engines[window] = engine

    def _left(self, window: int, _task: object) -> None:
        logger.info("window %d is gone", window)
        del self._windows[window]
        self.save_soon()
        own = self._engines.pop(window, None)
        self._n_asked += 0 if own is None else own.n_asked
        if not self._windows:
            self._rest()

    def _rest(self) -> None:
        self._idle = self._loop.call_later(self._idle_s, self.stop)

    def _loader(self, window: int, gone: threading.Event) -> Loader:
        """What gives a window its suggester; on its server's loading thread."""
        load_first = self._import_loader()

        def load(settings: Settings, on_progress: Callable[[str, float], None]) -> Suggester:
            from lsp_server.suggestions import Suggester

            with self._loading:
                if self._engine is None:
                    # The model is the host's. What must not be saved is said window by window.
                    own = Settings(**self._forced)
                    ours = replace(
                        settings,
                        model=own.model,
                        device=own.device,
                        quantize=own.quantize,
                        save_states=True,
                    )
                    self._engine = load_first(ours, on_progress).engine
            engine = WindowEngine(self._engine, window, may_save=settings.save_states, gone=gone)
            # The window may have left by now, or the host.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._enter, window, engine)
            return Suggester(cast("Engine", engine), settings)

        return load

    async def _tick(self) -> None:
        """Have states saved where there are new ones, and keep cleaners off our files."""
        while True:
            await asyncio.sleep(TICK_S)
            for path in (self._address.socket_path, self._address.lock_path):
                with contextlib.suppress(OSError):
                    os.utime(path)
            self.save_soon()

    def save_soon(self) -> None:
        """Have states written, if anything was asked since they were."""
        n_asked = self._n_asked + sum(own.n_asked for own in self._engines.values())
        if self._engine is not None and n_asked != self._n_saved:
            self._n_saved = n_asked
            self._engine.save_soon()


class SocketWriter:
    """Writes to a window from a thread of its own: one that does not read holds up nobody."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._waiting: SimpleQueue[bytes | None] = SimpleQueue()
        self._n_bytes = 0
        self._room = threading.Lock()
        self._is_broken = False
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.put(None)

    def write(self, data: bytes) -> None:
        """Have this written; OSError once the window is gone or has stopped reading."""
        with self._room:
            self._n_bytes += len(data)
            is_full = self._n_bytes > MAX_UNREAD_BYTES
        if is_full and not self._is_broken:
            self._is_broken = True
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
        if self._is_broken:
            raise BrokenPipeError("the window does not read")
        self._waiting.put(data)

    def flush(self) -> None:
        """Nothing: it goes out as soon as it can."""

    def finish(self) -> None:
        """Wait until all is out, for 2 s at most."""
        self._waiting.put(None)
        self._thread.join(FLUSH_S)

    def _run(self) -> None:
        while (data := self._waiting.get()) is not None:
            try:
                self._connection.sendall(data)
            except OSError:
                self._is_broken = True
                return
            with self._room:
                self._n_bytes -= len(data)


def serve(address: HostAddress, forced: Mapping[str, Any], idle_s: float, log_level: str) -> None:
    """Be the host of an address that was claimed, for as long as it is needed."""
    _log_to(address, log_level)
    logger.info("process %d holds the engine", os.getpid())
    asyncio.run(_run(address, forced, idle_s))
    logger.info("no window needs it any more")


async def _run(address: HostAddress, forced: Mapping[str, Any], idle_s: float) -> None:
    await SharedHost(address, forced, idle_s).run()


def _log_to(address: HostAddress, level: str) -> None:
    """Send what is logged, and what is printed by accident, to the host's file; one older stays."""
    path = address.log_path
    if path.exists() and path.stat().st_size:
        path.replace(path.with_suffix(".old.log"))
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # At INFO it logs whole messages, which are the user's code.
    logging.getLogger("pygls").setLevel(logging.WARNING)
    sys.stdout = sys.stderr
