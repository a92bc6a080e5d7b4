"""Options that several commands have."""

from __future__ import annotations

import math
from typing import Any

import click

from lsp_server.quantizations import QUANTIZATIONS


class FiniteRange(click.FloatRange):
    """A number within bounds that is one: no bound keeps out what is not a number."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number.", param, ctx)
        return number


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
