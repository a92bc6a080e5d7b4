"""Laying out a model's weights for a pass: each byte is read once, in order.

Rows of a matrix go in groups of `GROUP`: word by word, the whole group side by side. A word is 32
bits: a float32, two bfloat16 or four int8 of one row, the first in the lowest bits. Padded to whole
groups and words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from kernels.cpu_pass.products import HAS_BYTE_SUMS
from kernels.cpu_pass.vectors import GROUP
from kernels.quantized_linear import QuantizedWeight

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

CACHE_LINE_BYTES, WORD_BYTES = 64, 4


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerWeights:
    """What a layer multiplies with: matrices (rows, inputs), conv (conv_dim, d_conv), and vectors.

    A (nheads,) is negative; conv_bias is None where there is none.
    """

    norm: Tensor
    in_proj: Tensor | QuantizedWeight
    conv: Tensor
    conv_bias: Tensor | None
    A: Tensor
    D: Tensor
    dt_bias: Tensor
    gate_norm: Tensor
    out_proj: Tensor | QuantizedWeight


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelWeights:
    """What a pass reads of a model; embeddings (vocabulary, d_model)."""

    embeddings: Tensor | QuantizedWeight
    layers: Sequence[LayerWeights]
    norm_f: Tensor
    head: Tensor | QuantizedWeight
    ngroups: int
    d_state: int
    norm_eps: float
    dt_limit: tuple[float, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedWeights:
    """The same, laid out. `small` (layers + 1, values): all that is no matrix, layer by layer.

    A layer's values are norm, gate_norm, A, D, dt_bias, conv_bias, conv (d_conv, conv_dim); the
    last row is norm_f. limits: norm_eps, and dt's bounds. embeddings: float32, shared with the
    model's where they are.
    """

    kind: torch.dtype
    embeddings: Tensor
    in_proj: PackedRows
    out_proj: PackedRows
    head: PackedRows
    small: Tensor
    limits: Tensor

    @property
    def n_bytes(self) -> int:
        """Give the bytes that every pass reads."""
        return self.small.nbytes + sum(
            rows.n_bytes for rows in (self.in_proj, self.out_proj, self.head)
        )


@dataclass(frozen=True, eq=False)
class PackedRows:
    """Matrices of one shape, one behind the other.

    words: int32; scales (matrices, rows) float32 of int8 rows, none otherwise.
    """

    words: Tensor
    scales: Tensor

    @property
    def n_bytes(self) -> int:
        """Give the bytes of all of them."""
        return self.words.nbytes + self.scales.nbytes


def narrowest(weights: ModelWeights) -> torch.dtype | None:
    """Give the narrowest type that keeps every matrix as it is: int8, bfloat16 or float32.

    None where there is none, as for 4-bit weights.
    """
    matrices = [weights.head]
    for layer in weights.layers:
        matrices += layer.in_proj, layer.out_proj
    plain = [matrix for matrix in matrices if not isinstance(matrix, QuantizedWeight)]
    if len(plain) == len(matrices):
        return torch.bfloat16 if all(map(_is_bfloat16, plain)) else torch.float32
    quantized = [matrix for matrix in matrices if isinstance(matrix, QuantizedWeight)]
    is_int8 = not plain and all(matrix.bits == 8 for matrix in quantized)
    return torch.int8 if is_int8 else None


def pack(weights: ModelWeights, kind: torch.dtype) -> PackedWeights:
    """Lay a model out, its matrices as float32, as bfloat16 or as int8 (which they must be)."""
    layers = weights.layers
    small = [
        torch.cat(
            [
                layer.norm,
                layer.gate_norm,
                layer.A,
                layer.D,
                layer.dt_bias,
                torch.zeros(len(layer.conv)) if layer.conv_bias is None else layer.conv_bias,
                layer.conv.t().flatten(),
            ]
        )
        for layer in layers
    ]
    width = max(len(values) for values in [*small, weights.norm_f])
    rows = [F.pad(values.float(), (0, width - len(values))) for values in [*small, weights.norm_f]]
    embeddings = weights.embeddings
    if isinstance(embeddings, QuantizedWeight):
        embeddings = embeddings.dequantize()
    return PackedWeights(
        kind=kind,
        embeddings=embeddings.float().contiguous(),
        in_proj=_pack([layer.in_proj for layer in layers], kind),
        out_proj=_pack([layer.out_proj for layer in layers], kind),
        head=_pack([weights.head], kind),
        small=torch.stack(rows),
        limits=torch.tensor([weights.norm_eps, *weights.dt_limit], dtype=torch.float32),
    )


def _is_bfloat16(matrix: Tensor) -> bool:
    bits = matrix.float().contiguous().view(torch.int32)
    return not bool((bits & 0xFFFF).any())


def _pack(matrices: Sequence[Tensor | QuantizedWeight], kind: torch.dtype) -> PackedRows:
    n_rows, k = matrices[0].shape
    padding = (0, -k % (WORD_BYTES // kind.itemsize), 0, -n_rows % GROUP)
    scales = torch.zeros(len(matrices), n_rows + padding[3] if kind == torch.int8 else 0)
    packed = []
    for number, matrix in enumerate(matrices):
        if isinstance(matrix, QuantizedWeight):
            if kind == torch.int8:
                scales[number, :n_rows] = matrix.scales
                values = matrix.values
            else:
                values = matrix.dequantize()
        else:
            values = matrix.to(kind)
        groups = F.pad(values, padding).unflatten(0, (-1, GROUP)).contiguous()
        words = groups.view(torch.int32)  # (groups, GROUP, words of a row)
        if kind == torch.int8 and HAS_BYTE_SUMS:
            # Plus 128, in each byte.
            words = words ^ torch.tensor(-0x7F7F7F80, dtype=torch.int32)
        packed.append(words.transpose(1, 2).flatten())
    return PackedRows(aligned(torch.cat(packed)), scales)


def aligned(values: Tensor) -> Tensor:
    """Give a copy that begins at a cache line."""
    return aligned_room(len(values), values.dtype).copy_(values)


def aligned_room(n: int, dtype: torch.dtype) -> Tensor:
    """Give n uninitialized values that begin at a cache line."""
    room = torch.empty(n + CACHE_LINE_BYTES, dtype=dtype)
    start = -room.data_ptr() % CACHE_LINE_BYTES // room.element_size()
    return room[start : start + n]
