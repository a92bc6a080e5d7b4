"""What a client can ask and tell: one file each, all dispatched here."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from lsprotocol import types
from pygls.exceptions import JsonRpcInternalError

from lsp_server.features.accepted import ACCEPTED, accepted
from lsp_server.features.counters import COUNTERS, counters
from lsp_server.features.cursor_moved import CURSOR_MOVED, cursor_moved
from lsp_server.features.did_change import did_change
from lsp_server.features.did_change_configuration import did_change_configuration
from lsp_server.features.did_change_notebook import did_change_notebook
from lsp_server.features.did_change_workspace_folders import did_change_workspace_folders
from lsp_server.features.did_close import did_close
from lsp_server.features.did_close_notebook import did_close_notebook
from lsp_server.features.did_open import did_open
from lsp_server.features.did_open_notebook import did_open_notebook
from lsp_server.features.did_partially_accept_completion import (
    DID_PARTIALLY_ACCEPT,
    did_partially_accept_completion,
)
from lsp_server.features.did_show_completion import DID_SHOW, did_show_completion
from lsp_server.features.exit import exit_
from lsp_server.features.initialize import initialize
from lsp_server.features.initialized import initialized
from lsp_server.features.inline_completion import inline_completion
from lsp_server.features.last_timings import LAST_TIMINGS, last_timings
from lsp_server.features.shutdown import shutdown
from lsp_server.features.status import status
from lsp_server.protocol import MadeWhenSent
from lsp_server.status import STATUS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lsp_server.server import Server

    Handler = Callable[[Server, Any], Awaitable[Any]]

logger = logging.getLogger(__name__)

FEATURES: dict[str, Handler] = {
    types.INITIALIZE: initialize,
    types.INITIALIZED: initialized,
    types.SHUTDOWN: shutdown,
    types.EXIT: exit_,
    types.TEXT_DOCUMENT_DID_OPEN: did_open,
    types.TEXT_DOCUMENT_DID_CHANGE: did_change,
    types.TEXT_DOCUMENT_DID_CLOSE: did_close,
    types.NOTEBOOK_DOCUMENT_DID_OPEN: did_open_notebook,
    types.NOTEBOOK_DOCUMENT_DID_CHANGE: did_change_notebook,
    types.NOTEBOOK_DOCUMENT_DID_CLOSE: did_close_notebook,
    types.WORKSPACE_DID_CHANGE_CONFIGURATION: did_change_configuration,
    types.WORKSPACE_DID_CHANGE_WORKSPACE_FOLDERS: did_change_workspace_folders,
    types.TEXT_DOCUMENT_INLINE_COMPLETION: inline_completion,
    DID_SHOW: did_show_completion,
    DID_PARTIALLY_ACCEPT: did_partially_accept_completion,
    CURSOR_MOVED: cursor_moved,
    LAST_TIMINGS: last_timings,
    COUNTERS: counters,
    STATUS: status,
}
# What clients run by `workspace/executeCommand`; the handler gets the list of arguments.
COMMANDS: dict[str, Handler] = {ACCEPTED: accepted}
OPTIONS: dict[str, Any] = {
    # pygls advertises this feature only where there are options.
    types.TEXT_DOCUMENT_INLINE_COMPLETION: types.InlineCompletionOptions(),
}
# While these wait, the server is busy.
WAITED_FOR = (types.TEXT_DOCUMENT_INLINE_COMPLETION,)
# What a failure is answered with; without an entry, with an error.
ON_FAILURE: dict[str, Callable[[], Any]] = {
    types.TEXT_DOCUMENT_INLINE_COMPLETION: lambda: types.InlineCompletionList(items=[]),
}


def register(server: Server) -> None:
    """Put every feature behind one dispatcher."""
    for method, handler in FEATURES.items():
        server.feature(method, OPTIONS.get(method))(_dispatcher(server, method, handler))
    for name, handler in COMMANDS.items():
        server.command(name)(_with_list(_dispatcher(server, name, handler)))


def _with_list(dispatch: Callable[[Any], Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    # pygls passes a command's arguments one by one.
    async def run(*arguments: Any) -> Any:
        return await dispatch(list(arguments))

    return run


def _dispatcher(server: Server, method: str, handler: Handler) -> Callable[[Any], Awaitable[Any]]:
    async def dispatch(params: Any = None) -> Any:
        try:
            with server.status.waiting() if method in WAITED_FOR else nullcontext():
                result = await handler(server, params)
        except Exception as error:
            return failed(error)
        return MadeWhenSent(partial(made, result)) if isinstance(result, MadeWhenSent) else result

    def made(result: MadeWhenSent) -> Any:
        try:
            return result.make()
        except Exception as error:
            return failed(error)

    def failed(error: Exception) -> Any:
        logger.error("%s failed", method, exc_info=error)
        if method in ON_FAILURE:
            return ON_FAILURE[method]()
        raise JsonRpcInternalError(f"{method} failed; the server's log says why") from error

    return dispatch
