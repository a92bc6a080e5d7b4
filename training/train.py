"""Trains the embedded model.

`python -m training.train CORPUS OUT` runs until `--minutes` of training time or `--steps` are
spent, writes OUT/checkpoint.pt now and then and goes on from it when started again. Matrices are
trained with Muon, the rest with AdamW; the learning rate is constant and falls to zero over the
last part of the budget. The same code runs on a CPU and on a GPU.

A run that has spent its budget goes on in a new stage: `--new-stage 0.6` with a larger budget warms
up again, to 0.6 of the learning rate, and falls again towards that budget's end. The checkpoint
remembers where the stage began: stopped, it is taken up without the option, like any run.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path

import click
import numpy as np
import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor

from engine.config import Mamba2Config
from engine.malloc import Option, tell_malloc
from engine.mamba2 import Mamba2
from engine.state import RecurrentState
from engine.tokenizer import Tokenizer
from training.corpus import Corpus, load_languages
from training.mixture import Mixture
from training.next_token_loss import next_token_loss
from training.recipe import Recipe, Stage, initialize, optimizers, scale_of
from training.samples import Sampler, stream

# Of each language.
VALIDATION_PIECES = 24


def loss_of(
    model: Mamba2, tokens: Tensor, state: RecurrentState | None, *, compiled: bool = False
) -> tuple[Tensor, RecurrentState]:
    """Give the mean next-token loss of tokens (batch, length + 1), and the state after length."""
    hidden, after = model.prefill(tokens[:, :-1], state)
    head = model.backbone.embeddings.weight
    assert isinstance(head, Tensor), "training knows no quantized weights"
    targets = tokens[:, 1:].flatten()
    return next_token_loss(hidden.flatten(0, 1), head, targets, compiled=compiled), after


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
    tell_malloc(
        {
            Option.MMAP_MAX: 0,
            Option.TRIM_THRESHOLD: 2**31 - 1,
            Option.TOP_PAD: 2**28,
            Option.ARENA_MAX: 1,
        }
    )


def mixture_of(corpora: dict[str, Corpus], tokenizer: Tokenizer, seed: int) -> Mixture:
    """Give a mixture of the languages' samples that is the same for the same seed."""
    samplers = {
        language: Sampler(corpus, tokenizer, seed=seed + index)
        for index, (language, corpus) in enumerate(corpora.items())
    }
    return Mixture(samplers, seed=seed)


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
        self.stage = Stage()
        self.checkpoint = out / "checkpoint.pt"
        if self.checkpoint.exists():
            self.resume()
        train = load_languages(corpus, "train")
        self.streams = [
            stream(
                # A resumed run draws new samples, not the first ones again.
                mixture_of(train, tokenizer, recipe.seed + 1000 * row + 1_000_003 * self.step),
                recipe.length,
                recipe.restart_share,
            )
            for row in range(recipe.batch)
        ]
        self.validation = {
            language: self.pieces_of(heldout, tokenizer)
            for language, heldout in load_languages(corpus, "heldout").items()
        }
        self.state = self.model.initial_state(recipe.batch)
        for block in self.model.blocks if compiled else ():
            block.prefill = torch.compile(block.prefill, dynamic=False)  # type: ignore[method-assign]

    def pieces_of(self, heldout: Corpus, tokenizer: Tokenizer) -> Tensor:
        """Give pieces of a language's held-out files, always the same: (n, length + 1) int64."""
        pieces = stream(Sampler(heldout, tokenizer, seed=1), self.recipe.length, 1.0)
        rows = [next(pieces)[0] for _ in range(VALIDATION_PIECES)]
        return torch.from_numpy(np.stack(rows)).to(self.device)

    def resume(self) -> None:
        """Take up the saved model, optimizer and curve."""
        saved = torch.load(self.checkpoint, weights_only=True)
        self.model.load_state_dict(saved["model"])
        for optimizer, values in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        self.step, self.seconds, self.curve = saved["step"], saved["seconds"], saved["curve"]
        self.stage = Stage(**saved.get("stage", {}))

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
                "stage": dataclasses.asdict(self.stage),
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
                scale = scale_of(spent, self.step, self.stage, self.recipe)
                group["lr"] = self.recipe.lr * scale
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
    def validate(self) -> dict[str, float]:
        """Give the loss on held-out packages by language, each piece read from nothing."""
        losses = {}
        for language, pieces in self.validation.items():
            parts = []
            for rows in pieces.split(VALIDATION_PIECES // 2):
                with torch.autocast(self.device.type, dtype=torch.bfloat16):
                    loss, _ = loss_of(self.model, rows, None, compiled=self.compiled)
                    parts.append(float(loss))
            losses[language] = float(np.mean(parts))
        return losses

    def note(self, train_loss: float | None) -> dict[str, float]:
        """Add a point to the curve; `heldout` is Python's loss, `heldout_go` Go's."""
        point = {
            "step": self.step,
            "tokens": self.step * self.recipe.batch * self.recipe.length,
            "seconds": self.seconds,
        }
        if train_loss is not None:
            point["train"] = train_loss
        for language, loss in self.validate().items():
            point["heldout" if language == "python" else f"heldout_{language}"] = loss
        self.curve.append(point)
        return point


@click.command()
@click.argument("corpus", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--tokenizer", type=click.Path(path_type=Path), default=Path("engine/embedded"))
@click.option("--minutes", default=120.0, show_default=True, help="Training time in all runs.")
@click.option("--steps", default=None, type=int, help="Steps in all runs, instead of minutes.")
@click.option(
    "--new-stage",
    "peak",
    type=float,
    help="Rise and fall anew, to this share of the learning rate.",
)
@click.option("--threads", default=0, help="Threads; 0 leaves torch's choice.")
@click.option("--save-every", default=100, show_default=True, help="Steps between checkpoints.")
@click.option("--compile/--no-compile", "compiled", default=True, help="Compile the layers.")
def main(
    corpus: Path,
    out: Path,
    tokenizer: Path,
    minutes: float,
    steps: int | None,
    peak: float | None,
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
    if peak is not None:
        run.stage = Stage(step=run.step, seconds=run.seconds, peak=peak)
        run.note(train_loss=None)
    stage = run.stage
    n_parameters = sum(p.numel() for p in run.model.parameters())
    click.echo(f"{n_parameters / 1e6:.2f} M parameters on {run.device}, from step {run.step}")
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns) as progress:
        task = progress.add_task("starting", total=1.0)
        smooth: float | None = None
        while True:
            spent = (
                (run.step - stage.step) / (steps - stage.step)
                if steps
                else (run.seconds - stage.seconds) / (60.0 * minutes - stage.seconds)
            )
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
                point = run.note(train_loss=smooth)
                run.save()
                click.echo(json.dumps(point))
        if run.step % save_every:
            run.note(train_loss=smooth)
        run.save()


if __name__ == "__main__":
    main()
