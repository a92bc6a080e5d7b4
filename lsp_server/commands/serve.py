"""`keystate serve`: LSP over stdio, with an engine of its own or one that windows share."""

from __future__ import annotations

import logging
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lsp_server.commands.options import device_option, model_option
from lsp_server.stdio import claim_stdio

if TYPE_CHECKING:
    from typing import BinaryIO

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@click.command("serve")
@model_option
@device_option
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
    "--shared", is_flag=True, help="Use the engine that all windows share; started if need be."
)
@click.option(
    "--idle-s",
    type=click.FloatRange(min=0),
    default=600.0,
    show_default=True,
    help="With --shared: how long the engine that this starts outlives its last window.",
)
# What `--shared` starts.
@click.option("--shared-host", is_flag=True, hidden=True)
# Many clients add this to any server's command line.
@click.option("--stdio", is_flag=True, hidden=True)
def command(
    model: str | None,
    device: str | None,
    log_file: Path | None,
    log_level: str,
    shared: bool,
    idle_s: float,
    shared_host: bool,
    stdio: bool,
) -> None:
    """Serve LSP over stdio, for an editor."""
    options = {"model": model, "device": device}
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
    serve = partial(_pipe, idle_s, log_level) if shared else _serve
    code = serve(forced, stdin, stdout)
    logging.shutdown()
    # Not `sys.exit`: a thread may be loading torch or a model, and would hold the process back or
    # crash it while the interpreter is taken down around it.
    os._exit(code)


def _serve(forced: dict[str, str], stdin: BinaryIO, stdout: BinaryIO) -> int:
    # Imported after stdout is safe from whatever the imports print.
    import asyncio

    from lsp_server.server import Server

    async def run() -> int:
        return await Server(forced).run(stdin, stdout)

    return asyncio.run(run())


def _pipe(
    idle_s: float, log_level: str, forced: dict[str, str], stdin: BinaryIO, stdout: BinaryIO
) -> int:
    # Neither asyncio nor pygls: each window pays for what is imported here.
    from lsp_server.shared_window import Window, start_host

    more = ("--idle-s", str(idle_s), "--log-level", log_level)
    return Window(forced, stdout, partial(start_host, more=more)).run(stdin)


def _hold_engine(forced: dict[str, str], idle_s: float, log_level: str) -> None:
    from lsp_server.shared_address import HostAddress

    address = HostAddress.of(forced.get("model"), forced.get("device", "auto"))
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
