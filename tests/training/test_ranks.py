"""Processes that train together take the same steps on samples of their own."""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from engine.tokenizer import Tokenizer
from training.corpus import pack
from training.ranks import Ranks
from training.recipe import Recipe
from training.train import Run

ROOT = Path(__file__).parents[2]
TINY = Recipe(d_model=32, n_layers=2, d_state=16, headdim=16, batch=2, length=64, warmup_steps=1)


def train(rank: int, folder: Path) -> None:
    """Take two steps as one of two processes, and keep what came of them."""
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    ranks = Ranks()
    tokenizer = Tokenizer.load(ROOT / "engine" / "embedded")
    run = Run(folder, tokenizer, folder / "run", TINY, compiled=False)
    losses = [run.train_step(0.0) for _ in range(2)]
    kept = {
        "rows": list(ranks.rows(3)),
        "seconds": ranks.seconds(10.0 + rank),
        "losses": losses,
        "n_tokens": run.n_tokens,
        "model": run.model.state_dict(),
    }
    torch.save(kept, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_take_the_same_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of the interfaces gloo may choose from.
    monkeypatch.setitem(os.environ, "GLOO_SOCKET_IFNAME", "lo")
    files = [(str(p.relative_to(ROOT)), p.read_text()) for p in sorted(ROOT.glob("engine/*.py"))]
    pack(files[2:]).save(tmp_path / "train.npz")
    pack(files[:2]).save(tmp_path / "heldout.npz")
    multiprocessing.spawn(train, args=(tmp_path,), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert (first["rows"], second["rows"]) == ([0, 1, 2], [3, 4, 5])
    assert first["seconds"] == second["seconds"] == 10.0
    # Of other samples, to the same weights.
    assert first["losses"] != second["losses"]
    assert first["n_tokens"] == second["n_tokens"] == 2 * 2 * TINY.batch * TINY.length
    for name, value in first["model"].items():
        assert torch.equal(value, second["model"][name]), name


def test_one_alone_is_the_first_of_one() -> None:
    ranks = Ranks()
    assert (ranks.rank, ranks.n) == (0, 1)
    assert list(ranks.rows(2)) == [0, 1]
    assert ranks.seconds(1.5) == 1.5
