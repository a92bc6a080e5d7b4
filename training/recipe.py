"""What shapes a training run: sizes, starting values, optimizers, the learning rate's course."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from engine.mamba2 import Mamba2


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that shapes a run besides the data."""

    d_model: int = 256
    n_layers: int = 8
    d_state: int = 64
    headdim: int = 64
    batch: int = 16
    length: int = 512
    lr: float = 3e-3
    warmup_steps: int = 60
    decay_share: float = 0.35
    restart_share: float = 0.15
    seed: int = 7


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One rise and fall of the learning rate; a later stage starts from an earlier one's end.

    Began after `step` steps and `seconds` of training time; `peak` is its share of the recipe's
    learning rate.
    """

    step: int = 0
    seconds: float = 0.0
    peak: float = 1.0


def initialize(model: Mamba2, seed: int) -> None:
    """Give every parameter its starting value (the published Mamba-2 scheme)."""
    generator = torch.Generator().manual_seed(seed)
    n_layers = model.config.n_layers
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("A_log"):
                parameter.uniform_(1.0, 16.0, generator=generator).log_()
            elif name.endswith("dt_bias"):
                low, high = math.log(1e-3), math.log(1e-1)
                dt = torch.exp(
                    torch.rand(parameter.shape, generator=generator) * (high - low) + low
                )
                parameter.copy_(dt + torch.log(-torch.expm1(-dt)))
            elif name.endswith(("norm.weight", "norm_f.weight", ".D")):
                parameter.fill_(1.0)
            elif "conv1d" in name:
                bound = 1.0 / math.sqrt(model.config.d_conv)
                parameter.uniform_(-bound, bound, generator=generator)
            elif "out_proj" in name:
                parameter.normal_(0.0, 0.02 / math.sqrt(n_layers), generator=generator)
            else:
                parameter.normal_(0.0, 0.02, generator=generator)


def optimizers(model: Mamba2, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Give Muon for the projections and AdamW for all else."""
    matrices = [p for n, p in model.named_parameters() if n.endswith("_proj.weight")]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=recipe.lr, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=recipe.lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def scale_of(spent: float, step: int, stage: Stage, recipe: Recipe) -> float:
    """Give the learning rate's factor when a share `spent` (0 to 1) of a stage's budget is gone."""
    warm = min(1.0, (step - stage.step + 1) / recipe.warmup_steps)
    return stage.peak * warm * min(1.0, (1.0 - spent) / recipe.decay_share)
