"""`initialized`: the first moment at which a client may be told and asked something."""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import TYPE_CHECKING

from lsprotocol import types
from pygls.exceptions import JsonRpcException

from lsp_server.configuration import SECTION
from lsp_server.features.did_change_configuration import take_configuration
from lsp_server.status import STATUS_CAPABILITY

if TYPE_CHECKING:
    from lsp_server.server import Server

logger = logging.getLogger(__name__)


async def initialized(server: Server, _params: types.InitializedParams | None) -> None:
    """Say how things stand and what is wrong with the settings; ask for those there are now."""
    if _hears_status(server):
        server.status.begin()
    problems, server.setting_problems = server.setting_problems, []
    server.warn(problems)
    await asyncio.gather(_show_loading(server), _listen(server), take_configuration(server, None))


def _hears_status(server: Server) -> bool:
    """Whether the client takes our own notification; others may warn of what they do not know."""
    experimental = server.client_capabilities.experimental
    return isinstance(experimental, dict) and experimental.get(STATUS_CAPABILITY) is True


async def _show_loading(server: Server) -> None:
    """Have a client that can show progress show that the model loads."""
    window = server.client_capabilities.window
    if window is None or not window.work_done_progress or server.is_loaded:
        return
    token, progress = f"keystate-{uuid.uuid4()}", server.work_done_progress
    try:
        await progress.create_async(token)
    except JsonRpcException as error:
        logger.warning("the client shows no progress: %s", error)
        return
    if server.is_loaded:
        return
    model = server.settings.model or "the embedded model"
    # A client shows a percentage only where there was one from the beginning.
    begin = types.WorkDoneProgressBegin(title="keystate", message=f"loading {model}", percentage=0)
    progress.begin(token, begin)

    def report(what: str, share: float) -> None:
        report = types.WorkDoneProgressReport(message=what, percentage=int(100 * share))
        progress.report(token, report)

    server.status.on_progress = report
    suggester = await server.suggester(None)
    message = "no model" if suggester is None else f"{suggester.name} on {suggester.device}"
    progress.end(token, types.WorkDoneProgressEnd(message=message))


async def _listen(server: Server) -> None:
    """Have a client that wants to be asked for it tell of changed configuration."""
    workspace = server.client_capabilities.workspace
    changes = None if workspace is None else workspace.did_change_configuration
    if changes is None or not changes.dynamic_registration:
        return
    registration = types.Registration(
        id=f"keystate-{uuid.uuid4()}",
        method=types.WORKSPACE_DID_CHANGE_CONFIGURATION,
        register_options=types.DidChangeConfigurationRegistrationOptions(section=SECTION),
    )
    try:
        await server.client_register_capability_async(
            types.RegistrationParams(registrations=[registration])
        )
    except JsonRpcException as error:
        logger.warning("the client does not tell of changed configuration: %s", error)
