"""What an editor and its server have said to each other that outlasts a server that dies.

Of the editor's: `initialize`, settings, folders and the texts as they stand, so that another server
can be told. Of the server's: what the editor still waits for or shows, so that it can be ended.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from lsp_server.documents import Documents
from lsp_server.heard_texts import HeardNotebook, change_of, item_of

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

INITIALIZE, INITIALIZED = "initialize", "initialized"
DID_OPEN, DID_CHANGE = "textDocument/didOpen", "textDocument/didChange"
DID_CLOSE = "textDocument/didClose"
NOTEBOOK_OPEN, NOTEBOOK_CLOSE = "notebookDocument/didOpen", "notebookDocument/didClose"
NOTEBOOK_CHANGE = "notebookDocument/didChange"
FOLDERS = "workspace/didChangeWorkspaceFolders"
# Notifications of which the last one says it all.
LATEST = ("workspace/didChangeConfiguration", "$/setTrace")
# Requests that may be answered with null; for others it would be a wrong result.
MAY_BE_NULL = ("textDocument/inlineCompletion", "shutdown")
REGISTER, UNREGISTER = "client/registerCapability", "client/unregisterCapability"
PROGRESS = "$/progress"
CONTENT_MODIFIED = -32801
# Of the one request that is ours, not a server's: its answer goes nowhere.
OUR_ID = "keystate-window"

Message = dict[str, Any]


class Session:
    """One editor's session, whichever server it is with. Not for several threads at once."""

    def __init__(self) -> None:
        self._initialize: Message | None = None
        self._initialized: Message | None = None
        self._latest: dict[str, Message] = {}
        self._folders: list[Message] = []
        self._documents = Documents()
        self._notebooks: dict[str, HeardNotebook] = {}
        # Requests that the editor waits for, and requests of the server's that it has not answered.
        self._pending: dict[int | str, str] = {}
        self._asked: set[int | str | None] = set()
        # What the server has put into the editor: registrations by id, progress that goes on.
        self._registered: dict[str, Message] = {}
        self._progress: dict[str, Any] = {}

    @property
    def client(self) -> int | None:
        """The editor's process id, if it told one."""
        pid = self._initialize_params.get("processId")
        return pid if isinstance(pid, int) and pid > 0 else None

    def heard(self, message: Message) -> bool:
        """Remember what the editor says; whether the server needs to hear it."""
        request_id = message.get("id")
        if not isinstance(request_id, int | str):
            request_id = None
        if "method" not in message:
            if request_id not in self._asked:
                # An answer to a server that is gone.
                return False
            self._asked.discard(request_id)
            return True
        method = str(message["method"])
        if request_id is not None:
            self._pending[request_id] = method
        try:
            self._remember(method, message)
        except (TypeError, KeyError, AttributeError):
            # As in the server, which does not take it either. The message may hold code.
            logger.warning("%s: parameters of a wrong shape", method)
        return True

    def told(self, message: Message) -> bool:
        """Note what the server says; whether it is for the editor."""
        method, request_id = message.get("method"), message.get("id")
        if method is None:
            if isinstance(request_id, int | str):
                asked = self._pending.pop(request_id, None)
                # Answers to a replay, and to what was answered when the last server died.
                return asked is not None
            return True
        if isinstance(request_id, int | str):
            self._asked.add(request_id)
        params = message.get("params") or {}
        if method == REGISTER:
            self._registered |= {one["id"]: one for one in params["registrations"]}
        elif method == UNREGISTER:
            for one in params["unregisterations"]:
                self._registered.pop(one["id"], None)
        elif method == PROGRESS:
            token, kind = params["token"], params["value"].get("kind")
            if kind == "end":
                self._progress.pop(json.dumps(token), None)
            else:
                self._progress[json.dumps(token)] = token
        return True

    def replay(self) -> Iterator[Message]:
        """All that a new server needs to go on; its answers to it are not for the editor."""
        for message in (self._initialize, self._initialized):
            if message is not None:
                yield message
        if self._initialized is None:
            return
        yield from self._latest.values()
        yield from self._folders
        for document in self._documents:
            yield _notification(DID_OPEN, {"textDocument": item_of(document)})
        for notebook in self._notebooks.values():
            yield _notification(NOTEBOOK_OPEN, notebook.opened())

    def broken(self) -> Iterator[Message]:
        """All that the editor needs to hear when its server died: nothing is left hanging."""
        for request_id, method in list(self._pending.items()):
            if self._initialize is not None and request_id == self._initialize.get("id"):
                # The next server answers it.
                continue
            del self._pending[request_id]
            answer: Message = {"jsonrpc": "2.0", "id": request_id}
            if method in MAY_BE_NULL:
                yield answer | {"result": None}
            else:
                error = {"code": CONTENT_MODIFIED, "message": "the engine was started again"}
                yield answer | {"error": error}
        for token in self._progress.values():
            yield _notification(PROGRESS, {"token": token, "value": {"kind": "end"}})
        if self._registered:
            # LSP's own spelling.
            known = [
                {"id": one["id"], "method": one["method"]} for one in self._registered.values()
            ]
            params = {"unregisterations": known}
            yield {"jsonrpc": "2.0", "id": OUR_ID, "method": UNREGISTER, "params": params}
        self._asked.clear()
        self._progress.clear()
        self._registered.clear()

    @property
    def _initialize_params(self) -> Message:
        params = (self._initialize or {}).get("params")
        return params if isinstance(params, dict) else {}

    def _remember(self, method: str, message: Message) -> None:
        params: Any = message.get("params")
        if method == INITIALIZE:
            self._initialize = self._initialize or message
        elif method == INITIALIZED:
            self._initialized = message
        elif method in LATEST:
            self._latest[method] = message
        elif method == FOLDERS:
            self._folders.append(message)
        elif method == DID_OPEN:
            opened = params["textDocument"]
            uri, text = opened["uri"], opened["text"]
            self._documents.open(uri, opened["languageId"], opened["version"], text)
        elif method == DID_CHANGE:
            changes = [change_of(change) for change in params["contentChanges"]]
            changed = params["textDocument"]
            self._documents.change(changed["uri"], changed["version"], changes)
        elif method == DID_CLOSE:
            self._documents.close(params["textDocument"]["uri"])
        elif method == NOTEBOOK_OPEN:
            self._notebooks[params["notebookDocument"]["uri"]] = HeardNotebook(params)
        elif method == NOTEBOOK_CHANGE:
            self._notebooks[params["notebookDocument"]["uri"]].change(params)
        elif method == NOTEBOOK_CLOSE:
            self._notebooks.pop(params["notebookDocument"]["uri"], None)


def _notification(method: str, params: Message) -> Message:
    return {"jsonrpc": "2.0", "method": method, "params": params}
