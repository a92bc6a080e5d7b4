"""JSON-RPC as the server speaks it: every request gets exactly one answer, none with a traceback.

pygls reads messages, finds handlers and writes answers. Where a message is not as it should be it
stays silent or opens a popup; this answers with an error instead.
"""

from __future__ import annotations

import json
import logging
import time
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from lsprotocol import types
from pygls.exceptions import JsonRpcInternalError
from pygls.protocol import LanguageServerProtocol, lsp_method
from pygls.protocol.json_rpc import (
    JsonRPCNotification,
    JsonRPCRequestMessage,
    JsonRPCResponseMessage,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from concurrent.futures import Future

logger = logging.getLogger(__name__)

# Of a method's name, what is logged and sent back.
MAX_METHOD_CHARS = 100

# When the message being handled was read, by `time.monotonic()`.
received_s: ContextVar[float] = ContextVar("received_s")

# pygls keeps texts of its own. Ours are in `Documents`, and no text is kept twice.
NOT_PYGLS = (
    types.TEXT_DOCUMENT_DID_OPEN,
    types.TEXT_DOCUMENT_DID_CHANGE,
    types.TEXT_DOCUMENT_DID_CLOSE,
    types.NOTEBOOK_DOCUMENT_DID_OPEN,
    types.NOTEBOOK_DOCUMENT_DID_CHANGE,
    types.NOTEBOOK_DOCUMENT_DID_CLOSE,
    types.WORKSPACE_DID_CHANGE_WORKSPACE_FOLDERS,
    types.EXIT,
)


@dataclass(frozen=True)
class MadeWhenSent:
    """A handler's result that is made in the moment in which it is written.

    Between a handler's return and that, other messages may be handled, and what has been read by
    then is handled first: `make` sees all that could make the result void.
    """

    make: Callable[[], Any]


class Protocol(LanguageServerProtocol):
    """pygls' protocol, strict about what comes in; `on_sent` hears of each answer's writing."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.on_sent: Callable[[int | str, float, float], None] | None = None
        """Gets a request's id, and when the writing of its answer began and ended."""
        self.once_handled: Callable[[Callable[[], None]], None] = lambda work: work()
        """Calls back when the messages that have been read by now are handled."""
        self._is_initialized = False
        for method in NOT_PYGLS:
            del self.fm.builtin_features[method]

    def receive(self, body: bytes, at_s: float) -> None:
        """Handle one message, read at `at_s`."""
        try:
            data = json.loads(body)
        except (ValueError, RecursionError):
            logger.warning("a message of %d bytes is not JSON", len(body))
            self._send_error(None, types.ErrorCodes.ParseError, "not JSON")
            return
        if not isinstance(data, dict) or data.get("jsonrpc") != self.VERSION:
            request_id = data.get("id") if isinstance(data, dict) else None
            self._send_error(request_id, types.ErrorCodes.InvalidRequest, "not JSON-RPC 2.0")
            return
        if "method" not in data:
            self._take_answer(data)
            return
        if not isinstance(data["method"], str):
            if "id" in data:
                self._send_error(data["id"], types.ErrorCodes.InvalidRequest, "no method")
            return
        if not self._may_be_handled(data):
            return
        try:
            message = self._structure(data)
        except Exception as error:
            # cattrs raises groups, and validators whatever they like; texts may hold the
            # user's code, so only the type is logged.
            method = data["method"][:MAX_METHOD_CHARS]
            logger.warning("%s: parameters of a wrong shape (%s)", method, type(error).__name__)
            if "id" in data:
                code = types.ErrorCodes.InvalidParams
                self._send_error(data["id"], code, f"wrong parameters for {method}")
            return
        if "id" in data and not hasattr(message, "id"):
            self._send_error(data["id"], types.ErrorCodes.InvalidRequest, "a notification's method")
            return
        received_s.set(at_s)
        self.handle_message(message)

    # pygls remembers the answers of these two by protocol and method, and with them the protocol,
    # its server and all that the server had open: in a shared host, of windows that are gone.
    def get_message_type(self, method: str) -> type[Any] | None:  # type: ignore[override]
        """The type of a message, or None for a method that LSP does not know."""
        return types.METHOD_TO_TYPES.get(method, (None,))[0]

    def get_result_type(self, method: str) -> type[Any] | None:  # type: ignore[override]
        """The type of a request's answer."""
        return types.METHOD_TO_TYPES.get(method, (None, None))[1]

    @lsp_method(types.INITIALIZE)
    def lsp_initialize(
        self, params: types.InitializeParams
    ) -> Generator[Any, Any, types.InitializeResult]:
        """Initialize with UTF-16 positions, whatever else the client could count in."""
        self._is_initialized = True
        if params.capabilities.general is not None:
            params.capabilities.general.position_encodings = None
        return (yield from super().lsp_initialize(params))

    @lsp_method(types.SHUTDOWN)
    def lsp_shutdown(self, *args: Any) -> Generator[Any, Any, None]:
        """Shut down, with nothing left for pygls to cancel: that takes itself out of its table."""
        for msg_id, future in list(self._request_futures.items()):
            if msg_id != self.msg_id:
                future.cancel()
        return (yield from super().lsp_shutdown(*args))

    def _may_be_handled(self, data: dict[str, Any]) -> bool:
        """Whether this is the time for a message; an untimely request is answered with an error."""
        method, is_request = data["method"], "id" in data
        if method == types.INITIALIZE:
            problem = "initialized already" if self._is_initialized else None
            code = types.ErrorCodes.InvalidRequest
        elif not self._is_initialized:
            # A server may be told to exit at any time.
            problem = None if method == types.EXIT else "not initialized yet"
            code = types.ErrorCodes.ServerNotInitialized
        else:
            problem = "shutting down" if self._shutdown and method != types.EXIT else None
            code = types.ErrorCodes.InvalidRequest
        if problem and is_request:
            self._send_error(data["id"], code, problem)
        return problem is None

    def _take_answer(self, data: dict[str, Any]) -> None:
        """Hand an answer to who waits for it; what answers no request of ours is dropped."""
        request_id = data.get("id")
        if not isinstance(request_id, str) or request_id not in self._result_types:
            logger.warning("an answer to nothing that was asked")
            return
        waiting = self._request_futures.get(request_id)
        kind = self._result_types.pop(request_id) or JsonRPCResponseMessage
        try:
            if "error" in data:
                kind = types.ResponseErrorMessage
            self.handle_message(self._converter.structure(data, kind))
        except Exception as error:
            # Of a wrong shape, or nobody waits any more.
            logger.warning("an answer was not taken (%s)", type(error).__name__)
            self._request_futures.pop(request_id, None)
            if waiting is not None and not waiting.done():
                waiting.set_exception(JsonRpcInternalError("an answer of a wrong shape"))

    def _structure(self, data: dict[str, Any]) -> Any:
        fallback = JsonRPCRequestMessage if "id" in data else JsonRPCNotification
        kind = self.get_message_type(data["method"]) or fallback
        return self._converter.structure({"params": None, **data}, kind)

    def _execute_handler(
        self,
        msg_id: int | str,
        handler: Callable[..., Any],
        callback: Callable[[Future[Any]], None],
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
    ) -> None:
        def done(future: Future[Any]) -> None:
            # pygls lets go of requests alone: the task of every change would be kept for good.
            if self._request_futures.get(msg_id) is future:
                del self._request_futures[msg_id]
            callback(future)

        super()._execute_handler(msg_id, handler, done, args, kwargs)

    def _handle_cancel_notification(self, msg_id: int | str) -> None:
        # Of another, the answer and this have crossed; pygls would warn of it at every other key.
        if msg_id in self._request_futures:
            super()._handle_cancel_notification(msg_id)

    def _send_handler_result(self, future: Future[Any], *, msg_id: int | str) -> None:
        send = partial(super()._send_handler_result, future, msg_id=msg_id)
        is_answered = not future.cancelled() and future.exception() is None
        if is_answered and isinstance(future.result(), MadeWhenSent):
            self.once_handled(send)
        else:
            send()

    def _send_response(
        self,
        msg_id: int | str,
        result: Any | None = None,
        error: types.ResponseError | None = None,
    ) -> None:
        if error is not None:
            # The data is a traceback.
            error.data = None
        start_s = time.monotonic()
        if isinstance(result, MadeWhenSent):
            result = result.make()
        super()._send_response(msg_id, result, error)
        if self.on_sent is not None:
            self.on_sent(msg_id, start_s, time.monotonic())

    def _send_error(self, msg_id: Any, code: types.ErrorCodes, message: str) -> None:
        # By hand: the converter leaves an id of None out, and JSON-RPC wants to see it.
        answer_id = msg_id if isinstance(msg_id, int | str) else None
        error = {"code": code.value, "message": message}
        self._send_data({"jsonrpc": self.VERSION, "id": answer_id, "error": error})
