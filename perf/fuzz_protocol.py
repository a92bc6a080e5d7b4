"""Messages that no client should send, and a server that has to live through them.

`python -m perf.fuzz_protocol --messages 100000` sends them to a real server over stdio and prints
one JSON object: what was sent, how requests were answered, and how often the server proved to
serve in between. Exit code 1 if a request got no answer or two, or an answer held a traceback.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from perf.client import INVOKED, SERVER_COMMAND, Client

if TYPE_CHECKING:
    from collections.abc import Iterable

URI, FOLDER, NOTEBOOK = "file:///fuzz/a.py", "file:///fuzz", "file:///fuzz/n.ipynb"
CELL = "vscode-notebook-cell:/fuzz/n.ipynb#1"
URIS = (URI, "file:///fuzz/.env", CELL, "untitled:1", "", "no uri", "file:///%zz", "\x00")
HUGE_CHARS = 300_000
# Between two proofs that the server serves.
ROUND = 250
ROUND_TIMEOUT_S = 120

VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**31 - 1,
    2**31,
    2**70,
    1.5,
    float("nan"),
    "",
    "text",
    "\ud800",
    [],
    [None],
    {},
    {"a": {}},
    [[[[]]]],
    {"": None, "__class__": 1, "params": {}},
)
WRONG_BODIES = (
    b"",
    b"{",
    b"null",
    b"[]",
    b'[{"jsonrpc": "2.0", "id": 1, "method": "shutdown"}]',
    b"\xff\xfe\x00",
    b"[" * 50_000,
    b'{"jsonrpc": "2.0", "method": ' + b"[" * 50_000,
    b'{"jsonrpc": "1.0", "id": 1, "method": "initialize"}',
    b'{"jsonrpc": "2.0", "id": ' + b"9" * 5_000 + b"}",
    b'{"jsonrpc": "2.0", "method": "exit" "params": null}',
    b"Content-Length: 2\r\n\r\n{}",
)


class Fuzzer:
    """A stream of messages from a seed: right ones, broken ones, and right ones out of order."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._n_requests = 0
        self.requests: list[str] = []
        """Ids of what is a request by its form, each of which has to be answered once."""
        self.sent: Counter[str] = Counter()

    def body(self) -> bytes:
        """The next message's body."""
        kind = self._random.choices(("right", "mutated", "bytes", "cancel"), (4, 5, 1, 1))[0]
        self.sent[kind] += 1
        if kind == "bytes":
            return self._random.choice(WRONG_BODIES)
        if kind == "cancel":
            known = self.requests[-50:] or ["none"]
            return _encoded(
                {"method": "$/cancelRequest", "params": {"id": self._random.choice(known)}}
            )
        message = self._right()
        if kind == "mutated":
            for _ in range(self._random.randint(1, 3)):
                message = self._mutated(message)
        if self._random.random() < 0.5 and isinstance(message, dict):
            self._n_requests += 1
            message["id"] = f"fuzz-{self._n_requests}"
            if "method" in message and message.get("jsonrpc", "2.0") == "2.0":
                self.requests.append(message["id"])
        body = _encoded(message)
        if kind == "mutated" and self._random.random() < 0.05:
            cut = body[: self._random.randrange(len(body))]
            if self.requests and b'"id": "%s"' % self.requests[-1].encode() in body:
                # What is cut is no JSON, and nobody can tell what it asked.
                self.requests.pop()
            return cut
        return body

    def _right(self) -> Any:
        rng = self._random
        uri = rng.choice(URIS[:1] * 4 + URIS)
        document = {"uri": uri, "version": rng.randint(-1, 9)}
        at = {"line": rng.randint(0, 5), "character": rng.randint(0, 40)}
        to = {"line": rng.randint(0, 5), "character": rng.randint(0, 40)}
        text = rng.choice(("x", "\n", "def f():\r\n", "🎉\ud83c", "", "x" * 500))
        if rng.random() < 0.001:
            text = "y = [" + "1, " * (HUGE_CHARS // 3)
        opened = {"uri": uri, "languageId": "python", "version": 1, "text": text}
        cell = {"kind": rng.choice((1, 2)), "document": CELL}
        change = rng.choice(({"text": text}, {"text": text, "range": {"start": at, "end": to}}))
        array = {"start": rng.randint(0, 3), "deleteCount": rng.randint(0, 3), "cells": [cell]}
        context: dict[str, Any] = {"triggerKind": rng.choice((1, 2))}
        if rng.random() < 0.2:
            selected = {"range": {"start": at, "end": to}, "text": text}
            context["selectedCompletionInfo"] = selected
        folder = {"uri": rng.choice(URIS), "name": "w"}
        place = {"textDocument": document, "position": at}
        notebook = {"uri": NOTEBOOK, "version": 1, "notebookType": "jupyter", "cells": [cell]}
        cells = rng.choice(
            (
                {"structure": {"array": array, "didOpen": [opened | {"uri": CELL}]}},
                {"textContent": [{"document": {"uri": CELL, "version": 2}, "changes": [change]}]},
                {"data": [cell]},
            )
        )
        settings = {"keystate": {rng.choice(("maxTokens", "exclude", "maxTokns")): "x"}}
        item = {"insertText": text, "command": {"title": "", "command": "x", "arguments": [text]}}
        method, params = rng.choice(
            (
                ("initialize", {"capabilities": {}, "processId": None}),
                ("initialized", {}),
                ("textDocument/didOpen", {"textDocument": opened}),
                ("textDocument/didChange", {"textDocument": document, "contentChanges": [change]}),
                ("textDocument/didClose", {"textDocument": document}),
                ("textDocument/inlineCompletion", {**place, "context": context}),
                ("textDocument/didShowCompletion", {"item": item}),
                ("textDocument/didPartiallyAcceptCompletion", {"item": item, "acceptedLength": 1}),
                ("workspace/executeCommand", {"command": "keystate.server.accepted"}),
                ("workspace/didChangeConfiguration", {"settings": settings}),
                (
                    "workspace/didChangeWorkspaceFolders",
                    {"event": {"added": [folder], "removed": [folder]}},
                ),
                (
                    "notebookDocument/didOpen",
                    {"notebookDocument": notebook, "cellTextDocuments": [opened | {"uri": CELL}]},
                ),
                (
                    "notebookDocument/didChange",
                    {
                        "notebookDocument": {"uri": NOTEBOOK, "version": 2},
                        "change": {"cells": cells},
                    },
                ),
                (
                    "notebookDocument/didClose",
                    {"notebookDocument": {"uri": NOTEBOOK}, "cellTextDocuments": []},
                ),
                ("keystate/cursorMoved", place),
                ("keystate/status", {"textDocument": document}),
                ("keystate/lastTimings", None),
                ("keystate/counters", None),
                ("$/setTrace", {"value": "verbose"}),
                ("no/such", text),
            )
        )
        return {"jsonrpc": "2.0", "method": method, "params": params}

    def _mutated(self, message: Any) -> Any:
        """The same with one value, somewhere in it, gone or another."""
        rng = self._random
        if isinstance(message, dict) and message:
            key = rng.choice(list(message))
            changed = dict(message)
            if rng.random() < 0.2:
                del changed[key]
            elif rng.random() < 0.5:
                changed[key] = self._mutated(changed[key])
            else:
                changed[key] = rng.choice(VALUES)
            return changed
        if isinstance(message, list) and message and rng.random() < 0.7:
            at = rng.randrange(len(message))
            return [*message[:at], self._mutated(message[at]), *message[at:]]
        return rng.choice(VALUES)


def _encoded(message: Any) -> bytes:
    if isinstance(message, dict):
        message = {"jsonrpc": "2.0", **message}
    return json.dumps(message).encode()


def faults(requests: Iterable[str], answers: Iterable[dict[str, Any]]) -> list[str]:
    """Requests without an answer or with two, and answers with a traceback in them."""
    counted: Counter[Any] = Counter()
    found = []
    for answer in answers:
        counted[answer["id"]] += 1
        error = answer.get("error") or {}
        if "data" in error or "Traceback" in str(error.get("message")):
            found.append(f"{answer['id']}: a traceback")
    found += [f"{asked}: {counted[asked]} answers" for asked in requests if counted[asked] != 1]
    return found


async def fuzz(client: Client, seed: int, n_messages: int) -> dict[str, Any]:
    """Send that many messages to an initialized server; gives what came of them."""
    fuzzer, n_served = Fuzzer(seed), 0
    client.strays.clear()
    for start in range(0, n_messages, ROUND):
        for _ in range(min(ROUND, n_messages - start)):
            client.write(fuzzer.body())
        await asyncio.wait_for(_prove_to_serve(client), ROUND_TIMEOUT_S)
        n_served += 1
        client.notifications.clear()
    await asyncio.wait_for(_until_answered(client, fuzzer), ROUND_TIMEOUT_S)
    codes = Counter(
        str((answer.get("error") or {}).get("code", "result")) for answer in client.strays
    )
    return {
        "sent": dict(fuzzer.sent),
        "requests": len(fuzzer.requests),
        "answers": dict(codes),
        "served": n_served,
        "faults": faults(fuzzer.requests, client.strays)[:20],
    }


async def _prove_to_serve(client: Client) -> None:
    uri = "file:///fuzz/valid.py"
    client.open(uri, "python", "import os\n\n# name in os.list")
    answer = await client.ask(uri, 2, 17, INVOKED)
    if not isinstance(answer.result["items"], list):
        raise ValueError(f"{answer.result!r}, expected items")
    client.close(uri)


async def _until_answered(client: Client, fuzzer: Fuzzer) -> None:
    """Wait until nothing is worked on; a request may be waiting for its deadline."""
    asked = set(fuzzer.requests)
    while not asked <= {answer["id"] for answer in client.strays if answer["id"] is not None}:
        await asyncio.wait_for(client.send("keystate/status", None), ROUND_TIMEOUT_S)
        await asyncio.sleep(0.05)


@click.command()
@click.option("--messages", default=100_000, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--model", help="A directory or a hub id; the embedded model where left out.")
def main(messages: int, seed: int, model: str | None) -> None:
    """Send a server what no client should, and see it serve."""
    command = (*SERVER_COMMAND, "--log-level", "error", *(("--model", model) if model else ()))

    async def run() -> dict[str, Any]:
        async with await Client.start(command, stderr=subprocess.DEVNULL) as client:
            # Before `initialize`, whatever it is, it is an error or nothing.
            early = [client.send("textDocument/inlineCompletion", {}) for _ in range(3)]
            outcomes = await asyncio.gather(*early, return_exceptions=True)
            await client.initialize(options={"statistics": False})
            result = await fuzz(client, seed, messages)
            result["before_initialize"] = sorted({str(outcome) for outcome in outcomes})
            await client.send("shutdown", None)
            late = await asyncio.gather(
                client.send("keystate/status", None), return_exceptions=True
            )
            result["after_shutdown"] = sorted({str(outcome) for outcome in late})
            client.notify("exit", None)
            result["exit_code"] = await client.wait()
            return result

    result = asyncio.run(run())
    click.echo(json.dumps(result))
    sys.exit(1 if result["faults"] or result["exit_code"] else 0)


if __name__ == "__main__":
    main()
