"""`keystate demo`: typing replayed into a real server, with ghost text and latency."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.live import Live

from lsp_server.commands.complete import read_document
from lsp_server.commands.options import device_option, model_option
from perf.client import SERVER_COMMAND, Client, ServerGone
from perf.demo_view import LiveView, PictureView, PlainView, summary
from perf.typing_user import BRISK, FULL_SPEED, Tally, TypingUser, View, cut_out
from perf.whole_file import check_place

if TYPE_CHECKING:
    from lsp_server.documents import Document

SAMPLE = Path(__file__).parent / "samples" / "job_queue.py"
# About twenty seconds of typing.
TYPED_CHARS = 230


@click.command("demo")
@click.argument(
    "path", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--fast", is_flag=True, help="Type as fast as the server answers.")
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the longest suggestion taken as an SVG.",
)
@model_option
@device_option
def command(
    path: Path | None, fast: bool, picture: Path | None, model: str | None, device: str | None
) -> None:
    """Replay typing into a real server and show ghost text and latency.

    Some lines in the middle of the file are taken out and typed again; a suggestion that is what
    comes next is accepted. The file itself is not changed.
    """
    if picture is not None:
        check_place(picture)
    document = read_document(path or SAMPLE)
    offset, missing = cut_out(document, TYPED_CHARS)
    options = [("--model", model), ("--device", device)]
    arguments = [part for name, value in options if value is not None for part in (name, value)]
    console = Console()
    live = Live(console=console, refresh_per_second=20) if console.is_terminal else None
    view: View = PlainView(console) if live is None else LiveView(console, live)
    if picture is not None:
        view = PictureView(view)
    with live or nullcontext():
        tally = asyncio.run(_replay(arguments, document, offset, missing, fast, view))
    console.print(summary(tally))
    if isinstance(view, PictureView) and picture is not None:
        view.save(picture)


async def _replay(
    arguments: list[str], document: Document, offset: int, missing: str, fast: bool, view: View
) -> Tally:
    with tempfile.TemporaryFile() as log:
        async with await Client.start((*SERVER_COMMAND, *arguments), stderr=log) as client:
            pace = FULL_SPEED if fast else BRISK
            user = TypingUser(client, document, offset, missing, pace=pace, view=view)
            try:
                await client.initialize()
                tally = await user.run()
                await client.shutdown()
            except ServerGone as error:
                log.seek(0)
                lines = log.read().decode(errors="replace").strip().splitlines()
                said = f"; its last words: {lines[-1]}" if lines else ""
                raise ValueError(f"the server ended before its time{said}") from error
            return tally
