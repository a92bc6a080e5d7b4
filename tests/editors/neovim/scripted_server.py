"""A language server whose answers are written down: what its client sends is all that is tested.

Each line of the file that it is called with is the answer to one request for inline completion, the
last one to all that follow; at the start of a line there is nothing to say, and that does not
count. `keystate/received` gives what was received. Where a line is `"end"` the server ends instead.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, BinaryIO

CAPABILITIES = {
    "textDocumentSync": {"openClose": True, "change": 2},
    "inlineCompletionProvider": True,
    "executeCommandProvider": {"commands": ["keystate.accepted"]},
}


def read(stream: BinaryIO) -> dict[str, Any] | None:
    length = 0
    while line := stream.readline().strip():
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return json.loads(stream.read(length)) if length else None


def write(message: dict[str, Any]) -> None:
    body = json.dumps({"jsonrpc": "2.0", **message}).encode()
    sys.stdout.buffer.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    sys.stdout.buffer.flush()


def main() -> None:
    answers = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    received: list[dict[str, Any]] = []
    while (message := read(sys.stdin.buffer)) is not None:
        method = message.get("method")
        params: Any = message.get("params")
        result: Any = None
        if method == "exit":
            return
        if method == "initialize":
            result = {"capabilities": CAPABILITIES}
        elif method == "keystate/received":
            result = list(received)
        elif method == "keystate/say":
            write({"method": "keystate/status", "params": params})
        elif method == "textDocument/inlineCompletion":
            result = {"items": []}
            if params["position"]["character"]:
                result = answers.pop(0) if len(answers) > 1 else answers[0]
            if result == "end":
                sys.exit(1)
        received.append({"method": method, "params": params})
        if "id" in message and method is not None:
            write({"id": message["id"], "result": result})


if __name__ == "__main__":
    main()
