"""Trains the embedded model.

`python -m training.train CORPUS OUT` runs until `--minutes` of training time or `--steps` are
spent, writes OUT/checkpoint.pt now and then and goes on from it when started again. Matrices are
trained with Muon, the rest with AdamW; the learning rate is constant and falls to zero over the
last part of the budget. The same code runs on a CPU and on a GPU.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor

from engine.config import Mamba2Config
from engine.mamba2 import Mamba2
from engine.state import RecurrentState
from engine.tokenizer import Tokenizer
from training.corpus import Corpus
from training.next_token_loss import next_token_loss
from training.samples import Sampler, stream

VALIDATION_PIECES = 24


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
    decay_share: float = 0.3
    restart_share: float = 0.15
    seed: int = 7


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


def loss_of(
    model: Mamba2, tokens: Tensor, state: RecurrentState | None, *, compiled: bool = False
) -> tuple[Tensor, RecurrentState]:
    """Give the mean next-token loss of tokens (batch, length + 1), and the state after length."""
    hidden, after = model.prefill(tokens[:, :-1], state)
    head = model.backbone.embeddings.weight
    targets = tokens[:, 1:].flatten()
    return next_token_loss(hidden.flatten(0, 1), head, targets, compiled=compiled), after


def scale_of(spent: float, step: int, recipe: Recipe) -> float:
    """Give the learning rate's factor when a share `spent` (0 to 1) of the budget is gone."""
    warm = min(1.0, (step + 1) / recipe.warmup_steps)
    return warm * min(1.0, (1.0 - spent) / recipe.decay_share)


def carry(state: RecurrentState, fresh: list[bool]) -> RecurrentState:
    """Give the state with the rows that start anew set to zero."""
    keep = torch.tensor([not f for f in fresh], device=state.ssm_state.device).float()
    return RecurrentState(
        state.conv_state.detach() * keep[None, :, None, None].to(state.conv_state.dtype),
        state.ssm_state.detach() * keep[None, :, None, None, None],
    )


def keep_freed_memory() -> None:
    """Tell glibc's malloc to keep what is freed, where there is one.

    Each step allocates gigabytes in large blocks. Given back to the system and faulted in again,
    130,000 pages a second, they halved the speed of training on two cores.
    """
    trim_threshold, top_pad, mmap_max, arena_max = -1, -2, -4, -8  # of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    choices = (mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 2**28), (arena_max, 1)
    for option, value in choices:
        mallopt(option, value)


class Run:
    """A training run that can be stopped and taken up again."""

    def __init__(
        self,
        corpus: Path,
        tokenizer: Tokenizer,
        out: Path,
        recipe: Recipe,
        *,
        compiled: bool = True,
    ) -> None:
        """Make the model, its optimizers and its data streams, or take up OUT/checkpoint.pt.

        `compiled` wants a C compiler on the machine; it is 1.7 times faster.
        """
        self.recipe, self.out, self.compiled = recipe, out, compiled
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.config = Mamba2Config(
            d_model=recipe.d_model,
            n_layers=recipe.n_layers,
            vocab_size=tokenizer.n_vocab,
            d_state=recipe.d_state,
            headdim=recipe.headdim,
            tie_embeddings=True,
        )
        self.model = Mamba2(self.config)
        initialize(self.model, recipe.seed)
        self.model.to(self.device)
        self.optimizers = optimizers(self.model, recipe)
        self.step, self.seconds, self.curve = 0, 0.0, list[dict[str, float]]()
        self.checkpoint = out / "checkpoint.pt"
        if self.checkpoint.exists():
            self.resume()
        train = Corpus.load(corpus / "train.npz")
        self.streams = [
            stream(
                # A resumed run draws new samples, not the first ones again.
                Sampler(train, tokenizer, seed=recipe.seed + 1000 * row + 1_000_003 * self.step),
                recipe.length,
                recipe.restart_share,
            )
            for row in range(recipe.batch)
        ]
        heldout = stream(
            Sampler(Corpus.load(corpus / "heldout.npz"), tokenizer, seed=1), recipe.length, 1.0
        )
        pieces = [next(heldout)[0] for _ in range(VALIDATION_PIECES)]
        self.validation = torch.from_numpy(np.stack(pieces)).to(self.device)
        self.state = self.model.initial_state(recipe.batch)
        for block in self.model.blocks if compiled else ():
            block.prefill = torch.compile(block.prefill, dynamic=False)  # type: ignore[method-assign]

    def resume(self) -> None:
        """Take up the saved model, optimizer and curve."""
        saved = torch.load(self.checkpoint, weights_only=True)
        self.model.load_state_dict(saved["model"])
        for optimizer, values in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        self.step, self.seconds, self.curve = saved["step"], saved["seconds"], saved["curve"]

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        part = self.checkpoint.with_suffix(".part")
        torch.save(
            {
                "model": self.model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "step": self.step,
                "seconds": self.seconds,
                "curve": self.curve,
                "config": dataclasses.asdict(self.config),
            },
            part,
        )
        os.replace(part, self.checkpoint)
        (self.out / "curve.json").write_text(json.dumps(self.curve) + "\n")

    def train_step(self, spent: float) -> float:
        """Take one step; give its loss."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.recipe.lr * scale_of(spent, self.step, self.recipe)
        pieces = [next(s) for s in self.streams]
        tokens = torch.from_numpy(np.stack([p for p, _ in pieces])).to(self.device)
        state = carry(self.state, [fresh for _, fresh in pieces])
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            loss, self.state = loss_of(self.model, tokens, state, compiled=self.compiled)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return loss.item()

    @torch.no_grad()
    def validate(self) -> float:
        """Give the loss on held-out packages, each piece read from nothing."""
        losses = []
        for rows in self.validation.split(self.recipe.batch):
            with torch.autocast(self.device.type, dtype=torch.bfloat16):
                loss, _ = loss_of(self.model, rows, None, compiled=self.compiled)
                losses.append(float(loss))
        return float(np.mean(losses))


@click.command()
@click.argument("corpus", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--tokenizer", type=click.Path(path_type=Path), default=Path("engine/embedded"))
@click.option("--minutes", default=120.0, show_default=True, help="Training time in all runs.")
@click.option("--steps", default=None, type=int, help="Steps in all runs, instead of minutes.")
@click.option("--threads", default=0, help="Threads; 0 leaves torch's choice.")
@click.option("--save-every", default=100, show_default=True, help="Steps between checkpoints.")
@click.option("--compile/--no-compile", "compiled", default=True, help="Compile the layers.")
def main(
    corpus: Path,
    out: Path,
    tokenizer: Path,
    minutes: float,
    steps: int | None,
    threads: int,
    save_every: int,
    compiled: bool,
) -> None:
    """Train on the folder CORPUS, keep the run in the folder OUT."""
    out.mkdir(parents=True, exist_ok=True)
    if threads:
        torch.set_num_threads(threads)
    # Decays reach the denormal range within a chunk; computing with denormals made the backward
    # pass of the scan 30 times slower.
    torch.set_flush_denormal(True)
    keep_freed_memory()
    recipe = Recipe()
    run = Run(corpus, Tokenizer.load(tokenizer), out, recipe, compiled=compiled)
    n_parameters = sum(p.numel() for p in run.model.parameters())
    click.echo(f"{n_parameters / 1e6:.2f} M parameters on {run.device}, from step {run.step}")
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns) as progress:
        task = progress.add_task("starting", total=1.0)
        smooth: float | None = None
        while True:
            spent = run.step / steps if steps else run.seconds / (60.0 * minutes)
            if spent >= 1.0:
                break
            started = time.monotonic()
            loss = run.train_step(spent)
            took = time.monotonic() - started
            run.seconds += took
            smooth = loss if smooth is None else 0.97 * smooth + 0.03 * loss
            rate = recipe.batch * recipe.length / took
            progress.update(
                task,
                completed=spent,
                description=f"step {run.step} loss {smooth:.3f} {rate:,.0f} tokens/s",
            )
            if run.step % 10 == 0 and not progress.console.is_terminal:
                click.echo(f"step {run.step} loss {smooth:.3f} {rate:,.0f} tokens/s")
            if run.step % save_every == 0:
                point = {
                    "step": run.step,
                    "tokens": run.step * recipe.batch * recipe.length,
                    "seconds": run.seconds,
                    "train": smooth,
                    "heldout": run.validate(),
                }
                run.curve.append(point)
                run.save()
                click.echo(json.dumps(point))
        run.save()


if __name__ == "__main__":
    main()
