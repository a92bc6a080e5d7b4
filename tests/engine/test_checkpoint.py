"""Checkpoints in both layouts, whole, sharded and broken."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants, errors, utils
from safetensors.torch import load_file, save_file

from engine.checkpoint import CheckpointError, inspect, load_model, resolve_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from engine.mamba2 import Mamba2

# Shapes that params.json leaves unsaid, so that one model goes into both layouts.
SIZES: dict[str, Any] = {"d_model": 64, "headdim": 64, "d_state": 128, "vocab_size": 96}
PARAMS = {
    "dim": 64,
    "n_layers": 2,
    "vocab_size": 96,
    "n_groups": 2,
    "rms_norm": True,
    "residual_in_fp32": True,
    "fused_add_norm": True,
    "pad_vocab_size_multiple": 1,
    "tie_embeddings": False,
    "model_type": "mamba",
}
LAYOUTS = ("huggingface", "mistral")
STEMS = {"huggingface": "model", "mistral": "consolidated"}
NORM = {
    "huggingface": "backbone.layers.1.mixer.norm.weight",
    "mistral": "model.backbone.layers.1.mixer.norm.weight",
}


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Mamba2]) -> Mamba2:
    return tiny_model(5, **SIZES)


def stored(model: Mamba2, layout: str) -> dict[str, Tensor]:
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if layout == "huggingface":
        return weights
    return {f"model.{name.replace('embeddings', 'embedding')}": t for name, t in weights.items()}


def write_config(directory: Path, model: Mamba2, layout: str) -> None:
    directory.mkdir(exist_ok=True)
    if layout == "huggingface":
        (directory / "config.json").write_text(json.dumps(model.config.to_hugging_face()))
    else:
        tie = {"tie_embeddings": model.config.tie_embeddings}
        (directory / "params.json").write_text(json.dumps({**PARAMS, **tie}))


def write(
    directory: Path, model: Mamba2, layout: str, weights: dict[str, Tensor] | None = None
) -> Path:
    """Write a checkpoint in one file; `weights` replaces the model's own. Gives the file."""
    write_config(directory, model, layout)
    file = directory / f"{STEMS[layout]}.safetensors"
    save_file(stored(model, layout) if weights is None else weights, file)
    return file


def write_shards(directory: Path, model: Mamba2, layout: str, *, index: bool) -> None:
    write_config(directory, model, layout)
    names, weights = list(stored(model, layout)), stored(model, layout)
    weight_map = {}
    for i in range(3):
        file = f"{STEMS[layout]}-{i + 1:05}-of-00003.safetensors"
        save_file({name: weights[name] for name in names[i::3]}, directory / file)
        weight_map.update(dict.fromkeys(names[i::3], file))
    if index:
        content = {"metadata": {"total_size": 1}, "weight_map": weight_map}
        (directory / f"{STEMS[layout]}.safetensors.index.json").write_text(json.dumps(content))


def assert_same(found: Mamba2, expected: Mamba2) -> None:
    weights = found.state_dict()
    assert weights.keys() == expected.state_dict().keys()
    for name, tensor in expected.state_dict().items():
        assert torch.equal(weights[name], tensor), name
    assert found.config == expected.config
    assert not found.training
    assert not any(parameter.requires_grad for parameter in found.parameters())


def check_error(load: Callable[[Path], object], path: Path, *parts: str) -> str:
    """Loading fails, with a message that has every part."""
    with pytest.raises(CheckpointError) as caught:
        load(path)
    for part in parts:
        assert part in str(caught.value)
    return str(caught.value)


both_layouts = pytest.mark.parametrize("layout", LAYOUTS)
both_readers = pytest.mark.parametrize("read", [load_model, inspect])


# Whole checkpoints


@both_layouts
def test_one_file(tmp_path: Path, model: Mamba2, layout: str) -> None:
    write(tmp_path, model, layout)
    assert_same(load_model(tmp_path), model)


@both_layouts
@pytest.mark.parametrize("index", [True, False], ids=["index", "no_index"])
def test_shards(tmp_path: Path, model: Mamba2, layout: str, index: bool) -> None:
    write_shards(tmp_path, model, layout, index=index)
    assert_same(load_model(tmp_path), model)
    assert inspect(tmp_path)["layout"] == layout


def test_shards_that_the_index_does_not_name_are_left_alone(tmp_path: Path, model: Mamba2) -> None:
    write_shards(tmp_path, model, "huggingface", index=True)
    save_file({"another": torch.zeros(1)}, tmp_path / "model-old.safetensors")
    assert_same(load_model(tmp_path), model)


def test_both_layouts_in_one_directory(tmp_path: Path, model: Mamba2) -> None:
    write(tmp_path, model, "mistral")
    write(tmp_path, model, "huggingface")
    assert inspect(tmp_path)["layout"] == "huggingface"
    assert_same(load_model(tmp_path), model)


def test_whole_layout_beside_an_index_without_its_shards(tmp_path: Path, model: Mamba2) -> None:
    write(tmp_path, model, "mistral")
    write_config(tmp_path, model, "huggingface")
    index = {"weight_map": {NORM["huggingface"]: "model-00001-of-00001.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_same(load_model(tmp_path), model)


@both_layouts
def test_tied_embeddings(tmp_path: Path, tiny_model: Callable[..., Mamba2], layout: str) -> None:
    tied = tiny_model(6, tie_embeddings=True, **SIZES)
    weights = stored(tied, layout)
    assert not any("lm_head" in name for name in weights)
    write(tmp_path / "without", tied, layout)
    assert_same(load_model(tmp_path / "without"), tied)
    prefix = "model." if layout == "mistral" else ""
    head = next(t for name, t in weights.items() if "embedding" in name).clone()
    write(tmp_path / "with", tied, layout, {**weights, f"{prefix}lm_head.weight": head})
    assert_same(load_model(tmp_path / "with"), tied)
    n_parameters = sum(parameter.numel() for parameter in tied.parameters())
    for name in ("without", "with"):
        assert inspect(tmp_path / name)["parameters"] == n_parameters
    head[3, 5] += 1
    file = write(tmp_path / "other", tied, layout, {**weights, f"{prefix}lm_head.weight": head})
    check_error(load_model, file.parent, str(file), f"{prefix}lm_head.weight", "tied")


def test_no_conv_bias(tmp_path: Path, tiny_model: Callable[..., Mamba2]) -> None:
    without = tiny_model(conv_bias=False)
    write(tmp_path, without, "huggingface")
    assert_same(load_model(tmp_path), without)


def test_singular_embedding_name_in_hugging_face_files(tmp_path: Path, model: Mamba2) -> None:
    weights = {
        name.replace("embeddings", "embedding"): t
        for name, t in stored(model, "huggingface").items()
    }
    write(tmp_path, model, "huggingface", weights)
    assert_same(load_model(tmp_path), model)


@pytest.mark.parametrize(
    ("stored_as", "asked", "expected"),
    [
        (torch.bfloat16, None, torch.bfloat16),
        (torch.float32, None, torch.float32),
        (torch.float16, None, torch.float32),
        (torch.bfloat16, torch.float32, torch.float32),
        (torch.float32, torch.bfloat16, torch.bfloat16),
    ],
    ids=str,
)
def test_dtypes(
    tmp_path: Path,
    model: Mamba2,
    stored_as: torch.dtype,
    asked: torch.dtype | None,
    expected: torch.dtype,
) -> None:
    weights = {name: t.to(stored_as) for name, t in stored(model, "huggingface").items()}
    write(tmp_path, model, "huggingface", weights)
    loaded = load_model(tmp_path, dtype=asked)
    for name, parameter in loaded.named_parameters():
        recurrence = name.endswith(("A_log", "mixer.D", "dt_bias"))
        assert parameter.dtype == (torch.float32 if recurrence else expected), name
        assert torch.equal(parameter, weights[name].to(parameter.dtype)), name
    assert loaded.dtype == expected


def test_weights_do_not_follow_the_file(tmp_path: Path, model: Mamba2) -> None:
    file = write(tmp_path, model, "huggingface")
    loaded = load_model(tmp_path)
    with file.open("r+b") as opened:
        opened.write(b"\0" * file.stat().st_size)
    assert_same(loaded, model)


# inspect


@both_layouts
def test_inspect(tmp_path: Path, model: Mamba2, layout: str) -> None:
    weights = {name: t.bfloat16() for name, t in stored(model, layout).items()}
    write(tmp_path, model, layout, weights)
    found = inspect(tmp_path)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    assert (found["family"], found["layout"]) == ("mamba2", layout)
    assert found["parameters"] == n_parameters
    assert found["dtype"] == "bfloat16"
    config = {"d_model": 64, "n_layers": 2, "vocab_size": 96, "ngroups": 2, "d_state": 128}
    assert config.items() <= found["config"].items()
    assert found["config"]["dt_limit"] == [0.0, None]
    conv, ssm = 2 * 3 * (128 + 2 * 2 * 128) * 2, 2 * 2 * 64 * 128 * 4
    assert found["state_bytes"] == {"conv": conv, "ssm": ssm, "total": conv + ssm}


@both_layouts
def test_inspect_reads_headers_alone(tmp_path: Path, model: Mamba2, layout: str) -> None:
    file = write(tmp_path, model, layout)
    whole = inspect(tmp_path)
    cut_after_header(file)
    assert inspect(tmp_path) == whole


def cut_after_header(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: 8 + struct.unpack("<Q", content[:8])[0]])


# Broken checkpoints


@both_layouts
def test_truncated_weights(tmp_path: Path, model: Mamba2, layout: str) -> None:
    file = write(tmp_path, model, layout)
    size = file.stat().st_size
    for kept in (size - 1, size // 2):
        file.write_bytes(file.read_bytes()[:kept])
        message = check_error(load_model, tmp_path, str(file), "bytes", f"{kept} bytes")
        assert "truncated" in message
        assert "tensor " in message
        assert "Fetch the file again" in message
    cut_after_header(file)
    check_error(load_model, tmp_path, str(file), "truncated")


@both_readers
@pytest.mark.parametrize(
    ("n_bytes", "found"),
    [
        (0, "a header of 0 bytes"),
        (5, "a header of 0 bytes"),
        (8, "a header cut off after 0 of"),
        (100, "a header cut off after 92 of"),
    ],
)
def test_truncated_header(
    tmp_path: Path, model: Mamba2, read: Callable[[Path], object], n_bytes: int, found: str
) -> None:
    file = write(tmp_path, model, "huggingface")
    file.write_bytes(file.read_bytes()[:n_bytes])
    check_error(read, tmp_path, str(file), found, "Fetch the file again")


@both_readers
def test_no_safetensors_file_at_all(
    tmp_path: Path, model: Mamba2, read: Callable[[Path], object]
) -> None:
    file = write(tmp_path, model, "huggingface")
    file.write_bytes(b"PK\x03\x04 anything else")
    check_error(read, tmp_path, str(file), "a header of", "bytes")


@both_readers
@pytest.mark.parametrize(
    "header",
    [
        b"\xff\xfe{}",
        b"[1, 2]",
        b'{"a": 3}',
        b'{"a": {"dtype": "F32"}}',
        b'{"a": {"dtype": "F32", "shape": 3, "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": []}}',
        b'{"a": {"dtype": "F32", "shape": [1e999], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, Infinity]}}',
    ],
)
def test_broken_header(
    tmp_path: Path, model: Mamba2, read: Callable[[Path], object], header: bytes
) -> None:
    file = write(tmp_path, model, "huggingface")
    file.write_bytes(struct.pack("<Q", len(header)) + header)
    check_error(read, tmp_path, str(file), "a broken header")


def test_offsets_that_lie(tmp_path: Path, model: Mamba2) -> None:
    """Two tensors that claim the same bytes pass our checks; safetensors' own refuse them."""
    file = write(tmp_path, model, "huggingface")
    content = file.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    name = "backbone.layers.0.mixer.norm.weight"
    header[NORM["huggingface"]]["data_offsets"] = header[name]["data_offsets"]
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    check_error(load_model, tmp_path, str(file), "Fetch the file again")


@both_readers
def test_git_lfs_pointer(tmp_path: Path, model: Mamba2, read: Callable[[Path], object]) -> None:
    file = write(tmp_path, model, "huggingface")
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    check_error(read, tmp_path, str(file), "Git LFS pointer", "git lfs pull")


@both_layouts
@both_readers
def test_missing_tensor(
    tmp_path: Path, model: Mamba2, layout: str, read: Callable[[Path], object]
) -> None:
    weights = stored(model, layout)
    del weights[NORM[layout]]
    file = write(tmp_path, model, layout, weights)
    message = check_error(read, tmp_path, str(file), f"tensor {NORM[layout]}:", "shape [128]")
    assert "no such tensor." in message


@both_layouts
def test_missing_embedding_is_named_as_the_file_would(
    tmp_path: Path, model: Mamba2, layout: str
) -> None:
    weights = {name: t for name, t in stored(model, layout).items() if "embedding" not in name}
    write(tmp_path, model, layout, weights)
    name = "backbone.embeddings" if layout == "huggingface" else "model.backbone.embedding"
    check_error(load_model, tmp_path, f"tensor {name}.weight:", "shape [96, 64]")


def test_many_missing_tensors_are_counted(tmp_path: Path, model: Mamba2) -> None:
    weights = {name: t for name, t in stored(model, "huggingface").items() if "norm" not in name}
    write(tmp_path, model, "huggingface", weights)
    check_error(load_model, tmp_path, "no such tensor (and 4 more like it)")


def test_untied_without_head(tmp_path: Path, model: Mamba2) -> None:
    weights = stored(model, "huggingface")
    del weights["lm_head.weight"]
    write(tmp_path, model, "huggingface", weights)
    check_error(load_model, tmp_path, "tensor lm_head.weight:", "shape [96, 64]", "config.json")


@both_layouts
@both_readers
def test_extra_tensor(
    tmp_path: Path, model: Mamba2, layout: str, read: Callable[[Path], object]
) -> None:
    weights = stored(model, layout)
    name = NORM[layout].replace(".1.", ".2.")
    file = write(tmp_path, model, layout, {**weights, name: torch.zeros(7)})
    check_error(read, tmp_path, str(file), f"tensor {name}:", "no such tensor", "shape [7]")


@both_layouts
@both_readers
def test_wrong_shape(
    tmp_path: Path, model: Mamba2, layout: str, read: Callable[[Path], object]
) -> None:
    weights = stored(model, layout)
    weights[NORM[layout]] = torch.zeros(127)
    file = write(tmp_path, model, layout, weights)
    parts = (f"tensor {NORM[layout]}:", "expected shape [128]", "found shape [127]")
    check_error(read, tmp_path, str(file), *parts)


def test_wrong_shape_of_a_tied_head(tmp_path: Path, tiny_model: Callable[..., Mamba2]) -> None:
    tied = tiny_model(tie_embeddings=True)
    weights = {**stored(tied, "huggingface"), "lm_head.weight": torch.zeros(256, 63)}
    write(tmp_path, tied, "huggingface", weights)
    check_error(inspect, tmp_path, "lm_head.weight", "[256, 64]", "[256, 63]")


def test_quantized_tensor(tmp_path: Path, model: Mamba2) -> None:
    weights = stored(model, "huggingface")
    weights[NORM["huggingface"]] = torch.zeros(128, dtype=torch.int8)
    file = write(tmp_path, model, "huggingface", weights)
    check_error(load_model, tmp_path, str(file), NORM["huggingface"], "found I8", "not quantized")


def test_same_tensor_in_two_shards(tmp_path: Path, model: Mamba2) -> None:
    write_shards(tmp_path, model, "huggingface", index=False)
    first, second = (tmp_path / f"model-0000{i}-of-00003.safetensors" for i in (1, 2))
    both = load_file(first) | load_file(second)
    save_file(both, second)
    check_error(load_model, tmp_path, str(second), "every tensor once", first.name)


@both_layouts
@both_readers
@pytest.mark.parametrize("index", [True, False], ids=["index", "no_index"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_missing_shard(
    tmp_path: Path,
    model: Mamba2,
    layout: str,
    read: Callable[[Path], object],
    index: bool,
    number: int,
) -> None:
    write_shards(tmp_path, model, layout, index=index)
    file = tmp_path / f"{STEMS[layout]}-0000{number}-of-00003.safetensors"
    file.unlink()
    message = check_error(read, tmp_path, str(file), "no such file", "Fetch the missing file")
    assert ("tensor " in message) == index


def test_index_without_any_shard(tmp_path: Path, model: Mamba2) -> None:
    write_shards(tmp_path, model, "huggingface", index=True)
    for file in tmp_path.glob("*.safetensors"):
        file.unlink()
    check_error(load_model, tmp_path, "model-00001-of-00003.safetensors", "no such file")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ({"weight_map": {"a": "../model.safetensors"}}, "'../model.safetensors'"),
        ({"weight_map": {"a": 3}}, "found 3"),
        ({"weight_map": {}}, "weight_map"),
        ({"weight_map": ["a"]}, "weight_map"),
        ({}, "weight_map"),
        ([], "a JSON object"),
    ],
    ids=str,
)
def test_bad_index(tmp_path: Path, model: Mamba2, content: object, part: str) -> None:
    write(tmp_path, model, "huggingface")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps(content))
    check_error(load_model, tmp_path, str(index), part, "Fetch the file again")


@both_layouts
@both_readers
def test_missing_config(
    tmp_path: Path, model: Mamba2, layout: str, read: Callable[[Path], object]
) -> None:
    write(tmp_path, model, layout)
    config = tmp_path / ("config.json" if layout == "huggingface" else "params.json")
    config.unlink()
    check_error(read, tmp_path, str(config), "no such file", f"{STEMS[layout]}*.safetensors")


def test_a_home_that_nobody_has() -> None:
    with pytest.raises(CheckpointError, match="found neither"):
        resolve_model("~nobody-has-this-name/model")


def test_a_header_that_is_nested_without_end(tmp_path: Path, model: Mamba2) -> None:
    write(tmp_path, model, "huggingface")
    header = b"[" * 200_000
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    check_error(load_model, tmp_path, str(tmp_path / "model.safetensors"), "a broken header")


@pytest.mark.parametrize("text", ["{", "[]", "\0", "[" * 200_000], ids=lambda text: text[:2])
def test_config_that_is_no_object(tmp_path: Path, model: Mamba2, text: str) -> None:
    write(tmp_path, model, "huggingface")
    (tmp_path / "config.json").write_text(text)
    check_error(load_model, tmp_path, str(tmp_path / "config.json"), "a JSON object")


@both_layouts
@both_readers
def test_unknown_family(
    tmp_path: Path, model: Mamba2, layout: str, read: Callable[[Path], object]
) -> None:
    write(tmp_path, model, layout)
    config = tmp_path / ("config.json" if layout == "huggingface" else "params.json")
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": "llama"}))
    check_error(read, tmp_path, str(config), "model_type is 'llama'", "Use a Mamba-2 checkpoint")


def test_config_of_another_size(tmp_path: Path, model: Mamba2) -> None:
    file = write(tmp_path, model, "mistral")
    (tmp_path / "params.json").write_text(json.dumps({**PARAMS, "vocab_size": 64}))
    check_error(load_model, tmp_path, str(file), "shape [64, 64]", "shape [96, 64]", "params.json")


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


@both_readers
@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
def test_pickle_is_never_loaded(
    tmp_path: Path, model: Mamba2, read: Callable[[Path], object], name: str
) -> None:
    directory, target = tmp_path / "model", tmp_path / "exploded"
    write_config(directory, model, "huggingface")
    write_config(directory, model, "mistral")
    (directory / name).write_bytes(pickle.dumps(Bomb(target)))
    check_error(read, directory, str(directory / name), "a pickle, which is never loaded")
    write(directory, model, "huggingface")
    read(directory)
    (directory / "model.safetensors").write_bytes(pickle.dumps(Bomb(target)))
    check_error(read, directory, "model.safetensors")
    assert not target.exists()
    pickle.loads((directory / name).read_bytes())
    assert target.exists(), "the bomb is real"


@both_readers
def test_nothing_there(tmp_path: Path, read: Callable[[Path], object]) -> None:
    check_error(read, tmp_path, str(tmp_path), "consolidated*.safetensors", "no such file")
    check_error(read, tmp_path / "absent", str(tmp_path / "absent"), "found nothing")
    (tmp_path / "file").touch()
    check_error(read, tmp_path / "file", "found a file")


# resolve_model


def test_embedded_model_is_the_default() -> None:
    assert resolve_model(None).parts[-2:] == ("engine", "embedded")


def test_directory_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve_model(str(tmp_path)) == tmp_path
    assert resolve_model("owner/name") == Path("owner/name")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_model("~/owner") == tmp_path / "owner"


@pytest.mark.parametrize(
    "name", ["/absent/model", "./owner/name", "../name", "name", "a/b/c", "~/absent", "a b/c", ""]
)
def test_missing_path_is_not_asked_of_the_hub(name: str, hub: Hub) -> None:
    with pytest.raises(CheckpointError, match="expected a directory"):
        resolve_model(name)
    assert not hub.asked


def test_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(CheckpointError, match="found a file"):
        resolve_model(str(tmp_path / "model.safetensors"))


class Hub:
    """Stands in for the hub: gives a folder of those files that match the patterns."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: list[str] = []
        self.asked: list[str] = []
        self.error: Exception | None = None

    def snapshot_download(
        self, repo_id: str, *, allow_patterns: list[str], tqdm_class: object
    ) -> str:
        self.asked.append(repo_id)
        if self.error:
            raise self.error
        for name in utils.filter_repo_objects(self.files, allow_patterns=allow_patterns):
            (self.folder / name).touch()
        return str(self.folder)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    stand_in = Hub(tmp_path / "snapshot")
    stand_in.folder.mkdir()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", stand_in.snapshot_download)
    return stand_in


@pytest.mark.parametrize(
    ("files", "fetched"),
    [
        (
            ["config.json", "model.safetensors", "consolidated.safetensors", "tokenizer.model.v3"],
            {"config.json", "model.safetensors", "tokenizer.model.v3"},
        ),
        (
            ["params.json", "consolidated.safetensors", "tokenizer.model.v3", "README.md"],
            {"params.json", "consolidated.safetensors", "tokenizer.model.v3"},
        ),
        (
            ["config.json", "pytorch_model.bin", "model.pt", "modeling.py", "tokenizer.json"],
            {"config.json", "tokenizer.json"},
        ),
    ],
    ids=["both_layouts", "mistral", "pickle"],
)
def test_hub_id_fetches_one_layout(hub: Hub, files: list[str], fetched: set[str]) -> None:
    hub.files = files
    assert resolve_model("owner/some.model-7B_v1") == hub.folder
    assert {file.name for file in hub.folder.iterdir()} == fetched
    assert set(hub.asked) == {"owner/some.model-7B_v1"}


@pytest.mark.parametrize(
    "error",
    [
        errors.LocalEntryNotFoundError("offline, and not in the cache"),
        errors.OfflineModeIsEnabled("offline mode"),
        errors.HFValidationError("bad name"),
        ConnectionError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_hub_that_cannot_answer(hub: Hub, error: Exception) -> None:
    hub.error = error
    with pytest.raises(CheckpointError, match=r"owner/name: .*name a directory") as caught:
        resolve_model("owner/name")
    assert type(error).__name__ in str(caught.value)
    assert str(error) in str(caught.value)


def test_offline_hub_client_gives_our_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real client, told to stay offline, with an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="owner/name"):
        resolve_model("owner/name")
