"""`keystate export`: the weights in another program's format."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from lsp_server.commands.options import model_option


@click.command("export")
@click.option(
    "--gguf",
    "out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="Write a GGUF file for llama.cpp here.",
)
@click.option(
    "--type",
    "type_",
    type=click.Choice(["f32", "q8_0"]),
    default="f32",
    show_default=True,
    help="Of the large matrices.",
)
@model_option
def command(out: Path, type_: str, model: str | None) -> None:
    """Write a model and its tokenizer as GGUF. Needs the extra `peers`."""
    # Imports torch.
    from engine.checkpoint import resolve_model
    from engine.gguf_export import export_gguf

    path = resolve_model(model)
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(out.name)
        export_gguf(
            path,
            out,
            type=type_,
            on_share=lambda share: progress.update(task, completed=100 * share),
        )
    click.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
