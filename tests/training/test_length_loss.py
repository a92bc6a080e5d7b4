"""The loss by length tells a model that forgets from one that a long text confuses."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch.nn import functional as F

from engine.tokenizer import Tokenizer
from tests.conftest import make_tiny_model
from training import length_loss
from training.corpus import pack
from training.length_loss import Range, by_length, flat_up_to, long_texts, losses, losses_afresh

EMBEDDED = Path(__file__).parents[2] / "engine" / "embedded"


def test_losses_are_the_cross_entropy_of_each_next_token() -> None:
    model, ids = make_tiny_model(), torch.arange(60).reshape(2, 30) * 4 % 251
    hidden, _ = model.prefill(ids[:, :-1])
    expected = F.cross_entropy(
        model.logits(hidden).flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
    )
    torch.testing.assert_close(losses(model, ids), expected.reshape(2, 29))


def test_afresh_reads_from_nothing_little_before_each_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(length_loss, "AFRESH", 8)
    model = make_tiny_model()
    ids = [1, *np.random.default_rng(0).integers(2, 256, 32).tolist()]
    afresh = losses_afresh(model, ids)
    assert afresh.shape == (32,)
    whole = losses(model, torch.tensor([ids]))[0]
    torch.testing.assert_close(afresh[:16], whole[:16])
    # The tokens 17 to 24, read behind <s> and the eight before them.
    window = losses(model, torch.tensor([[ids[0], *ids[9:25]]]))[0]
    torch.testing.assert_close(afresh[16:24], window[8:])
    assert not torch.allclose(afresh[16:], whole[16:])


def test_ranges_hold_the_same_tokens_in_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(length_loss, "AFRESH", 8)
    monkeypatch.setattr(length_loss, "ENDS", (8, 16, 32))
    rng, model = np.random.default_rng(1), make_tiny_model()
    texts = [[1, *rng.integers(2, 256, 32).tolist()] for _ in range(3)]
    ranges = by_length(model, texts)
    assert [(each.start, each.end) for each in ranges] == [(0, 8), (8, 16), (16, 32)]
    assert ranges[0].from_start == pytest.approx(ranges[0].afresh)
    whole = torch.cat([losses(model, torch.tensor([ids])) for ids in texts])
    assert ranges[2].from_start == pytest.approx(float(whole[:, 16:].mean()), rel=1e-5)
    assert ranges[2].afresh != pytest.approx(ranges[2].from_start)


def test_flat_as_long_as_more_text_does_not_harm() -> None:
    def ranges(*differences: float) -> list[Range]:
        ends = (0, 512, 1024, 2048)
        return [
            Range(start=a, end=b, from_start=2.0 + d, afresh=2.0, error=0.01)
            for a, b, d in zip(ends, ends[1:], differences, strict=False)
        ]

    assert flat_up_to(ranges(0.0, -0.1, -0.2)) == 2048
    assert flat_up_to(ranges(0.0, 0.015, -0.2)) == 2048
    assert flat_up_to(ranges(0.0, 0.03, -0.2)) == 512


def test_only_long_files_are_read() -> None:
    tokenizer = Tokenizer.load(EMBEDDED)
    long = "".join(f"value_{n} = other({n})\n" for n in range(200))
    corpus = pack([("a.py", "x = 1\n"), ("b.go", long), ("c.py", long), ("d.py", long)])
    texts = list(long_texts(corpus, tokenizer, 256, 2))
    assert [len(ids) for ids in texts] == [257, 257]
    assert tokenizer.decode(texts[0][1:]).startswith("// b.go\nvalue_0 = other(0)\n")
    assert tokenizer.decode(texts[1][1:]).startswith("# c.py\nvalue_0")


def test_command_says_that_no_file_is_long_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # These hold for the whole process.
    monkeypatch.setattr(torch, "set_flush_denormal", lambda mode: True)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    pack([("a.py", "x = 1\n")]).save(tmp_path / "heldout.npz")
    result = CliRunner().invoke(length_loss.main, [str(tmp_path), str(EMBEDDED)])
    assert result.exit_code == 1
    assert "no held-out file has 8192 tokens" in result.output
    assert not (tmp_path / "length.json").exists()
