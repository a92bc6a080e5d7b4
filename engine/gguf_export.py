"""Writes a checkpoint as GGUF, the file format of llama.cpp, so that the same weights run there.

Tensor names and shapes are those that llama.cpp reads for its architecture `mamba2`: `ssm_a` holds
-exp(A_log), `ssm_norm` one row a group. Needs the `gguf` package (extra `peers`).
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from engine.checkpoint import read_checkpoint
from engine.safetensors_header import check_complete, unreadable
from engine.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from engine.config import Mamba2Config
    from engine.safetensors_header import StoredTensor

GGUF_TYPES = ("f32", "q8_0")
REMEDY = "writing GGUF needs the gguf package: pip install 'keystate[peers]'"
# The reader wants a length, and a recurrent model has none.
CONTEXT_LENGTH = 2**20
_OF_MODEL = {
    "backbone.embeddings.weight": "token_embd.weight",
    "backbone.norm_f.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_OF_LAYER = {
    "norm.weight": "attn_norm.weight",
    "mixer.in_proj.weight": "ssm_in.weight",
    "mixer.conv1d.weight": "ssm_conv1d.weight",
    "mixer.conv1d.bias": "ssm_conv1d.bias",
    "mixer.dt_bias": "ssm_dt.bias",
    "mixer.A_log": "ssm_a",
    "mixer.D": "ssm_d",
    "mixer.norm.weight": "ssm_norm.weight",
    "mixer.out_proj.weight": "ssm_out.weight",
}
# What `type` is about; the rest is small and stays float32, as llama-quantize leaves it.
_MATRICES = ("token_embd.weight", "output.weight", "ssm_in.weight", "ssm_out.weight")


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A tensor to be written; without a source it is zeros."""

    name: str
    shape: tuple[int, ...]
    source: StoredTensor | None
    # A gguf.GGMLQuantizationType.
    kind: Any

    def values(self) -> NDArray[np.float32]:
        """Read the tensor as it stands in the GGUF file, before it is quantized."""
        if self.source is None:
            return np.zeros(self.shape, np.float32)
        try:
            with safe_open(self.source.file, framework="pt", device="cpu") as opened:
                tensor = opened.get_tensor(self.source.name).float()
        except SafetensorError as error:
            raise unreadable(self.source.file, str(error)) from error
        if self.name.endswith(".ssm_a"):
            tensor = -torch.exp(tensor)
        values: NDArray[np.float32] = tensor.reshape(self.shape).contiguous().numpy()
        return values


def export_gguf(
    path: Path, out: Path, *, type: str = "f32", on_share: Callable[[float], None] | None = None
) -> None:
    """Write the checkpoint in directory `path`, with its tokenizer, to the file `out`.

    A file that is there is replaced once the new one is whole: that is written beside it, with
    `.part` after its name. OSError where it cannot be written.
    `type` is that of the large matrices: "f32", or "q8_0" (int8 in blocks of 32 with one scale, as
    llama-quantize makes them). `on_share` hears the share that is written; one tensor at a time is
    held in memory. Raises CheckpointError, TokenizerError, ValueError for what llama.cpp
    cannot run, and ImportError without the gguf package.
    """
    try:
        import gguf
    except ImportError as error:
        raise ImportError(REMEDY) from error
    if type not in GGUF_TYPES:
        raise ValueError(f"type is {type!r}, expected one of {', '.join(GGUF_TYPES)}")
    checkpoint = read_checkpoint(path)
    config = checkpoint.config
    for stored in checkpoint.tensors.values():
        check_complete(stored.file, [stored])
    tokenizer = Tokenizer.load(path)
    tokenizer.check_fits(config.vocab_size)
    if config.quantization is not None:
        raise ValueError(f"{path} holds rounded weights: export the ones that they were made from")
    if config.dt_limit != (0.0, math.inf):
        raise ValueError(f"dt_limit is {config.dt_limit}: llama.cpp has none, expected 0 to inf")
    entries = [
        _entry(name, source, config, gguf.GGMLQuantizationType[type.upper()])
        for name, source in checkpoint.tensors.items()
    ]
    if not config.conv_bias:
        # llama.cpp knows no such model without one.
        entries += [
            _Entry(
                name=f"blk.{layer}.ssm_conv1d.bias",
                shape=(config.conv_dim,),
                source=None,
                kind=gguf.GGMLQuantizationType.F32,
            )
            for layer in range(config.n_layers)
        ]

    # A link stays one.
    out = out.resolve()
    if out.exists() and not out.is_file():
        raise ValueError(f"{out} is not a file, expected one to replace, or nothing")
    part = out.with_name(f"{out.name}.part")
    writer = gguf.GGUFWriter(part, "mamba2")
    file_type = {"f32": gguf.LlamaFileType.ALL_F32, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}[type]
    writer.add_name(path.name)
    writer.add_file_type(file_type)
    _add_sizes(writer, config)
    _add_vocabulary(writer, tokenizer, config.vocab_size)
    for entry in entries:
        n_block, n_block_bytes = gguf.GGML_QUANT_SIZES[entry.kind]
        n_bytes = math.prod(entry.shape) // n_block * n_block_bytes
        writer.add_tensor_info(
            entry.name, entry.shape, np.dtype(np.float32), n_bytes, raw_dtype=entry.kind
        )
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for n_written, entry in enumerate(entries, 1):
            writer.write_tensor_data(gguf.quants.quantize(entry.values(), entry.kind))
            if on_share is not None:
                on_share(n_written / len(entries))
        writer.close()
        part.replace(out)
    except BaseException:
        # What is left in its buffer may not fit either.
        with suppress(OSError):
            writer.close()
        part.unlink(missing_ok=True)
        raise


def gguf_name(name: str) -> str:
    """Give llama.cpp's name for a parameter of the module; KeyError for one that it has not."""
    if name in _OF_MODEL:
        return _OF_MODEL[name]
    layer, _, rest = name.removeprefix("backbone.layers.").partition(".")
    return f"blk.{layer}.{_OF_LAYER[rest]}"


def _entry(name: str, source: StoredTensor, config: Mamba2Config, matrix_kind: Any) -> _Entry:
    written = gguf_name(name)
    shape = source.shape
    if written.endswith("ssm_conv1d.weight"):
        shape = (config.conv_dim, config.d_conv)
    elif written.endswith((".ssm_a", ".ssm_d")):
        shape = (config.nheads, 1)
    elif written.endswith("ssm_norm.weight"):
        shape = (config.ngroups, config.d_inner // config.ngroups)
    kind = matrix_kind if written.endswith(_MATRICES) else _float32(matrix_kind)
    if kind is matrix_kind and kind.name != "F32" and shape[-1] % 32:
        raise ValueError(
            f"{name} has rows of {shape[-1]} numbers, expected a multiple of 32: export it as f32"
        )
    return _Entry(name=written, shape=shape, source=source, kind=kind)


def _float32(kind: Any) -> Any:
    return kind.__class__.F32


def _add_sizes(writer: Any, config: Mamba2Config) -> None:
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.n_layers)
    # Keys that every architecture has, of what this one has not.
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_ssm_conv_kernel(config.d_conv)
    writer.add_ssm_inner_size(config.d_inner)
    writer.add_ssm_state_size(config.d_state)
    # Of Mamba-2 the number of heads, in spite of its name.
    writer.add_ssm_time_step_rank(config.nheads)
    writer.add_ssm_group_count(config.ngroups)


def _add_vocabulary(writer: Any, tokenizer: Tokenizer, vocab_size: int) -> None:
    """Write pieces, scores and kinds, and which pieces are what; ids without a piece are unused."""
    import gguf

    vocabulary = tokenizer.vocabulary()
    kinds = {piece.kind for piece in vocabulary}
    assert kinds <= {kind.name.lower() for kind in gguf.TokenType}, kinds
    n_padded = vocab_size - len(vocabulary)
    padding = [f"[PAD{len(vocabulary) + i}]" for i in range(n_padded)]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([piece.text for piece in vocabulary] + padding)
    writer.add_token_scores([piece.score for piece in vocabulary] + [-1e4] * n_padded)
    writer.add_token_types(
        [int(gguf.TokenType[piece.kind.upper()]) for piece in vocabulary]
        + [int(gguf.TokenType.UNUSED)] * n_padded
    )
    writer.add_bos_token_id(tokenizer.bos_id)
    writer.add_eos_token_id(tokenizer.eos_id)
    # Prompts are whole as they are sent: nothing is to be put around them.
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(tokenizer.dummy_prefix)
    writer.add_uint32(gguf.Keys.Tokenizer.FIM_PRE_ID, tokenizer.prefix_id)
    writer.add_uint32(gguf.Keys.Tokenizer.FIM_SUF_ID, tokenizer.suffix_id)
    if tokenizer.middle_id is not None:
        writer.add_uint32(gguf.Keys.Tokenizer.FIM_MID_ID, tokenizer.middle_id)
