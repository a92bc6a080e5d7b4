"""`keystate quantize`: a copy of a model whose weights are small integers."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from lsp_server.commands.loading import loading_bar
from lsp_server.quantizations import QUANTIZATIONS


@click.command("quantize")
@click.argument("model")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "name",
    type=click.Choice(QUANTIZATIONS),
    required=True,
    help="int8: a scale an output channel; int4: a scale and a zero point for 128 weights.",
)
def command(model: str, out: Path, name: str) -> None:
    """Round the weights of MODEL, a directory or a hub id, into the new directory OUT.

    `--model OUT` then loads them as they are. `--quantize` does without the copy, at every start.
    """
    # Imports torch.
    from engine.checkpoint import resolve_model
    from engine.quantized import Quantization
    from engine.quantized_checkpoint import write_quantized

    with loading_bar() as show:
        path = resolve_model(model, partial(show, f"downloading {model}"))
        write_quantized(path, out, Quantization.named(name), partial(show, "quantizing"))
    n_bytes = sum(file.stat().st_size for file in out.glob("*.safetensors"))
    click.echo(f"{out}: {n_bytes / 1e6:.1f} MB of weights")
