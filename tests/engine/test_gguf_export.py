"""Exported GGUF files, read back with the package that llama.cpp's makers publish."""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from engine.gguf_export import export_gguf
from engine.safetensors_header import CheckpointError
from engine.tokenizer import Tokenizer
from lsp_server.cli import main
from perf.tiny_world import N_PADDED, train_tiny_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from engine.mamba2 import Mamba2

NAMES = gguf.get_tensor_name_map(gguf.MODEL_ARCH.MAMBA2, 2)
MATRICES = ("token_embd.weight", "output.weight", "ssm_in.weight", "ssm_out.weight")


@pytest.fixture(scope="module")
def make_checkpoint(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Callable[..., Mamba2],
    save_checkpoint: Callable[[Mamba2, Path], Path],
) -> Callable[..., tuple[Path, Mamba2]]:
    """`make_checkpoint(dummy_prefix=False, **config)`: a folder with model and tokenizer."""

    def make(*, dummy_prefix: bool = False, **config: Any) -> tuple[Path, Mamba2]:
        folder = tmp_path_factory.mktemp("checkpoint")
        train_tiny_tokenizer(folder, dummy_prefix=dummy_prefix)
        n_vocab = Tokenizer.load(folder).n_vocab + N_PADDED
        model = tiny_model(**{"vocab_size": n_vocab, "tie_embeddings": True, **config})
        return save_checkpoint(model, folder), model

    return make


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give a file's tensors by name, and its fields."""
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    return {tensor.name: tensor for tensor in reader.tensors}, fields


def gguf_name(name: str) -> str:
    """Give the name that the makers' own converter has for a parameter."""
    known = NAMES.get_name(name.replace("dt_bias", "dt_proj.bias"), (".weight", ".bias"))
    assert known is not None, name
    return known


def wanted(name: str, parameter: torch.Tensor, ngroups: int) -> NDArray[np.float32]:
    """Give what stands in the file for a parameter: llama.cpp's shapes, and -exp(A_log)."""
    values = parameter.float()
    if name.endswith("A_log"):
        values = -torch.exp(values)
    if name.endswith(("A_log", "mixer.D")):
        values = values[:, None]
    if name.endswith("mixer.norm.weight"):
        values = values.reshape(ngroups, -1)
    if name.endswith("conv1d.weight"):
        values = values[:, 0]
    array: NDArray[np.float32] = values.numpy()
    return array


@pytest.mark.parametrize("config", [{}, {"tie_embeddings": False, "ngroups": 4}], ids=str)
def test_every_tensor_comes_back_as_it_was(
    config: dict[str, Any], make_checkpoint: Callable[..., tuple[Path, Mamba2]], tmp_path: Path
) -> None:
    folder, model = make_checkpoint(**config)
    export_gguf(folder, tmp_path / "model.gguf")
    tensors, _ = read(tmp_path / "model.gguf")
    parameters = dict(model.named_parameters())
    assert {gguf_name(name) for name in parameters} == set(tensors)
    for name, parameter in parameters.items():
        np.testing.assert_array_equal(
            tensors[gguf_name(name)].data, wanted(name, parameter, model.config.ngroups), name
        )


def test_a_model_without_convolution_bias_gets_zeros(
    make_checkpoint: Callable[..., tuple[Path, Mamba2]], tmp_path: Path
) -> None:
    folder, model = make_checkpoint(conv_bias=False)
    export_gguf(folder, tmp_path / "model.gguf")
    tensors, _ = read(tmp_path / "model.gguf")
    biases = [tensors[f"blk.{layer}.ssm_conv1d.bias"].data for layer in range(2)]
    assert [bias.shape for bias in biases] == [(model.config.conv_dim,)] * 2
    assert not np.any(biases)


def test_q8_0_rounds_the_matrices_alone(
    make_checkpoint: Callable[..., tuple[Path, Mamba2]], tmp_path: Path
) -> None:
    folder, model = make_checkpoint()
    shares: list[float] = []
    export_gguf(folder, tmp_path / "model.gguf", type="q8_0", on_share=shares.append)
    tensors, fields = read(tmp_path / "model.gguf")
    assert fields["general.file_type"] == gguf.LlamaFileType.MOSTLY_Q8_0
    assert len(shares) == len(tensors)
    assert shares[-1] == 1
    for name, parameter in model.named_parameters():
        tensor = tensors[gguf_name(name)]
        exact = wanted(name, parameter, model.config.ngroups)
        if not tensor.name.endswith(MATRICES):
            np.testing.assert_array_equal(tensor.data, exact, name)
            continue
        assert tensor.tensor_type == gguf.GGMLQuantizationType.Q8_0
        rounded = gguf.dequantize(tensor.data, tensor.tensor_type)
        # Half a step of a block's scale, which float16 rounds once more.
        step = np.abs(exact.reshape(-1, 32)).max(axis=1, keepdims=True) / 127
        assert (np.abs(rounded - exact).reshape(-1, 32) <= 0.57 * step).all(), name
        assert not np.array_equal(rounded, exact)


@pytest.mark.parametrize("dummy_prefix", [False, True])
def test_sizes_and_vocabulary_are_the_model_s(
    dummy_prefix: bool, make_checkpoint: Callable[..., tuple[Path, Mamba2]], tmp_path: Path
) -> None:
    folder, model = make_checkpoint(dummy_prefix=dummy_prefix)
    export_gguf(folder, tmp_path / "model.gguf")
    _, fields = read(tmp_path / "model.gguf")
    config, tokenizer = model.config, Tokenizer.load(folder)
    assert fields["general.architecture"] == "mamba2"
    sizes = {
        "embedding_length": config.d_model,
        "block_count": config.n_layers,
        "ssm.conv_kernel": config.d_conv,
        "ssm.inner_size": config.d_inner,
        "ssm.state_size": config.d_state,
        "ssm.time_step_rank": config.nheads,
        "ssm.group_count": config.ngroups,
        "attention.layer_norm_rms_epsilon": np.float32(config.norm_eps),
    }
    assert {name: fields[f"mamba2.{name}"] for name in sizes} == sizes

    def of_tokenizer(name: str) -> Any:
        return fields[f"tokenizer.ggml.{name}"]

    n_vocab = tokenizer.n_vocab
    assert of_tokenizer("model") == "llama"
    assert len(of_tokenizer("tokens")) == len(of_tokenizer("scores")) == config.vocab_size
    assert of_tokenizer("tokens")[:n_vocab] == [piece.text for piece in tokenizer.vocabulary()]
    kinds = [gguf.TokenType(kind) for kind in of_tokenizer("token_type")]
    assert kinds[n_vocab:] == [gguf.TokenType.UNUSED] * N_PADDED
    assert kinds.count(gguf.TokenType.BYTE) == 256
    controls = [i for i, kind in enumerate(kinds) if kind == gguf.TokenType.CONTROL]
    specials = [tokenizer.bos_id, tokenizer.eos_id, tokenizer.prefix_id, tokenizer.suffix_id]
    assert {*specials, tokenizer.middle_id} == set(controls)
    scores = of_tokenizer("scores")
    normal = [i for i, kind in enumerate(kinds) if kind == gguf.TokenType.NORMAL]
    # Merges that were learned earlier come first.
    assert scores[normal[0]] == max(scores[i] for i in normal) > scores[normal[-1]]
    named = ("bos", "eos", "fim_pre", "fim_suf", "fim_mid")
    ids = [of_tokenizer(f"{name}_token_id") for name in named]
    assert ids == [*specials, tokenizer.middle_id]
    assert of_tokenizer("add_space_prefix") is dummy_prefix
    assert not of_tokenizer("add_bos_token")


def test_what_llama_cpp_cannot_run_is_refused(
    make_checkpoint: Callable[..., tuple[Path, Mamba2]], tmp_path: Path
) -> None:
    limited, _ = make_checkpoint(dt_limit=(0.0, 0.5))
    with pytest.raises(ValueError, match="dt_limit is"):
        export_gguf(limited, tmp_path / "model.gguf")
    narrow, _ = make_checkpoint(d_model=48)
    with pytest.raises(ValueError, match="multiple of 32: export it as f32"):
        export_gguf(narrow, tmp_path / "model.gguf", type="q8_0")
    with pytest.raises(ValueError, match="type is 'q4'"):
        export_gguf(narrow, tmp_path / "model.gguf", type="q4")
    assert not list(tmp_path.iterdir())


def test_half_a_file_is_not_left_behind(
    make_checkpoint: Callable[..., tuple[Path, Mamba2]], tmp_path: Path
) -> None:
    folder, _ = make_checkpoint()

    def stop(share: float) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_gguf(folder, tmp_path / "model.gguf", on_share=stop)
    assert not list(tmp_path.iterdir())
    # Nor does it take the place of a whole one; and a link to that stays a link.
    whole, link = tmp_path / "whole.gguf", tmp_path / "link.gguf"
    export_gguf(folder, whole)
    link.symlink_to(whole)
    content = whole.read_bytes()
    for out in (whole, link):
        with pytest.raises(KeyboardInterrupt):
            export_gguf(folder, out, on_share=stop)
        assert whole.read_bytes() == content
    whole.write_bytes(b"older")
    export_gguf(folder, link)
    assert whole.read_bytes() == content
    assert link.is_symlink()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_leaves_the_older_file(
    make_checkpoint: Callable[..., tuple[Path, Mamba2]], tmp_path: Path
) -> None:
    resource = pytest.importorskip("resource")
    folder, _ = make_checkpoint()
    out = tmp_path / "model.gguf"
    out.write_bytes(b"older")
    _, most = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # Before all of it, and a part of what Python has not written yet.
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, most))
    try:
        with pytest.raises(OSError, match=r"written|too large"):
            export_gguf(folder, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert out.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [out]


def test_what_is_not_a_file_is_not_replaced(
    make_checkpoint: Callable[..., tuple[Path, Mamba2]], tmp_path: Path
) -> None:
    folder, _ = make_checkpoint()
    out = tmp_path / "model.gguf"
    out.mkdir()
    with pytest.raises(ValueError, match=r"model\.gguf is not a file"):
        export_gguf(folder, out)
    assert list(tmp_path.iterdir()) == [out]


def _cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 100)


def _overlap(file: Path) -> None:
    """Have a tensor begin inside the one before it."""
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    entry = next(entry for entry in header.values() if entry.get("data_offsets", [0])[0])
    entry["data_offsets"][0] -= 4
    changed = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(changed)) + changed + content[8 + length :])


@pytest.mark.parametrize(
    ("damage", "found"), [(_cut, "it is truncated"), (_overlap, "expected a safetensors file")]
)
def test_damaged_weights_are_named(
    make_checkpoint: Callable[..., tuple[Path, Mamba2]],
    tmp_path: Path,
    damage: Callable[[Path], None],
    found: str,
) -> None:
    folder, _ = make_checkpoint()
    damage(folder / "model.safetensors")
    out = tmp_path / "model.gguf"
    out.write_bytes(b"older")
    with pytest.raises(CheckpointError, match=f"model.safetensors.*{found}"):
        export_gguf(folder, out)
    assert out.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [out]


def test_a_tokenizer_of_other_weights(
    make_checkpoint: Callable[..., tuple[Path, Mamba2]], tmp_path: Path
) -> None:
    folder, _ = make_checkpoint(vocab_size=64)
    with pytest.raises(ValueError, match="vocabulary 64: expected a tokenizer that belongs"):
        export_gguf(folder, tmp_path / "model.gguf")
    assert not list(tmp_path.iterdir())


def test_the_command_writes_the_file_or_names_what_is_missing(
    make_checkpoint: Callable[..., tuple[Path, Mamba2]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, _ = make_checkpoint()
    arguments = ["export", "--gguf", str(tmp_path / "model.gguf"), "--model", str(folder)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert read(tmp_path / "model.gguf")[1]["general.architecture"] == "mamba2"
    monkeypatch.setitem(sys.modules, "gguf", None)
    failed = CliRunner().invoke(main, arguments)
    assert failed.exit_code == 2
    assert "pip install 'keystate[peers]'" in failed.output
