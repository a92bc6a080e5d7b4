"""Options that several commands have."""

from __future__ import annotations

import click

from lsp_server.quantizations import QUANTIZATIONS

model_option = click.option(
    "--model",
    metavar="DIR|HUB-ID",
    help="A checkpoint's directory or a hub id.  [default: the embedded model]",
)
device_option = click.option(
    "--device", metavar="DEVICE", help="cpu, cuda, cuda:1 …  [default: cuda where there is one]"
)
quantize_option = click.option(
    "--quantize",
    type=click.Choice(QUANTIZATIONS),
    help="Round the weights to this when they are loaded.  [default: as they are]",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="One JSON object on stdout, nothing else there."
)
