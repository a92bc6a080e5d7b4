"""Averages a training run's weights with those of an earlier checkpoint, for the run to go on from.

`python -m training.average RUN --earlier CHECKPOINT --share 0.6` changes RUN/checkpoint.pt alone:
its optimizer and curve stay.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


def averaged(weights: Mapping[str, Tensor], earlier: Path, share: float) -> dict[str, Tensor]:
    """Give `share` (0 to 1) of the weights and the rest of those in an earlier checkpoint.

    What a stage learnt, with less of what it forgot.
    """
    before = torch.load(earlier, weights_only=True, map_location="cpu")["model"]
    return {name: before[name].lerp(t.cpu(), share) for name, t in weights.items()}


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--earlier", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True
)
@click.option("--share", default=0.6, show_default=True, help="What RUN counts in the average.")
def main(run: Path, earlier: Path, share: float) -> None:
    """Average the weights of the folder RUN with an earlier checkpoint's."""
    checkpoint = run / "checkpoint.pt"
    saved = torch.load(checkpoint, weights_only=True, map_location="cpu")
    saved["model"] = averaged(saved["model"], earlier, share)
    part = checkpoint.with_suffix(".part")
    torch.save(saved, part)
    os.replace(part, checkpoint)


if __name__ == "__main__":
    main()
