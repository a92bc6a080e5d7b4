"""`keystate inspect`: what a checkpoint's header tells."""

from __future__ import annotations

import json
import math

import click

from lsp_server.commands.options import json_option


@click.command("inspect")
@click.argument("model")
@json_option
def command(model: str, as_json: bool) -> None:
    """Describe a checkpoint, a directory or a hub id, without loading it."""
    # Imports torch.
    from engine.checkpoint import inspect, resolve_model

    path = resolve_model(model)
    described = inspect(path)
    if as_json:
        click.echo(json.dumps(described))
        return
    click.echo(f"{path}: {described['family']}, {described['layout']} layout")
    click.echo(f"parameters   {described['parameters']:,} ({described['dtype']})")
    states = ", ".join(f"{kind} {_bytes(n)}" for kind, n in described["state_bytes"].items())
    click.echo(f"state bytes  {states}")
    for name, value in described["config"].items():
        click.echo(f"  {name:<18} {value}")


def _bytes(n: int) -> str:
    power = min(3, int(math.log(n, 1024))) if n else 0
    return f"{n / 1024**power:.4g} {('B', 'KiB', 'MiB', 'GiB')[power]}"
