"""What no client should send: a clear error or an empty answer, and the next request is served."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from perf.client import INVOKED, ResponseError

if TYPE_CHECKING:
    from perf.client import Client

pytestmark = pytest.mark.asyncio(loop_scope="session")

INLINE_COMPLETION = "textDocument/inlineCompletion"
# In a comment, where all that a random model says still parses.
PLAIN = "import os\n\n# name in os.list"


async def still_serves(client: Client) -> None:
    """A request after the bad input gets a real suggestion."""
    uri = "file:///workspace/plain.py"
    client.open(uri, "python", PLAIN)
    answer = await client.ask(uri, 2, 17)
    assert answer.result["items"][0]["insertText"]
    client.close(uri)


async def test_five_megabytes_in_one_line(client: Client) -> None:
    uri = "file:///workspace/minified.js"
    text = "var a=[" + "1234567," * 640_000 + "];"
    assert len(text) > 5_000_000
    client.open(uri, "javascript", text)
    for character in (7, len(text) // 2, len(text)):
        answer = await client.ask(uri, 0, character)
        assert isinstance(answer.result["items"], list)
        client.insert(uri, 0, character, "x")
        answer = await client.ask(uri, 0, character + 1)
        assert isinstance(answer.result["items"], list)
    client.close(uri)
    await still_serves(client)


async def test_nul_bytes_and_lone_surrogates(client: Client) -> None:
    uri = "file:///workspace/nul.py"
    client.open(uri, "python", "x = '\0\0'\n\ud800y = \0")
    answer = await client.ask(uri, 1, 6)
    assert isinstance(answer.result["items"], list)
    client.insert(uri, 0, 5, "\0\udfff")
    answer = await client.ask(uri, 0, 7)
    assert isinstance(answer.result["items"], list)
    await still_serves(client)


@pytest.mark.parametrize("position", [(2, 999), (999, 0), (2**31 - 1, 2**31 - 1)])
async def test_a_position_past_the_end_is_the_end(
    client: Client, position: tuple[int, int]
) -> None:
    uri = "file:///workspace/past.py"
    client.open(uri, "python", PLAIN)
    expected, *_ = (await client.ask(uri, 2, 17, INVOKED)).result["items"]
    answer, *_ = (await client.ask(uri, *position, INVOKED)).result["items"]
    assert answer["insertText"] == expected["insertText"]
    assert answer["range"] == expected["range"]
    assert answer["range"]["start"] == {"line": 2, "character": 17}
    client.insert(uri, *position, "st")
    moved = await client.ask(uri, *position)
    assert moved.result["items"][0]["range"]["start"] == {"line": 2, "character": 19}


async def test_a_change_of_a_document_that_is_not_open(client: Client) -> None:
    client.insert("file:///workspace/never-opened.py", 0, 0, "x")
    client.close("file:///workspace/never-opened.py")
    await still_serves(client)


async def test_a_request_on_a_document_that_is_not_open(client: Client) -> None:
    answer = await client.ask("file:///workspace/never-opened.py", 0, 0)
    assert answer.result == {"items": []}
    await still_serves(client)


@pytest.mark.parametrize("unknown", [12_345_678, "no such id"])
async def test_cancel_of_an_unknown_id(client: Client, unknown: int | str) -> None:
    client.notify("$/cancelRequest", {"id": unknown})
    await still_serves(client)


async def test_a_thousand_cancels(client: Client) -> None:
    uri = "file:///workspace/cancelled.py"
    client.open(uri, "python", PLAIN)
    pending = []
    for _ in range(500):
        pending.append(client.ask(uri, 2, 17))
        pending[-1].cancel()
        pending[-1].cancel()
    outcomes = await asyncio.gather(*(_outcome(request) for request in pending))
    # Cancelled, or superseded before the cancel was read, or done: each was answered.
    assert len(outcomes) == 500
    assert set(outcomes) <= {"-32800", "null", "items"}
    await still_serves(client)


async def _outcome(pending: Any) -> str:
    try:
        answer = await pending
    except ResponseError as error:
        return str(error.code)
    return "null" if answer.result is None else "items"


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        (INLINE_COMPLETION, None, -32602),
        (INLINE_COMPLETION, {"textDocument": {"uri": 5}}, -32602),
        (
            INLINE_COMPLETION,
            {
                "textDocument": {"uri": "file:///a"},
                "position": {"line": -1, "character": 0},
                "context": {"triggerKind": 1},
            },
            -32602,
        ),
        (
            INLINE_COMPLETION,
            {
                "textDocument": {"uri": "file:///a"},
                "position": {"line": 0, "character": 0},
                "context": {"triggerKind": 0},
            },
            -32602,
        ),
        ("no/suchMethod", {}, -32601),
    ],
    ids=["no-params", "wrong-type", "negative", "unknown-trigger", "unknown-method"],
)
async def test_wrong_requests(client: Client, method: str, params: Any, code: int) -> None:
    with pytest.raises(ResponseError) as raised:
        await client.send(method, params)
    assert raised.value.code == code
    assert "data" not in raised.value.error
    await still_serves(client)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{not json", -32700),
        (b"\xff\xfe", -32700),
        (b"[" * 100_000, -32700),
        (b"[]", -32600),
        (b'"text"', -32600),
        (b'{"method": "x"}', -32600),
    ],
    ids=["cut", "not-utf8", "too-deep", "batch", "string", "no-version"],
)
async def test_bodies_that_are_no_message(client: Client, body: bytes, code: int) -> None:
    client.strays.clear()
    client.write(body)
    await still_serves(client)
    (answer,) = client.strays
    assert answer["error"]["code"] == code
    assert answer["id"] is None


@pytest.mark.parametrize(
    "message",
    [
        {"method": "textDocument/didOpen", "params": {"textDocument": None}},
        {"method": "textDocument/didChange", "params": []},
        {"method": ["unhashable"]},
        {"method": "no/suchNotification", "params": {"a": [{"b": None}]}},
        {"id": 999_999, "result": None},
        {"id": None, "error": {"code": 1, "message": "x"}},
        {"id": 999_999},
        {},
    ],
)
async def test_wrong_notifications_and_answers(client: Client, message: dict[str, Any]) -> None:
    client.notifications.clear()
    client.write(json.dumps({"jsonrpc": "2.0", **message}).encode())
    await still_serves(client)
    assert client.notifications == []
