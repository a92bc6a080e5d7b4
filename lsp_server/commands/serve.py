"""`keystate serve`: LSP over stdio, with an engine of its own or one that windows share."""

from __future__ import annotations

import json
import logging
import os
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lsp_server.commands.options import (
    FiniteRange,
    device_option,
    model_option,
    quantize_option,
)
from lsp_server.handshake import await_initialize, options_of
from lsp_server.shared_address import HostAddress
from lsp_server.shared_window import Window, chosen_model, start_host
from lsp_server.sharing import CHOICES, choice_of, is_shared
from lsp_server.stdio import MessageWriter, claim_stdio, framed, read_messages

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

logger = logging.getLogger(__name__)

# LSP's `MessageType.Warning`.
WARNING = 2
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@click.command("serve")
@model_option
@device_option
@quantize_option
@click.option(
    "--log-file", type=click.Path(dir_okay=False, path_type=Path), help="Default: stderr."
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
)
@click.option(
    "--shared",
    type=click.Choice(CHOICES),
    is_flag=False,
    flag_value="always",
    help="Use the engine that all windows share, started if need be; auto: for a model on a GPU,"
    " or of over 1 GB.  [default: as the client's setting shareEngine says, else never]",
)
@click.option(
    "--idle-s",
    type=FiniteRange(min=0),
    default=600.0,
    show_default=True,
    help="With --shared: how long the engine that this starts outlives its last window.",
)
@click.option(
    "--record",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write your code and every key to FILE, for `keystate profile FILE`.",
)
# What `--shared` starts.
@click.option("--shared-host", is_flag=True, hidden=True)
# Many clients add this to any server's command line.
@click.option("--stdio", is_flag=True, hidden=True)
def command(
    model: str | None,
    device: str | None,
    quantize: str | None,
    log_file: Path | None,
    log_level: str,
    shared: str | None,
    idle_s: float,
    record: Path | None,
    shared_host: bool,
    stdio: bool,
) -> None:
    """Serve LSP over stdio, for an editor."""
    options = {"model": model, "device": device, "quantize": quantize}
    forced = {name: value for name, value in options.items() if value is not None}
    if shared_host:
        _hold_engine(forced, idle_s, log_level)
        return
    stdin, stdout = claim_stdio()
    logging.basicConfig(
        level=log_level.upper(),
        format=LOG_FORMAT,
        filename=None if log_file is None else str(log_file),
    )
    # At INFO it logs whole messages, which are the user's code.
    logging.getLogger("pygls").setLevel(logging.WARNING)
    messages = read_messages(stdin)
    if record is not None:
        messages = _recorded(record, messages, MessageWriter(stdout))
    code = _serve_editor(shared, idle_s, log_level, forced, messages, stdout)
    logging.shutdown()
    # Not `sys.exit`: a thread may be loading torch or a model, and would hold the process back or
    # crash it while the interpreter is taken down around it.
    os._exit(code)


def _recorded(path: Path, messages: Iterator[bytes], editor: MessageWriter) -> Iterator[bytes]:
    """The messages, written to a file as they pass; whoever is at the keys is told so first."""
    # Imports pygls.
    from lsp_server.recording import Recorder

    recorder = Recorder(path)
    logger.warning("%s", recorder.warning)
    recorded = recorder.tap(messages)
    for initialize in recorded:
        _warn(editor, recorder.warning)
        yield initialize
        yield from recorded


def _warn(editor: MessageWriter, problem: str) -> None:
    """Show a warning in the editor: LSP lets a server say this much before it answers."""
    warning = {"type": WARNING, "message": f"keystate: {problem}"}
    told = {"jsonrpc": "2.0", "method": "window/showMessage", "params": warning}
    editor.write(framed(json.dumps(told).encode()))


def _serve_editor(
    shared: str | None,
    idle_s: float,
    log_level: str,
    forced: dict[str, str],
    messages: Iterator[bytes],
    stdout: BinaryIO,
) -> int:
    """Serve with the engine that is wanted; gives the exit code."""
    editor = MessageWriter(stdout)
    initialize = await_initialize(messages, editor)
    if initialize is None:
        return 1
    messages = chain([initialize], messages)
    options = options_of(initialize)
    chosen = chosen_model(options, forced)
    model, device, _ = chosen
    if is_shared(choice_of(shared, options), model, device):
        try:
            address = HostAddress.of(*chosen)
        except (OSError, ValueError) as error:
            problem = f"no place to share an engine in; this window has its own: {error}"
            logger.warning("%s", problem)
            _warn(editor, problem)
        else:
            # Neither asyncio nor pygls: each window pays for what is imported here.
            more = ("--idle-s", str(idle_s), "--log-level", log_level)
            return Window(chosen, address, stdout, partial(start_host, more=more)).run(messages)
    return _serve(forced, messages, stdout)


def _serve(forced: dict[str, str], messages: Iterable[bytes], stdout: BinaryIO) -> int:
    # Imported after stdout is safe from whatever the imports print.
    import asyncio

    from lsp_server.server import Server

    async def run() -> int:
        return await Server(forced).run(messages, stdout)

    return asyncio.run(run())


def _hold_engine(forced: dict[str, str], idle_s: float, log_level: str) -> None:
    address = HostAddress.of(
        forced.get("model"), forced.get("device", "auto"), forced.get("quantize")
    )
    lock = address.claim()
    if lock is None:
        # Two windows began at once.
        return
    with lock:
        # Takes a while to import, and much memory.
        from lsp_server.shared_host import serve

        serve(address, forced, idle_s, log_level)
        logging.shutdown()
        os._exit(0)
