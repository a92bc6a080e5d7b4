"""`keystate serve`: LSP over stdio."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lsp_server.commands.options import device_option, model_option
from lsp_server.stdio import claim_stdio

if TYPE_CHECKING:
    from typing import Any, BinaryIO

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
# Many clients add this to any server's command line.
@click.option("--stdio", is_flag=True, hidden=True)
def command(
    model: str | None, device: str | None, log_file: Path | None, log_level: str, stdio: bool
) -> None:
    """Serve LSP over stdio, for an editor."""
    stdin, stdout = claim_stdio()
    logging.basicConfig(
        level=log_level.upper(),
        format=LOG_FORMAT,
        filename=None if log_file is None else str(log_file),
    )
    # At INFO it logs whole messages, which are the user's code.
    logging.getLogger("pygls").setLevel(logging.WARNING)
    options = {"model": model, "device": device}
    forced = {name: value for name, value in options.items() if value is not None}
    code = asyncio.run(_serve(forced, stdin, stdout))
    logging.shutdown()
    # Not `sys.exit`: a thread may be loading torch or a model, and would hold the process back or
    # crash it while the interpreter is taken down around it.
    os._exit(code)


async def _serve(forced: dict[str, Any], stdin: BinaryIO, stdout: BinaryIO) -> int:
    # Imported after stdout is safe from whatever the imports print.
    from lsp_server.server import Server

    return await Server(forced).run(stdin, stdout)
