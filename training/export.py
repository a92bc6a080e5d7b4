"""Writes a training run out as a checkpoint like any other, with its loss curve.

`python -m training.export RUN OUT` reads RUN/checkpoint.pt and writes OUT/model.safetensors
(bfloat16, the recurrence's own parameters float32), OUT/config.json, OUT/curve.json and
OUT/curve.svg. With `--earlier` the weights are averaged with an earlier checkpoint's. The model
card beside them is written by hand.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import torch
from safetensors.torch import save_file

from engine.config import Mamba2Config
from engine.mamba2 import FLOAT32_PARAMETERS
from training.average import averaged

LABELS = {"train": "training", "heldout": "held out, python"}


def export(run: Path, out: Path, earlier: Path | None = None, share: float = 1.0) -> None:
    """Write the checkpoint, config and curve of a run to the folder `out`.

    With an `earlier` checkpoint of the same run, the weights are `share` of the run's and the rest
    of the earlier one's: what a stage learnt, with less of what it forgot.
    """
    saved = torch.load(run / "checkpoint.pt", weights_only=True, map_location="cpu")
    config = Mamba2Config(**saved["config"])
    weights = saved["model"] if earlier is None else averaged(saved["model"], earlier, share)
    tensors = {
        name: (t if name.endswith(FLOAT32_PARAMETERS) else t.to(torch.bfloat16)).contiguous()
        for name, t in weights.items()
    }
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    (out / "config.json").write_text(json.dumps(config.to_hugging_face(), indent=2) + "\n")
    (out / "curve.json").write_text(json.dumps(saved["curve"], indent=0) + "\n")
    plot(saved["curve"], out / "curve.svg")


def plot(curve: list[dict[str, float]], path: Path) -> None:
    """Draw training and held-out loss over tokens seen; the languages came at different times."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = "keystate"
    figure, axes = plt.subplots(figsize=(7, 4))
    keys = {key: None for point in curve for key in point if key.startswith(("train", "heldout"))}
    for key in keys:
        points = [point for point in curve if key in point]
        tokens = [point["tokens"] / 1e6 for point in points]
        label = LABELS.get(key, key.replace("heldout_", "held out, "))
        axes.plot(tokens, [point[key] for point in points], label=label)
    axes.set_xlabel("million tokens seen")
    axes.set_ylabel("loss, nats per token")
    axes.set_ylim(top=min(7.0, curve[0]["train"]))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--earlier",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="An earlier checkpoint of the run to average with.",
)
@click.option("--share", default=0.6, show_default=True, help="What RUN counts in the average.")
def main(run: Path, out: Path, earlier: Path | None, share: float) -> None:
    """Export the run in the folder RUN to the folder OUT."""
    export(run, out, earlier, share)
    click.echo(f"wrote {out / 'model.safetensors'}")


if __name__ == "__main__":
    main()
