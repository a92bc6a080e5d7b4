"""Models with quantized weights: at load, stored, and what must not be mixed with them."""

from __future__ import annotations

import json
import shutil
import signal
import weakref
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.checkpoint import CheckpointError, inspect, load_model
from engine.config import Mamba2Config
from engine.engine import Engine
from engine.mamba2 import Mamba2
from engine.quantized import KINDS, Quantization, QuantizedEmbedding, QuantizedLinear
from engine.quantized_checkpoint import PART, write_quantized
from engine.warm_restart import SavedStates
from lsp_server.quantizations import QUANTIZATIONS
from perf.tiny_world import N_PADDED
from tests.engine.engine_world import ask, check, endless

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engine.engine_world import Session

# Codestral's in all but width and depth; params.json leaves most of it unsaid.
CODESTRAL: dict[str, Any] = {
    "d_model": 256,
    "vocab_size": 96,
    "d_state": 128,
    "headdim": 64,
    "ngroups": 8,
    "tie_embeddings": False,
}
PARAMS = {"dim": 256, "n_layers": 2, "vocab_size": 96, "n_groups": 8, "tie_embeddings": False}

every_kind = pytest.mark.parametrize("kind", list(KINDS))


@pytest.fixture(scope="module")
def codestral(tiny_model: Callable[..., Mamba2]) -> Mamba2:
    return tiny_model(3, **CODESTRAL)


@pytest.fixture(scope="module")
def directories(
    codestral: Mamba2,
    save_checkpoint: Callable[[Mamba2, Path], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """The same weights in both layouts."""
    hugging_face = save_checkpoint(codestral, tmp_path_factory.mktemp("huggingface"))
    mistral = tmp_path_factory.mktemp("mistral")
    weights = {
        f"model.{name.replace('embeddings', 'embedding')}": tensor
        for name, tensor in codestral.state_dict().items()
    }
    save_file(weights, mistral / "consolidated.safetensors")
    (mistral / "params.json").write_text(json.dumps(PARAMS))
    return {"huggingface": hugging_face, "mistral": mistral}


def dequantized(model: Mamba2, plain: Mamba2) -> Mamba2:
    """The plain model, with the quantized one's weights in place of its own."""
    for name, layer in plain.named_modules():
        of_quantized = model.get_submodule(name)
        if isinstance(of_quantized, QuantizedLinear):
            assert isinstance(layer, torch.nn.Linear | torch.nn.Embedding)
            layer.weight.copy_(of_quantized.weight.dequantize())
    return plain


def check_same_logits(found: Mamba2, expected: Mamba2) -> None:
    """Prefill and pass, from nothing and from a state."""
    tokens = torch.randint(96, (1, 70), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        hidden, state = found.prefill(tokens)
        hidden_expected, state_expected = expected.prefill(tokens)
        compared = [(found.logits(hidden), expected.logits(hidden_expected))]
        run = found(tokens[0, :5], state)
        run_expected = expected(tokens[0, :5], state_expected)
        compared.append((run.logits, run_expected.logits))
        compared.append((run.commit(3).ssm_state, run_expected.commit(3).ssm_state))
    for one, other in compared:
        assert one.dtype == torch.float32
        assert (one - other).abs().max() < 1e-5 * other.abs().max()


@every_kind
@pytest.mark.parametrize("layout", ["huggingface", "mistral"])
def test_codestrals_shape_at_load(
    directories: dict[str, Path], layout: str, kind: str, codestral: Mamba2
) -> None:
    shares: list[float] = []
    model = load_model(directories[layout], quantize=KINDS[kind], on_progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len(shares) == len(codestral.state_dict())
    assert not model.training
    assert model.config.quantization == KINDS[kind]
    bits = {"int8": 8, "int4": 4}[kind]
    assert model.lm_head is not None
    for layer in (model.blocks[1].mixer.in_proj, model.blocks[0].mixer.out_proj, model.lm_head):
        assert isinstance(layer, QuantizedLinear)
        assert layer.weight.bits == bits
    # All else is as it was.
    names = ("conv1d", "norm", "A_log", "mixer.D", "dt_bias", "embeddings")
    for name, tensor in codestral.state_dict().items():
        if any(part in name for part in names):
            assert torch.equal(model.state_dict()[name], tensor), name
    plain = load_model(directories[layout])
    check_same_logits(model, dequantized(model, plain))
    # Quantizing has changed something, and not much.
    changed = (model.logits(torch.ones(256)) - codestral.logits(torch.ones(256))).abs().max()
    assert 1e-4 < changed < {"int8": 0.5, "int4": 5}[kind]


@every_kind
def test_tied_embeddings_are_one_matrix_of_8_bits(
    tiny_model: Callable[..., Mamba2],
    save_checkpoint: Callable[[Mamba2, Path], Path],
    tmp_path: Path,
    kind: str,
) -> None:
    tied = tiny_model(4, **{**CODESTRAL, "tie_embeddings": True, "ngroups": 2})
    directory = save_checkpoint(tied, tmp_path)
    model = load_model(directory, quantize=KINDS[kind])
    embeddings = model.backbone.embeddings
    assert isinstance(embeddings, QuantizedEmbedding)
    assert embeddings.weight.bits == 8
    assert model.lm_head is None
    check_same_logits(model, dequantized(model, load_model(directory)))


def test_bfloat16_in_a_file_and_in_the_model(codestral: Mamba2, tmp_path: Path) -> None:
    """Scales are of the weights as stored; activations are of the dtype asked for."""
    weights = {name: tensor.bfloat16() for name, tensor in codestral.state_dict().items()}
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(codestral.config.to_hugging_face()))
    model = load_model(tmp_path, quantize=KINDS["int8"])
    assert model.dtype == torch.bfloat16
    in_proj = model.blocks[0].mixer.in_proj
    assert isinstance(in_proj, QuantizedLinear)
    assert in_proj.scales.dtype == torch.float32
    stored = weights["backbone.layers.0.mixer.in_proj.weight"].float()
    assert torch.equal(in_proj.weight.scales, stored.abs().amax(-1) / 127)
    tokens = torch.arange(9)[None]
    hidden, _ = model.prefill(tokens)
    assert hidden.dtype == torch.bfloat16
    expected, _ = dequantized(model, load_model(tmp_path, dtype=torch.float32)).prefill(tokens)
    assert (hidden - expected).abs().max() < 0.05 * expected.abs().max()


def test_one_weight_at_a_time(directories: dict[str, Path], monkeypatch: Any) -> None:
    """What was quantized is let go of before the next weight is read."""
    alive: list[weakref.ref[torch.Tensor]] = []
    apply = Quantization.apply

    def watched(self: Quantization, weight: torch.Tensor) -> Any:
        assert [ref for ref in alive if ref() is not None] == []
        alive.append(weakref.ref(weight))
        return apply(self, weight)

    monkeypatch.setattr(Quantization, "apply", watched)
    load_model(directories["huggingface"], quantize=KINDS["int8"])
    assert len(alive) == 2 * 2 + 1


# Stored


@every_kind
@pytest.mark.parametrize("layout", ["huggingface", "mistral"])
def test_stored_is_what_was_quantized(
    directories: dict[str, Path],
    layout: str,
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, target = directories[layout], tmp_path / "quantized"
    # Two layers come to more than one file.
    monkeypatch.setattr("engine.quantized_checkpoint.SHARD_BYTES", 2**20)
    (source / "tokenizer.model.v3").write_bytes(b"pieces")
    (source / "keystate.json").write_text("{}")
    (source / "notes.txt").touch()
    write_quantized(source, target, KINDS[kind])
    made = load_model(source, quantize=KINDS[kind])
    stored = load_model(target)
    assert stored.config == made.config
    weights = stored.state_dict()
    for name, tensor in made.state_dict().items():
        assert weights[name].dtype == tensor.dtype
        assert torch.equal(weights[name], tensor), name
    assert len(list(target.glob("model-0000?-of-0000?.safetensors"))) > 1
    others = {path.name for path in target.iterdir() if path.suffix != ".safetensors"}
    assert others == {"config.json", "tokenizer.model.v3", "keystate.json"}
    # Asking for what it is changes nothing.
    assert load_model(target, quantize=KINDS[kind]).config == made.config


def test_config_goes_there_and_back() -> None:
    for quantization in (None, *KINDS.values(), Quantization(bits=4, group_size=64)):
        config = Mamba2Config(**CODESTRAL, n_layers=2, quantization=quantization)
        assert Mamba2Config.from_hugging_face(config.to_hugging_face()) == config
    assert [KINDS["int4"].name, Quantization(bits=4).name] == ["int4", "int4-128-symmetric"]


def test_inspect_counts_weights_and_not_bytes(directories: dict[str, Path], tmp_path: Path) -> None:
    write_quantized(directories["mistral"], tmp_path, KINDS["int4"])
    described, original = inspect(tmp_path), inspect(directories["mistral"])
    assert described["parameters"] == original["parameters"]
    assert described["state_bytes"] == original["state_bytes"]
    assert described["config"].pop("quantization") == {
        "bits": 4,
        "group_size": 128,
        "symmetric": False,
    }
    assert original["config"].pop("quantization") is None
    assert described["config"] == original["config"]


def test_names_that_take_no_torch() -> None:
    assert tuple(KINDS) == QUANTIZATIONS


# What cannot be


def error_of(load: Callable[[], object]) -> str:
    with pytest.raises(CheckpointError) as caught:
        load()
    return str(caught.value)


def test_quantized_twice(directories: dict[str, Path], tmp_path: Path) -> None:
    write_quantized(directories["huggingface"], tmp_path / "one", KINDS["int8"])
    message = error_of(lambda: load_model(tmp_path / "one", quantize=KINDS["int4"]))
    assert "found weights that are int8 already" in message
    assert "Use the checkpoint that it was quantized from" in message
    message = error_of(lambda: write_quantized(tmp_path / "one", tmp_path / "two", KINDS["int4"]))
    assert "int8 already" in message
    assert not (tmp_path / "two").exists()
    message = error_of(
        lambda: write_quantized(directories["mistral"], tmp_path / "one", KINDS["int8"])
    )
    assert "expected a directory that is empty, or none yet" in message


class Stopped(BaseException):
    """As when the process is interrupted."""


def bare_copy(source: Path, target: Path) -> Path:
    """Copy the weights and the config alone."""
    target.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(source / name, target)
    return target


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("where", ["weights", "beside", "config"])
def test_half_a_model_is_not_left_behind(
    directories: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_there: bool,
    where: str,
) -> None:
    source = bare_copy(directories["huggingface"], tmp_path / "source")
    (source / "keystate.json").write_text("{}")
    out = tmp_path / "out"
    if is_there:
        out.mkdir()
    target = {"weights": "save_file", "beside": "shutil.copyfile", "config": "json.dumps"}[where]

    def stop(*_: object, **__: object) -> None:
        # What is there of it now is not a model either, should the machine stop here.
        error_of(lambda: load_model(out))
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(f"engine.quantized_checkpoint.{target}", stop)
        with pytest.raises(Stopped):
            write_quantized(source, out, KINDS["int8"])
    assert out.exists() == is_there
    assert not is_there or not list(out.iterdir())
    # What a run leaves that was killed is in nobody's way.
    (out / PART).mkdir(parents=True)
    (out / PART / "config.json").touch()
    write_quantized(source, out, KINDS["int8"])
    assert {file.name for file in out.iterdir()} == {file.name for file in source.iterdir()}


def test_a_model_is_one_once_all_of_it_is_there(
    directories: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = bare_copy(directories["huggingface"], tmp_path / "source")
    for name in ("copying.json", "keystate.json", "tokenizer.model"):
        (source / name).touch()
    move, moved = Path.rename, []

    def watched(file: Path, to: Path) -> Path:
        error_of(lambda: load_model(to.parent))
        moved.append(to.name)
        return move(file, to)

    monkeypatch.setattr(Path, "rename", watched)
    write_quantized(source, tmp_path / "out", KINDS["int8"])
    assert moved[-1] == "config.json"
    assert set(moved) == {file.name for file in source.iterdir()}
    load_model(tmp_path / "out")


def test_weights_that_do_not_fit_on_the_disk(directories: dict[str, Path], tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    _, most = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, most))
    try:
        with pytest.raises(OSError, match=r"model\.safetensors: .*too large"):
            write_quantized(directories["huggingface"], tmp_path / "out", KINDS["int8"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert not list(tmp_path.iterdir())


def test_a_width_that_cannot_be_cut(
    tiny_model: Callable[..., Mamba2],
    save_checkpoint: Callable[[Mamba2, Path], Path],
    tmp_path: Path,
) -> None:
    directory = save_checkpoint(tiny_model(0, d_model=192), tmp_path)
    message = error_of(lambda: load_model(directory, quantize=KINDS["int4"]))
    assert "d_model is 192, expected a multiple of 128 for int4: quantize to int8" in message
    load_model(directory, quantize=KINDS["int8"])


def test_weights_that_are_not_finite_are_named(
    tiny_model: Callable[..., Mamba2],
    save_checkpoint: Callable[[Mamba2, Path], Path],
    tmp_path: Path,
) -> None:
    model = tiny_model()
    model.state_dict()["backbone.layers.1.mixer.out_proj.weight"][3, 5] = torch.nan
    directory = save_checkpoint(model, tmp_path)
    message = error_of(lambda: load_model(directory, quantize=KINDS["int8"]))
    assert "tensor backbone.layers.1.mixer.out_proj.weight" in message
    assert "not finite" in message


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"quant_method": "gptq", "bits": 4}, "quant_method is 'gptq', expected 'keystate'"),
        ("int8", "quantization_config is 'int8', expected an object"),
        ({"quant_method": "keystate"}, "no bits in it"),
        ({"quant_method": "keystate", "bits": 4, "damp": 1}, "'damp' in it"),
        ({"quant_method": "keystate", "bits": 2}, "bits is 2, expected 8 or 4"),
        ({"quant_method": "keystate", "bits": True}, "bits is True"),
        ({"quant_method": "keystate", "bits": 8, "symmetric": False}, "symmetric is False"),
        ({"quant_method": "keystate", "bits": 4, "symmetric": "no"}, "symmetric is 'no'"),
        ({"quant_method": "keystate", "bits": 4, "group_size": 7}, "group_size is 7"),
        ({"quant_method": "keystate", "bits": 4, "group_size": "all"}, "group_size is 'all'"),
        ({"quant_method": "keystate", "bits": 4, "group_size": 96}, "d_model is 256"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_configs_that_say_something_else(
    directories: dict[str, Path], tmp_path: Path, content: object, found: str
) -> None:
    write_quantized(directories["huggingface"], tmp_path, KINDS["int4"])
    file = tmp_path / "config.json"
    config = {**json.loads(file.read_text()), "quantization_config": content}
    file.write_text(json.dumps(config))
    message = error_of(lambda: load_model(tmp_path))
    assert str(file) in message
    assert found in message


def test_a_config_that_belongs_to_other_weights(
    directories: dict[str, Path], tmp_path: Path
) -> None:
    write_quantized(directories["huggingface"], tmp_path, KINDS["int8"])
    file = tmp_path / "config.json"
    quantized = file.read_text()
    file.write_text((directories["huggingface"] / "config.json").read_text())
    assert "no such tensor" in error_of(lambda: load_model(tmp_path))
    # Integers in the place of the scales.
    file.write_text(quantized)
    weights = load_file(tmp_path / "model.safetensors")
    name = "backbone.layers.0.mixer.in_proj.scales"
    save_file({**weights, name: weights[name].to(torch.int8)}, tmp_path / "model.safetensors")
    message = error_of(lambda: load_model(tmp_path))
    assert f"tensor {name}: expected floating point numbers, found I8" in message


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match="quantize is 'int5', expected int8 or int4"):
        Engine.load(quantize="int5")


# Engines


def test_answers_are_exact_for_the_model_that_gives_them(
    new_session: Callable[..., Session], tiny_model: Callable[..., Mamba2], tokenizer: Any
) -> None:
    """Kept states, and the short pass beside the prefill, change nothing about them."""
    plain = endless(tiny_model(vocab_size=tokenizer.n_vocab + N_PADDED), tokenizer)
    model = quantized(plain, KINDS["int8"])
    session = new_session(model)
    for request in (ask(), ask(), ask(explicit=True)):
        completion = session.complete(request)
        assert completion.token_ids
        check(session, request, completion)


def quantized(plain: Mamba2, kind: Quantization) -> Mamba2:
    """A quantized copy of a model in memory."""
    model = Mamba2(replace(plain.config, quantization=kind))
    weights = dict(plain.state_dict())
    for name, layer in model.named_modules():
        if isinstance(layer, QuantizedLinear):
            made = layer.kind.apply(weights.pop(f"{name}.weight"))
            weights |= {f"{name}.{part}": tensor for part, tensor in made.tensors.items()}
    model.load_state_dict(weights)
    return model.requires_grad_(False).eval()


def test_states_of_one_quantization_are_no_others(
    directories: dict[str, Path], tmp_path: Path
) -> None:
    directory = directories["huggingface"]
    saved = [
        SavedStates.of_model(
            tmp_path, directory, dtype=torch.float32, quantization=kind, int8_states=int8_states
        )
        for kind in (None, *KINDS.values(), Quantization(bits=4))
        for int8_states in (False, True)
    ]
    assert len({one.folder for one in saved}) == len({one.model_id for one in saved}) == len(saved)


def test_the_engine_keeps_states_by_quantization(tmp_path: Path) -> None:
    folders = set()
    for kind in (None, *KINDS):
        engine = Engine.load(device="cpu", states_folder=tmp_path, quantize=kind)
        saved = engine._saving.states
        assert saved is not None
        folders.add(saved.folder)
        found = engine.model.config.quantization
        assert found == (None if kind is None else KINDS[kind])
    assert len(folders) == 3
