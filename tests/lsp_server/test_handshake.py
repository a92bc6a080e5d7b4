"""What comes before `initialize`: refused as the server refuses it, and nothing is lost."""

from __future__ import annotations

import json
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest

from lsp_server.handshake import await_initialize, options_of
from lsp_server.stdio import MessageWriter, read_messages

if TYPE_CHECKING:
    from tests.lsp_server.server_bench import Bench

INITIALIZE = {"jsonrpc": "2.0", "id": 9, "method": "initialize", "params": {"capabilities": {}}}


def body(message: object) -> bytes:
    return json.dumps(message).encode()


def heard(*bodies: bytes) -> tuple[bytes | None, list[Any], list[bytes]]:
    """What was waited for, what the editor was told, and what is left to read."""
    messages, out = iter(bodies), BytesIO()
    found = await_initialize(messages, MessageWriter(out))
    out.seek(0)
    return found, [json.loads(answer) for answer in read_messages(out)], [*messages]


EARLY = {
    "a request": {"jsonrpc": "2.0", "id": 1, "method": "shutdown"},
    "a request of that name": {"jsonrpc": "2.0", "id": "x", "method": "textDocument/hover"},
    "a notification": {"jsonrpc": "2.0", "method": "initialized", "params": {}},
    "not a request": {"jsonrpc": "2.0", "method": "initialize"},
    "an answer": {"jsonrpc": "2.0", "id": 1, "result": None},
    "another version": {"jsonrpc": "1.0", "id": 1, "method": "initialize"},
    "a request with a strange id": {"jsonrpc": "2.0", "id": [1], "method": "shutdown"},
    "a list": [1],
    "null": None,
}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "early", [*map(body, EARLY.values()), b"{", b"\xff"], ids=[*EARLY, "half", "bytes"]
)
async def test_what_comes_early_is_refused_as_the_server_does(bench: Bench, early: bytes) -> None:
    found, told, rest = heard(early, body(INITIALIZE), b"more")
    assert (found, rest) == (body(INITIALIZE), [b"more"])
    bench.server.protocol.receive(early, 0.0)
    await bench.settle()
    assert told == list(bench.messages())


@pytest.mark.parametrize(
    "bodies", [(), (body({"jsonrpc": "2.0", "method": "exit"}), body(INITIALIZE))], ids=["", "exit"]
)
def test_nothing_to_wait_for(bodies: tuple[bytes, ...]) -> None:
    assert heard(*bodies)[:2] == (None, [])


@pytest.mark.parametrize(
    ("params", "options"),
    [
        ({"initializationOptions": {"model": "m"}}, {"model": "m"}),
        ({"initializationOptions": 1}, 1),
        ({}, None),
        (None, None),
        ([1], None),
    ],
    ids=repr,
)
def test_options(params: object, options: object) -> None:
    assert options_of(body({**INITIALIZE, "params": params})) == options


def test_options_of_no_params() -> None:
    assert options_of(b'{"jsonrpc": "2.0", "id": 1, "method": "initialize"}') is None
