"""How far copying is trusted is fitted on the tokens that really stood in held-out files."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from engine.copying import FEATURES, Copier, CopyWeights
from engine.fim import PromptOrder, fim_format
from engine.tokenizer import Tokenizer
from kernels.token_choice import distribution
from tests.conftest import make_tiny_model, save_hugging_face
from training import calibrate
from training.calibrate import HOLE_CHARS, Hole, Reader, Step, Table, fitted, holes, losses
from training.corpus import calibration_half, pack, packed_path

EMBEDDED = Path(__file__).parents[2] / "engine" / "embedded"
BODY = "".join(f"total_{n} = combine(total_{n // 2}, {n})\n\n" for n in range(30))
NAMES = [f"package/file_{n}.{extension}" for n in range(6) for extension in ("py", "go")]
UNFITTED = CopyWeights(bias=(0.0,) * len(FEATURES), slope=(0.0,) * len(FEATURES))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(EMBEDDED)


def step(*, own: float, is_true: bool, length: float = 1.0) -> Step:
    """One candidate of this probability, and the rest."""
    log_own, rest = math.log(own), math.log(1 - own)
    return Step(
        features=torch.tensor([[1.0, length, 1.0, 1.0, 0.5, 0.0, 0.0]], dtype=torch.float64),
        own=torch.tensor([log_own], dtype=torch.float64),
        rest=rest,
        true=log_own if is_true else rest,
        index=0 if is_true else -1,
    )


def test_holes_are_of_the_half_that_is_calibrated_on() -> None:
    files = [(name, f"{BODY}# {name}\n") for name in NAMES]
    texts = dict(files)
    assert 0 < sum(map(calibration_half, NAMES)) < len(NAMES)
    drawn = list(holes(pack(files), 40, seed=3))
    assert len(drawn) == 40
    names, lengths = set(), []
    for hole in drawn:
        mark, _, name = hole.header.rstrip("\n").partition(" ")
        assert mark == ("//" if name.endswith(".go") else "#")
        assert calibration_half(name)
        assert hole.text.split("\n")[0].strip()
        # Another file of the same language says it all as well.
        assert any(hole.text.partition("\n")[0] in passage for passage in hole.passages)
        assert not any(f"# {name}" in passage for passage in hole.passages)
        if hole.before + hole.text + hole.after == texts[name]:
            assert len(hole.text) > HOLE_CHARS or not hole.after
            assert not hole.after or hole.text.endswith("\n")
            lengths.append(2)
        else:
            assert hole.before + hole.text[:-1] + hole.after == texts[name]
            assert hole.text.index("\n") == len(hole.text) - 1
            lengths.append(1)
        names.add(name)
    assert len(names) == sum(map(calibration_half, NAMES))
    assert lengths.count(1) > lengths.count(2) > 5
    assert drawn == list(holes(pack(files), 40, seed=3)) != list(holes(pack(files), 40, seed=4))


def hole_at(cursor: int) -> Hole:
    return Hole(
        header="# a.py\n",
        before=BODY[:cursor],
        text=BODY[cursor : cursor + 60],
        after=BODY[cursor + 60 :],
        passages=("elsewhere: total_25 = combine(other)\n",),
    )


def test_steps_weigh_copying_as_the_engine_mixes_it(tokenizer: Tokenizer) -> None:
    model = make_tiny_model(vocab_size=tokenizer.n_vocab)
    weights = CopyWeights(
        bias=(0.3, 1.0, -0.5, 0.7, 0.2, 0.4, 0.3), slope=(-0.2, 0.1, 0.0, 0.3, -0.1, 0.1, 0.1)
    )
    hole = hole_at(BODY.index("total_25 ="))
    fim = fim_format(tokenizer)
    prompt = [
        *fim.head(PromptOrder.SUFFIX_FIRST, hole.after),
        *tokenizer.encode(hole.header + hole.before),
    ]
    copier = Copier(
        tokenizer,
        hole.header + hole.before,
        (hole.after, "", "", *hole.passages),
        weights=weights,
        below=hole.after,
    )
    true = tokenizer.encode(hole.text)
    text_ids = torch.tensor([i for i, piece in enumerate(tokenizer.pieces) if piece])
    expected, written = [], b""
    with torch.inference_mode():
        for n, token_id in enumerate(true):
            hidden, _ = model.prefill(torch.tensor([[*prompt, *true[:n]]]))
            copied = copier.odds(copier.candidates(written))
            mixed, _ = distribution(model.logits(hidden[0, -1]), text_ids, copied)
            expected.append(-float(mixed[token_id]))
            written += tokenizer.piece_bytes(token_id)
        steps = list(Reader(model, tokenizer).steps(hole))
    assert len(steps) == len(true) > 10
    assert sum(each.index >= 0 for each in steps) > 5
    loss = losses(Table(steps), weights)["loss_with_copying"]
    assert loss == pytest.approx(sum(expected) / len(expected), rel=2e-5)


def test_held_back_text_is_spelled_too(tokenizer: Tokenizer) -> None:
    model = make_tiny_model(vocab_size=tokenizer.n_vocab)
    hole = hole_at(BODY.index("combine", 600) + 3)
    held = fim_format(tokenizer).split(hole.header + hole.before).held.decode()
    assert held.endswith("com")
    with torch.inference_mode():
        steps = list(Reader(model, tokenizer).steps(hole))
    assert len(steps) == len(tokenizer.encode(held + hole.text))
    # Only tokens that agree with the text held back were in question.
    assert steps[0].true > -math.log(tokenizer.n_vocab / 20)


def test_without_weights_the_loss_is_the_models_own() -> None:
    steps = [step(own=0.2, is_true=True), step(own=0.4, is_true=False)]
    found = losses(Table(steps), UNFITTED)
    own = -(math.log(0.2) + math.log(0.6)) / 2
    assert found["loss_alone"] == pytest.approx(own)
    assert found["loss_with_copying"] == pytest.approx(own)
    assert found["share_found"] == 0.5


@pytest.mark.parametrize("right_when_long", [True, False])
def test_fit_trusts_what_proved_right(right_when_long: bool) -> None:
    steps = [
        step(own=0.3, is_true=right_when_long == (length > 1), length=length)
        for length in (0.5, 2.0)
        for _ in range(10)
    ]
    weights = fitted(Table(steps))
    assert losses(Table(steps), weights)["loss_with_copying"] < 0.1
    length = FEATURES.index("root_length")
    assert (weights.bias[length] - weights.slope[length] > 0) == right_when_long


def test_command_writes_the_weights_beside_the_model(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # These hold for the whole process.
    monkeypatch.setattr(torch, "set_flush_denormal", lambda mode: True)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    model = save_hugging_face(
        make_tiny_model(vocab_size=tokenizer.n_vocab, tie_embeddings=True), tmp_path / "model"
    )
    shutil.copy(EMBEDDED / "tokenizer.model", model)
    files = {name: f"{BODY}# {name}\n" for name in NAMES}
    for language, extension in (("python", ".py"), ("go", ".go")):
        mine = [(name, text) for name, text in files.items() if name.endswith(extension)]
        pack(mine).save(packed_path(tmp_path, "heldout", language))
    told = CliRunner().invoke(calibrate.main, [str(tmp_path), str(model), "--n", "8"])
    assert told.exit_code == 0, told.output
    report = json.loads(told.output[told.output.index("{") :])
    assert report.keys() == {"python", "go"}
    assert report["python"]["n_tokens"] > report["go"]["n_tokens"] > 0
    for figures in report.values():
        assert figures["loss_with_copying"] < figures["loss_alone"] - 1
    assert CopyWeights.load(model) not in (None, UNFITTED)
