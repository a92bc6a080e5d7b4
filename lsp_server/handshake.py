"""What an editor says first: `initialize`, before which nothing else is taken.

Read before anything heavy is imported, for it says which engine is wanted.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lsp_server.stdio import framed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lsp_server.stdio import MessageWriter

PARSE_ERROR, INVALID_REQUEST, NOT_INITIALIZED = -32700, -32600, -32002


def await_initialize(messages: Iterator[bytes], editor: MessageWriter) -> bytes | None:
    """The first request to initialize; None where the editor exits or is gone before that.

    What comes before it is refused as `Protocol` does; notifications are dropped.
    """
    for body in messages:
        try:
            message = json.loads(body)
        except (ValueError, RecursionError):
            _refuse(editor, None, PARSE_ERROR, "not JSON")
            continue
        if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
            request_id = message.get("id") if isinstance(message, dict) else None
            _refuse(editor, request_id, INVALID_REQUEST, "not JSON-RPC 2.0")
        elif message.get("method") == "initialize" and "id" in message:
            return body
        elif message.get("method") == "exit":
            return None
        elif "method" in message and "id" in message:
            _refuse(editor, message["id"], NOT_INITIALIZED, "not initialized yet")
    return None


def options_of(initialize: bytes) -> Any:
    """The `initializationOptions` of a request to initialize, whatever they are."""
    params = json.loads(initialize).get("params")
    return params.get("initializationOptions") if isinstance(params, dict) else None


def _refuse(editor: MessageWriter, request_id: Any, code: int, message: str) -> None:
    answer_id = request_id if isinstance(request_id, int | str) else None
    error = {"code": code, "message": message}
    answer = {"jsonrpc": "2.0", "id": answer_id, "error": error}
    editor.write(framed(json.dumps(answer).encode()))
