"""Compiled passes of a whole model against the same model in torch, read from scratch."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch

from engine.cpu_passes import RUN_TOKENS, CpuPasses
from engine.engine import Engine
from engine.mamba2 import Mamba2
from engine.quantized import Quantization
from kernels.cpu_pass import passes
from perf.tiny_world import N_PADDED
from tests.engine.engine_world import Session, endless, play
from tests.oracle import TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from engine.tokenizer import Tokenizer

N_VOCAB = 320
# Codestral Mamba's, with fewer and narrower layers.
CODESTRAL: dict[str, Any] = {
    "d_model": 256,
    "n_layers": 3,
    "vocab_size": N_VOCAB,
    "headdim": 64,
    "d_state": 128,
    "ngroups": 8,
}
MODELS = {
    "codestral": CODESTRAL,
    "embedded": {**CODESTRAL, "ngroups": 1, "d_state": 64, "tie_embeddings": True},
    "awkward": {"d_model": 30, "vocab_size": N_VOCAB, "headdim": 6, "d_state": 10},
}
KINDS = ("float32", "bfloat16", "int8")


def make(tiny_model: Callable[..., Mamba2], name: str, kind: str, n_threads: int = 1) -> Mamba2:
    """A model with compiled passes, whose weights are kept as `kind`."""
    model = tiny_model(**MODELS[name])
    # So large that logits were unlike those of a model.
    model.get_parameter("backbone.embeddings.weight").div_(8 if model.lm_head is None else 1)
    if kind == "int8":
        model = quantized(model)
    elif kind == "bfloat16":
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16())
    model.compile_passes(n_threads)
    assert isinstance(model._compiled, CpuPasses)
    assert model._compiled.passes.packed.kind == getattr(torch, kind)
    return model


def quantized(model: Mamba2, name: str = "int8") -> Mamba2:
    kind = Quantization.named(name)
    result = Mamba2(
        type(model.config)(**{**vars(model.config), "quantization": kind}), dtype=model.dtype
    )
    state = model.state_dict()
    wanted = result.state_dict()
    for key in list(state):
        if key not in wanted:
            made = kind.apply(state.pop(key))
            state |= {
                key.removesuffix("weight") + part: value for part, value in made.tensors.items()
            }
    result.load_state_dict(state, strict=True, assign=True)
    return result.requires_grad_(False).eval()


def check_prompt(model: Mamba2, seed: int) -> None:
    """Read a prompt, write on greedily, and hold all of it to one prefill in torch."""
    generator = torch.Generator().manual_seed(seed)
    length = int(torch.randint(1, 90, (), generator=generator))
    ids = torch.randint(N_VOCAB, (length,), generator=generator)
    reading = model.read(ids, model.initial_state(), (length,), length)
    state, rows = reading.states[0], [model.logits(reading.hidden)[-1]]
    n_tokens = 0
    while n_tokens < 12:
        # What is drafted need not be right: here, the best token and others behind it.
        n_right = int(torch.randint(1, 4, (), generator=generator))
        for _ in range(n_right):
            draft = torch.randint(N_VOCAB, (5,), generator=generator)
            draft[0] = rows[-1].argmax()
            read = model(draft, state)
            ids, state = torch.cat((ids, draft[:1])), read.commit(1)
            rows.append(read.logits[0])
        n_tokens += n_right
    hidden, after = model.prefill(ids[None])
    expected = model.logits(hidden[0])[length - 1 :]
    found = torch.stack(rows)
    assert float((found - expected).abs().max()) <= TOLERANCE
    best, second = expected.topk(2).values.T
    clear = best - second >= 2 * TOLERANCE
    assert torch.equal(found.argmax(-1)[clear], expected.argmax(-1)[clear])
    assert float((state.ssm_state - after.ssm_state).abs().max()) <= TOLERANCE
    assert float((state.conv_state - after.conv_state).abs().max()) <= TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", list(MODELS))
def test_prompts(name: str, kind: str, tiny_model: Callable[..., Mamba2]) -> None:
    model = make(tiny_model, name, kind)
    for seed in range(4):
        check_prompt(model, seed)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_hundred_prompts(kind: str, tiny_model: Callable[..., Mamba2]) -> None:
    model = make(tiny_model, "codestral", kind, n_threads=2)
    for seed in range(200):
        check_prompt(model, seed)


@pytest.mark.parametrize("name", list(MODELS))
def test_a_pass_is_that_of_the_layers(name: str, tiny_model: Callable[..., Mamba2]) -> None:
    model = make(tiny_model, name, "float32")
    tokens = torch.randint(N_VOCAB, (60,), generator=torch.Generator().manual_seed(3))
    _, base = model.prefill(tokens[None, :20])
    for length in (1, 2, 5, 16, 40):
        found = model(tokens[20 : 20 + length], base)
        expected = model.layer_by_layer(tokens[20 : 20 + length], base)
        pairs = [(found.logits, expected.logits), (found.hidden, expected.hidden)]
        pairs += zip(found.log.tensors, expected.log.tensors, strict=True)
        for n in range(length + 1):
            states = found.commit(n), expected.commit(n)
            pairs.append((states[0].conv_state, states[1].conv_state))
            pairs.append((states[0].ssm_state, states[1].ssm_state))
        check_pairs(pairs)
        assert found.commit(0) is base


def check_pairs(pairs: list[tuple[Tensor, Tensor]]) -> None:
    for found, expected in pairs:
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype
        if expected.numel():
            assert float((found - expected).abs().max()) <= TOLERANCE


@pytest.mark.parametrize(
    ("positions", "log_after"),
    [((), 0), ((5,), 5), ((70, 0, 33, 32, 33), 33), ((70,), 70), ((1, 69), 64)],
)
def test_states_and_logs_of_a_long_run(
    positions: tuple[int, ...], log_after: int, tiny_model: Callable[..., Mamba2]
) -> None:
    assert RUN_TOKENS < 70, "or the run would be one pass"
    model, plain = make(tiny_model, "codestral", "float32"), tiny_model(**MODELS["codestral"])
    tokens = torch.randint(N_VOCAB, (90,), generator=torch.Generator().manual_seed(4))
    _, base = plain.prefill(tokens[None, :20])
    found = model.read(tokens[20:], base, positions, log_after)
    expected = plain.read(tokens[20:], base, positions, log_after)
    assert len(found.states) == len(positions)
    pairs = [(found.hidden, expected.hidden)]
    pairs += zip(found.log.tensors, expected.log.tensors, strict=True)
    for state, other in zip(found.states, expected.states, strict=True):
        pairs += [(state.conv_state, other.conv_state), (state.ssm_state, other.ssm_state)]
        assert state.ssm_state.data_ptr() != base.ssm_state.data_ptr()
    check_pairs(pairs)


def test_answers_while_editing(
    new_session: Callable[..., Session], tokenizer: Tokenizer, tiny_model: Callable[..., Mamba2]
) -> None:
    model = tiny_model(**{**CODESTRAL, "n_layers": 2, "vocab_size": tokenizer.n_vocab + N_PADDED})
    session = new_session(endless(model, tokenizer))
    model.compile_passes()
    play(session, [("type", "tot"), ("delete", 2), ("jump", 60), ("pair", "()"), ("type", "x")])


def test_what_is_not_compiled(tiny_model: Callable[..., Mamba2]) -> None:
    four_bits = quantized(tiny_model(**MODELS["codestral"]), "int4")
    half = tiny_model().bfloat16()
    for model in (four_bits, half):
        model.compile_passes()
        assert model._compiled is None


def test_a_compiler_that_fails_is_done_without(
    tmp_path: Path,
    small_tokenizer_dir: Path,
    save_checkpoint: Callable[[Mamba2, Path], Path],
    tiny_model: Callable[..., Mamba2],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(model: Mamba2, n_threads: int) -> None:
        raise ImportError("no such compiler")

    shutil.copytree(small_tokenizer_dir, tmp_path / "model")
    save_checkpoint(tiny_model(vocab_size=400 + N_PADDED), tmp_path / "model")
    monkeypatch.setattr(CpuPasses, "of", fail)
    monkeypatch.setattr("engine.engine.default_budgets", lambda device: (2**22, 0))
    engine = Engine.load(str(tmp_path / "model"))
    assert engine.model._compiled is None
    assert "no such compiler" in caplog.text


def test_a_cpu_with_a_number_is_a_cpu(
    tmp_path: Path,
    small_tokenizer_dir: Path,
    save_checkpoint: Callable[[Mamba2, Path], Path],
    tiny_model: Callable[..., Mamba2],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(small_tokenizer_dir, tmp_path / "model")
    save_checkpoint(tiny_model(vocab_size=400 + N_PADDED), tmp_path / "model")
    monkeypatch.setattr("engine.engine.default_budgets", lambda device: (2**22, 0))
    engine = Engine.load(str(tmp_path / "model"), device="cpu:0")
    assert engine.model.dtype == torch.float32
    assert engine.model._compiled is not None


def test_where_there_is_no_room_for_a_longer_pass_the_former_is_as_it_was(
    tiny_model: Callable[..., Mamba2], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make(tiny_model, "codestral", "float32")
    assert model._compiled is not None
    kept, n_rooms = model._compiled.passes, 0
    tokens, state = torch.arange(40) % 7, model.initial_state()
    making = passes.aligned_room

    def failing(*args: Any) -> Any:
        nonlocal n_rooms
        n_rooms += 1
        if n_rooms == 4:
            raise RuntimeError("can't allocate memory")
        return making(*args)

    with torch.inference_mode():
        expected = model(tokens[:4], state).logits
        rooms = [room.data_ptr() for room in kept._rooms]
        monkeypatch.setattr(passes, "aligned_room", failing)
        with pytest.raises(RuntimeError, match="allocate"):
            model(tokens, state)
        assert [room.data_ptr() for room in kept._rooms] == rooms
        assert torch.equal(model(tokens[:4], state).logits, expected)
