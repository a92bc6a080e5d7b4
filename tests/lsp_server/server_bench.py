"""A server in the test's own process, with an engine under the test's control."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from engine.request import Completion
from lsp_server.documents import Document, Position
from lsp_server.server import Server
from lsp_server.settings import Settings
from lsp_server.stdio import MessageWriter
from lsp_server.suggestions import Item, Suggestion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lsp_server.suggestions import Suggester

URI = "file:///workspace/package/a.py"
INLINE_COMPLETION = "textDocument/inlineCompletion"
DID_CHANGE = "textDocument/didChange"


@dataclass
class FakeSuggester:
    """Stands in for the engine: answers when it is told to."""

    name = "fake"
    device = "cpu"

    asked: list[tuple[str, Position, bool, float | None]] = field(default_factory=list)
    prepared: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    settings: Settings | None = None
    answers: list[asyncio.Future[Suggestion]] = field(default_factory=list)
    n_cancelled: int = 0

    async def suggest(
        self,
        document: Document,
        position: Position,
        *,
        explicit: bool,
        deadline_ms: float | None,
        n_alternatives: int = 0,
    ) -> Suggestion:
        self.asked.append((document.text, position, explicit, deadline_ms))
        answer: asyncio.Future[Suggestion] = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        try:
            return await answer
        except asyncio.CancelledError:
            self.n_cancelled += 1
            raise

    def prepare(self, document: Document, offset: int) -> None:
        self.prepared.append(document.slice(0, offset) + "|" + document.slice(offset, 99))

    def forget(self, uri: str) -> None:
        self.forgotten.append(uri)

    def configure(self, settings: Settings) -> None:
        self.settings = settings


def insertion(text: str, version: int, character: int = 0) -> dict[str, Any]:
    """Parameters of a change that puts text into the document's first line."""
    at = {"line": 0, "character": character}
    change = {"range": {"start": at, "end": at}, "text": text}
    document = {"uri": URI, "version": version}
    return {"textDocument": document, "contentChanges": [change]}


def suggestion(text: str, stop: str = "line") -> Suggestion:
    at = Position(0, 0)
    items = (Item(insert_text=text, start=at, end=at, log_prob=0.0),) if text else ()
    completion = Completion(text=text, stop=stop)
    return Suggestion(items=items, completion=completion, timings_ms={"total": 1.0})


def _body(message: dict[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **message}).encode()


class Bench:
    """A server in this process; messages go in and out as bytes."""

    def __init__(self, real: Suggester | None = None) -> None:
        """Serve with `real`, whose engine the test steps by hand, else with a fake."""
        self.suggester = FakeSuggester()
        self._real = real
        self.sent = bytearray()
        # What the loading of the engine comes to.
        self._loaded: SimpleQueue[FakeSuggester | Suggester | Exception] = SimpleQueue()
        self.on_progress: Callable[[str, float], None] = lambda _what, _share: None
        self.server = Server({}, lambda: self._load)
        bench = self

        class Writer(MessageWriter):
            def __init__(self) -> None:
                pass

            def write(self, data: bytes) -> None:
                bench.sent += data

        self.server.protocol.set_writer(Writer())
        self._ids = itertools.count(1)

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async def load(self, outcome: Exception | None = None) -> None:
        """End the loading of the engine: well, or with an error."""
        self._loaded.put(outcome or self._real or self.suggester)
        await self.server.suggester(60_000)
        await self.settle()

    def close(self) -> None:
        """Let the loading thread end."""
        self.server.configure(Settings(), [])
        self._loaded.put(self._real or self.suggester)

    def _load(self, _settings: Settings, on_progress: Callable[[str, float], None]) -> Any:
        self.on_progress = on_progress
        loaded = self._loaded.get()
        if isinstance(loaded, Exception):
            raise loaded
        return loaded

    def send(self, message: dict[str, Any]) -> None:
        self.server.protocol.receive(_body(message), time.monotonic())

    def read(self, method: str, params: Any) -> None:
        """Have a notification read, which the loop is still to handle."""
        self.server.inbox.put(_body({"method": method, "params": params}))

    def tell(self, method: str, params: Any) -> None:
        self.send({"method": method, "params": params})

    def ask(self, method: str, params: Any) -> int:
        request_id = next(self._ids)
        self.send({"id": request_id, "method": method, "params": params})
        return request_id

    def complete(self, line: int = 0, character: int = 0, trigger: int = 2) -> int:
        return self.ask(
            INLINE_COMPLETION,
            {
                "textDocument": {"uri": URI},
                "position": {"line": line, "character": character},
                "context": {"triggerKind": trigger},
            },
        )

    def insert(self, text: str, version: int) -> None:
        self.tell(DID_CHANGE, insertion(text, version))

    async def initialized(self, options: object = None, capabilities: object = None) -> None:
        params = {"capabilities": capabilities or {}, "initializationOptions": options}
        self.ask("initialize", params)
        await self.settle()
        self.tell("initialized", {})
        document = {"uri": URI, "languageId": "python", "version": 0, "text": "x = 1\n"}
        self.tell("textDocument/didOpen", {"textDocument": document})
        await self.settle()

    def messages(self) -> Iterator[dict[str, Any]]:
        rest = bytes(self.sent)
        while rest:
            header, _, rest = rest.partition(b"\r\n\r\n")
            n_bytes = int(header.split()[1])
            yield json.loads(rest[:n_bytes])
            rest = rest[n_bytes:]

    def told(self, method: str) -> list[Any]:
        """The parameters of what the server has sent by this method, oldest first."""
        return [message["params"] for message in self.messages() if message.get("method") == method]

    async def answer(self, method: str, result: object, nth: int = -1) -> None:
        """Answer a request of the server's, the last by this method."""
        asked = [message["id"] for message in self.messages() if message.get("method") == method]
        self.send({"id": asked[nth], "result": result})
        await self.settle()

    def answers(self, request_id: int) -> list[dict[str, Any]]:
        """All answers to one request: there must never be two."""
        return [message for message in self.messages() if message.get("id") == request_id]

    def result(self, request_id: int) -> Any:
        (answer,) = self.answers(request_id)
        return answer["result"]
