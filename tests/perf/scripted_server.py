"""A language server that does as it is told: `python scripted_server.py MODE [TEXT]`, no library.

All modes answer the first request with a list of one item. Then "whole" goes on so, but takes
whole texts alone; "erring" answers every second request with an error; "odd" with something that
is no answer; "held" only when it is cancelled, with an error, or behind the text "x = y"; "late"
the same, but with an item; "silent" no more; "dying" ends at the third. "mute" answers none.
"printing" writes TEXT as it is and no more; "greeting" answers `initialize` with TEXT as the
message, "showing" all requests with TEXT as the result.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

MODE, TEXT = [*sys.argv[1:], ""][:2]
ITEM = {"insertText": "pass"}
HELD_UP_TO = len("x = y")
CANCELLED = -32800


def read() -> dict[str, Any] | None:
    n_bytes = 0
    while line := sys.stdin.buffer.readline().strip():
        if line.lower().startswith(b"content-length"):
            n_bytes = int(line.split(b":")[1])
    if not n_bytes:
        return None
    message: dict[str, Any] = json.loads(sys.stdin.buffer.read(n_bytes))
    return message


def answer(request_id: int, **outcome: Any) -> None:
    write(json.dumps({"jsonrpc": "2.0", "id": request_id, **outcome}).encode())


def write(body: bytes) -> None:
    sys.stdout.buffer.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    sys.stdout.buffer.flush()


def complete(request_id: int, n_asked: int, character: int) -> None:
    is_first = n_asked == 1
    if MODE == "dying" and n_asked == 3:
        print("a last word", file=sys.stderr, flush=True)
        os._exit(3)
    if MODE == "mute" or (MODE == "silent" and not is_first):
        return
    if MODE == "showing":
        answer(request_id, result=json.loads(TEXT))
        return
    if MODE in ("held", "late") and not is_first and character < HELD_UP_TO:
        return
    if MODE == "erring" and n_asked % 2 == 0:
        answer(request_id, error={"code": -32603, "message": "not today"})
    else:
        answer(request_id, result=17 if MODE == "odd" and not is_first else [ITEM])


n_asked = 0
if MODE == "printing":
    print(TEXT, flush=True)
while (message := read()) is not None:
    method, params = message.get("method"), message.get("params", {})
    if MODE == "printing":
        continue
    if method == "initialize" and MODE == "greeting":
        write(TEXT.encode())
    elif method == "initialize":
        provided = {"textDocumentSync": 1 if MODE == "whole" else {"openClose": True, "change": 2}}
        answer(message["id"], result={"capabilities": provided})
    elif method == "textDocument/inlineCompletion":
        n_asked += 1
        complete(message["id"], n_asked, params["position"]["character"])
    elif method == "textDocument/didChange":
        has_range = ["range" in change for change in params["contentChanges"]]
        assert has_range == [MODE != "whole"], "changes are not as this server wants them"
    elif method == "$/cancelRequest" and MODE == "held":
        answer(params["id"], error={"code": CANCELLED, "message": "cancelled"})
    elif method == "$/cancelRequest" and MODE == "late":
        answer(params["id"], result=[ITEM])
    elif method == "shutdown":
        answer(message["id"], result=None)
    elif method == "exit":
        break
