"""A small LSP client over stdio, for our own server or another; knows the protocol, no library."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lsp_server.private_files import NO_STATES, STATES
from perf.json_objects import checked, field, json_object

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

SERVER_COMMAND = (sys.executable, "-m", "lsp_server", "serve")
INVOKED, AUTOMATIC = 1, 2
# What one read takes in at most; a message may be many of them.
READ_BYTES = 2**16
# Content-Length or Content-Type: there is no other.
HEADER_BEGINS = b"content-"


class ResponseError(Exception):
    """The server answered a request with an error."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error.get('code')}: {error.get('message')}")
        self.code: int = error["code"]
        self.error = error


class ServerGone(Exception):
    """The server closed its stdout before it answered, or no longer writes LSP there."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A result, and the time from the request's bytes written to the answer's bytes read."""

    id: int
    result: Any
    latency_ms: float


class Pending:
    """A request that was sent; await it for its Answer."""

    def __init__(self, client: Client, request_id: int, future: asyncio.Future[Answer]) -> None:
        self._client = client
        self.id = request_id
        self._future = future

    def __await__(self) -> Any:
        return self._future.__await__()

    def cancel(self) -> None:
        """Tell the server that the answer is no longer wanted; it answers all the same."""
        self._client.notify("$/cancelRequest", {"id": self.id})


class Client:
    """A client and the server's process. Use as `async with await Client.start() as client`."""

    def __init__(self, process: asyncio.subprocess.Process, started_s: float) -> None:
        self._process = process
        self.started_s = started_s
        """When the process was started, by `time.perf_counter()`."""
        self._next_id = 1
        self._sent_s: dict[int, float] = {}
        self._futures: dict[int, asyncio.Future[Answer]] = {}
        self.notifications: list[dict[str, Any]] = []
        """Every notification from the server so far, oldest first."""
        self.strays: list[dict[str, Any]] = []
        """Answers to nothing that was asked, such as errors without an id."""
        self._versions: dict[str, int] = {}
        self._gone: Exception | None = None
        self._arrived = asyncio.Event()
        self._reader = asyncio.ensure_future(self._read())

    @classmethod
    async def start(
        cls,
        command: Sequence[str] = SERVER_COMMAND,
        *,
        cwd: Path | None = None,
        stderr: int | Any | None = None,
    ) -> Self:
        """Start a server; `stderr` as in `subprocess` (None: ours)."""
        environment = {
            **os.environ,
            # Started from anywhere, `-m lsp_server` finds what this process would.
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            # Those of the user's own typing are neither taken up nor replaced, nor deleted.
            STATES: NO_STATES,
        }
        started_s = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            cwd=cwd,
            env=environment,
        )
        return cls(process, started_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        self._reader.cancel()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def initialize(
        self, root: Path | None = None, options: object = None, capabilities: Any = None
    ) -> dict[str, Any]:
        """Shake hands; gives what `initialize` was answered with. ValueError for no object."""
        answer: Answer = await self.send(
            "initialize",
            {
                "processId": os.getpid(),
                "rootUri": None if root is None else root.as_uri(),
                "capabilities": capabilities or {},
                "initializationOptions": options,
            },
        )
        self.notify("initialized", {})
        return checked(answer.result, dict, "the answer to initialize")

    def open(self, uri: str, language_id: str, text: str) -> None:
        self._versions[uri] = 0
        document = {"uri": uri, "languageId": language_id, "version": 0, "text": text}
        self.notify("textDocument/didOpen", {"textDocument": document})

    def change(self, uri: str, changes: Sequence[dict[str, Any]]) -> None:
        """Send content changes as one new version."""
        self._versions[uri] = version = self._versions.get(uri, 0) + 1
        document = {"uri": uri, "version": version}
        params = {"textDocument": document, "contentChanges": list(changes)}
        self.notify("textDocument/didChange", params)

    def insert(self, uri: str, line: int, character: int, text: str) -> None:
        """Send the insertion of text at a position as a change."""
        at = {"line": line, "character": character}
        self.change(uri, [{"range": {"start": at, "end": at}, "text": text}])

    def close(self, uri: str) -> None:
        self.notify("textDocument/didClose", {"textDocument": {"uri": uri}})

    def ask(self, uri: str, line: int, character: int, trigger: int = AUTOMATIC) -> Pending:
        """Send a request for an inline completion."""
        return self.send(
            "textDocument/inlineCompletion",
            {
                "textDocument": {"uri": uri},
                "position": {"line": line, "character": character},
                "context": {"triggerKind": trigger},
            },
        )

    async def last_timings(self) -> list[dict[str, Any]]:
        """What our server says the answers since the last call took."""
        answer: Answer = await self.send("keystate/lastTimings", None)
        timings: list[dict[str, Any]] = answer.result
        return timings

    async def shutdown(self) -> int:
        """Shut down and exit, as LSP has it; gives the exit code."""
        await self.send("shutdown", None)
        self.notify("exit", None)
        return await self._process.wait()

    async def wait(self) -> int:
        """Wait for the process to end by itself; gives the exit code."""
        return await self._process.wait()

    def end_input(self) -> None:
        """Close the server's stdin, as a client that dies does."""
        assert self._process.stdin is not None, "stdin is a pipe"
        self._process.stdin.close()

    async def notification(self, method: str) -> dict[str, Any]:
        """Wait for a notification of this method, the first ever; give its parameters."""
        while True:
            for message in self.notifications:
                if message["method"] == method:
                    params: dict[str, Any] = message["params"]
                    return params
            self._arrived.clear()
            await self._arrived.wait()

    def send(self, method: str, params: Any) -> Pending:
        """Send a request; await what it gives for the Answer, or for ResponseError."""
        request_id, self._next_id = self._next_id, self._next_id + 1
        future = asyncio.get_running_loop().create_future()
        self._futures[request_id] = future
        self._sent_s[request_id] = time.perf_counter()
        if self._gone is not None:
            # Nobody is there any more who could answer.
            future.set_exception(self._gone)
        self._write({"id": request_id, "method": method, "params": params})
        return Pending(self, request_id, future)

    def notify(self, method: str, params: Any) -> None:
        self._write({"method": method, "params": params})

    def write(self, body: bytes) -> None:
        """Write any body as a message: JSON or not."""
        assert self._process.stdin is not None, "stdin is a pipe"
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))

    def _write(self, message: dict[str, Any]) -> None:
        if message.get("params", ...) is None:
            del message["params"]
        self.write(json.dumps({"jsonrpc": "2.0", **message}).encode())

    async def _read(self) -> None:
        """Hand out messages until the server closes its stdout."""
        assert self._process.stdout is not None, "stdout is a pipe"
        stream, buffer = self._process.stdout, bytearray()
        try:
            while data := await stream.read(READ_BYTES):
                read_s = time.perf_counter()
                buffer += data
                while (body := _take_message(buffer)) is not None:
                    self._handle(json_object(body), read_s)
            gone = ServerGone("the server closed its stdout")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            # What comes after it cannot be told apart any more.
            gone = ServerGone(f"what the server writes is not LSP: {error}")
        self._gone = gone
        for future in self._futures.values():
            if not future.done():
                future.set_exception(gone)

    def _handle(self, message: dict[str, Any], read_s: float) -> None:
        if "method" in message:
            if "id" in message:
                # Requests of the server's: nothing here needs one.
                self._write({"id": message["id"], "result": None})
            else:
                self.notifications.append(message)
                self._arrived.set()
            return
        request_id = message.get("id") or 0
        future = self._futures.get(request_id)
        if future is None:
            self.strays.append(message)
            self._arrived.set()
            return
        # Before anybody's future is given up: what is no answer is nobody's.
        error = _error_of(message)
        del self._futures[request_id]
        latency_ms = 1e3 * (read_s - self._sent_s.pop(request_id))
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(ResponseError(error))
        else:
            result = message["result"]
            future.set_result(Answer(id=request_id, result=result, latency_ms=latency_ms))


def _error_of(message: dict[str, Any]) -> dict[str, Any] | None:
    """An answer's error, None for one with a result; ValueError for what has neither."""
    if message.get("error") is None:
        if "result" not in message:
            raise ValueError("an answer has no result and no error, expected one of them")
        return None
    error = field(message, "error", dict)
    field(error, "code", int)
    return error


def _take_message(buffer: bytearray) -> bytes | None:
    """Cut the first whole message off a buffer; ValueError for what is no message."""
    if buffer[: len(HEADER_BEGINS)].lower() != HEADER_BEGINS[: len(buffer)]:
        # At once: of plain text, the end would never come.
        raise ValueError(f"{bytes(buffer[:60])!r}, expected a header")
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    for line in bytes(buffer[:end]).split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            n_bytes = int(value)
            break
    else:
        raise ValueError(f"{bytes(buffer[:end])[:200]!r}, expected the header Content-Length")
    body_start = end + 4
    if len(buffer) < body_start + n_bytes:
        return None
    body = bytes(buffer[body_start : body_start + n_bytes])
    del buffer[: body_start + n_bytes]
    return body
