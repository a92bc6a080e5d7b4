"""A window's side of the shared engine: a pipe between the editor and the host.

When the host dies it is started again and told what this window's editor has said, so that the
editor notices no more than requests that were answered with nothing. Imports little: every open
window is such a process.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, BinaryIO

from engine.owner_file import owner_opener
from lsp_server.quantizations import QUANTIZATIONS
from lsp_server.shared_address import HostAddress
from lsp_server.shared_session import INITIALIZE, Session
from lsp_server.stdio import MessageWriter, framed, read_messages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from lsp_server.shared_session import Message

logger = logging.getLogger(__name__)

# A model as settings name it, its device and quantization.
Chosen = tuple[str | None, str, str | None]

# How long a host may take until it listens; the model is loaded later.
START_S = 60.0
RETRY_S = 0.05
# A host that is being killed may take connections until its last file is closed.
DYING_S = 0.2
# A host that dies so often in so short a time would do so again.
MAX_STARTS, STARTS_S = 5, 60.0
# What the server may still say after `exit`.
LAST_WORDS_S = 2.0


class Link:
    """A connection to a host. Any thread may send; one reads."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self.reader: BinaryIO = connection.makefile("rb")

    def send(self, bodies: Iterable[bytes]) -> None:
        """Send messages; silent when the host is gone, which whoever reads will notice."""
        with self._sending:
            try:
                for body in bodies:
                    self._connection.sendall(framed(body))
            except OSError as error:
                logger.info("the host is gone: %s", error)

    def close(self) -> None:
        """Close; whoever reads finds the end, and closes the reader."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


class Window:
    """Pipes one editor's messages to the host and back, and outlives hosts."""

    def __init__(
        self,
        chosen: Chosen,
        address: HostAddress,
        stdout: BinaryIO,
        start: Callable[[HostAddress, str | None, str, str | None], subprocess.Popen[bytes]],
    ) -> None:
        """`address` is that of the host of what is `chosen`."""
        self._chosen, self._address = chosen, address
        self._editor = MessageWriter(stdout)
        self._start = start
        # Held while the session changes, and while there is no host.
        self._lock = threading.Lock()
        self._session = Session()
        self._link: Link | None = None
        # The editor's process, if it is one that can be seen from here.
        self._client: int | None = None
        self._starts: deque[float] = deque(maxlen=MAX_STARTS)
        self._is_shut_down = self._is_ending = False
        self._ended: SimpleQueue[int] = SimpleQueue()
        self._host_left = threading.Event()

    def run(self, messages: Iterable[bytes]) -> int:
        """Pipe until the editor says exit or is gone; gives the exit code LSP asks for.

        The first message is `initialize`. Threads stay behind that block: the process is to be
        ended.
        """
        self._in_thread(self._read_editor, messages)
        return self._ended.get()

    def _read_editor(self, messages: Iterable[bytes]) -> int:
        for body in messages:
            message = _parsed(body)
            method = message.get("method") if message is not None else None
            self._is_shut_down |= method == "shutdown"
            if self._link is None:
                assert method == INITIALIZE, "it comes first"
                assert message is not None, "it has a method"
                with self._lock:
                    self._session.heard(message)
                    client = self._session.client
                    self._client = client if client and _is_there(client) else None
                    # Told to the host as all is that a new one must know.
                    self._connect()
            else:
                with self._lock:
                    is_ours = message is None or self._session.heard(message)
                    link = self._link
                    # Before the host hears it: its end is no death then.
                    self._is_ending |= method == "exit"
                if is_ours:
                    link.send([body])
            if method == "exit":
                break
        with self._lock:
            self._is_ending = True
            link_now = self._link
        if link_now is not None:
            if method == "exit":
                self._host_left.wait(LAST_WORDS_S)
            link_now.close()
        return 0 if self._is_shut_down else 1

    def _read_host(self, link: Link) -> int | None:
        for body in read_messages(link.reader):
            message = json.loads(body)
            with self._lock:
                is_editors = self._session.told(message)
            if is_editors:
                self._editor.write(framed(body))
        link.reader.close()
        self._host_left.set()
        return self._revive(link)

    def _revive(self, dead: Link) -> int | None:
        """Start another host in place of one that died; 1 if that is of no use any more."""
        with self._lock:
            if self._is_ending:
                return None
            if self._client is not None and not _is_there(self._client):
                # The server noticed before the end of stdin did; see `parent_watch.py`.
                return 1
            logger.warning("the shared engine is gone; it is started again")
            dead.close()
            for message in self._session.broken():
                self._editor.write(framed(_body(message)))
            long_ago = time.monotonic() - STARTS_S
            if len(self._starts) == MAX_STARTS and self._starts[0] > long_ago:
                logger.error("the shared engine died %d times in a minute", MAX_STARTS)
                return 1
            self._host_left.clear()
            if time.monotonic() - self._starts[-1] < DYING_S:
                time.sleep(DYING_S)
            # Its folder may be gone as well.
            self._address = HostAddress.of(*self._chosen)
            self._connect()
        return None

    def _connect(self) -> None:
        """Get a link to a host, one that knows what the editor said; with the lock held.

        Raises OSError if none can be started.
        """
        self._starts.append(time.monotonic())
        link = Link(reach(self._address, lambda: self._start(self._address, *self._chosen)))
        link.send(map(_body, self._session.replay()))
        self._link = link
        self._in_thread(self._read_host, link)

    def _in_thread(self, work: Callable[..., int | None], *args: Any) -> None:
        """Do this on a thread; what it returns, if anything, is the process' exit code."""

        def run() -> None:
            try:
                code = work(*args)
            except Exception as error:
                # Not the message that caused it: it may hold code.
                logger.error("the window ends: %s", error)
                code = 1
            if code is not None:
                self._ended.put(code)

        threading.Thread(target=run, daemon=True).start()


def reach(address: HostAddress, start: Callable[[], subprocess.Popen[bytes]]) -> socket.socket:
    """Connect to the host, started if there is none; OSError if it does not come up in 60 s.

    Several windows may do this at once: of the hosts that they start one stays.
    """
    deadline = time.monotonic() + START_S
    host: subprocess.Popen[bytes] | None = None
    while True:
        try:
            return address.connect()
        except (OSError, ValueError) as error:
            problem = error
        code = None if host is None else host.poll()
        if code:
            raise OSError(f"the shared engine ended with code {code}: see {address.log_path}")
        if time.monotonic() > deadline:
            raise OSError(f"the shared engine does not start: {problem}; see {address.log_path}")
        if host is None or code == 0:
            # With 0 it ended because there was another, which may have been about to end.
            host = start()
        time.sleep(RETRY_S)


def start_host(
    address: HostAddress,
    model: str | None,
    device: str,
    quantize: str | None,
    more: Sequence[str] = (),
) -> subprocess.Popen[bytes]:
    """Start a host that outlives this process; `more` goes on its command line."""
    # Not `-m`: the folder that an editor was started in could bring its own `lsp_server`.
    root = str(Path(__file__).parents[1])
    program = (
        f"import sys; sys.path.append({root!r}); from lsp_server.cli import main;"
        " main(prog_name='keystate')"
    )
    command = [sys.executable, "-P", "-c", program, "serve", "--shared-host", "--device", device]
    if model is not None:
        command += ["--model", model]
    if quantize is not None:
        command += ["--quantize", quantize]
    apart: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        apart = {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}
    # What goes wrong before the host has a log of its own.
    with open(address.log_path, "ab", opener=owner_opener) as log:
        return subprocess.Popen(
            [*command, *more],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            # No folder of the user's is kept busy.
            cwd=address.folder,
            **apart,
        )


def _is_there(pid: int) -> bool:
    """Whether a process exists; on Windows, where asking is not as simple, it is assumed."""
    if sys.platform == "win32":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def chosen_model(options: object, forced: dict[str, str]) -> Chosen:
    """Model, device and quantization as the server would take them.

    From its command line and `initializationOptions`.
    """
    given = options if isinstance(options, dict) else {}
    model, device = forced.get("model", given.get("model")), forced.get("device")
    if device is None:
        device = given.get("device")
    if not isinstance(model, str) or not model.strip():
        model = None
    elif Path(model).is_dir():
        model = str(Path(model).absolute())
    quantize = forced.get("quantize", given.get("quantize"))
    return (
        model,
        device if isinstance(device, str) and device else "auto",
        quantize if quantize in QUANTIZATIONS else None,
    )


def _parsed(body: bytes) -> Message | None:
    """A message; None for what is none, which the server will answer."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def _body(message: Message) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()
