"""Which weights are kept as small integers, and the layers that multiply by them.

The projections and the vocabulary's head are; convolution, dt_bias, A_log, D and norms keep their
precision. Tied embeddings are one matrix, of 8 bits in any model: the lookup dequantizes the rows
that the head multiplies. With 4 bits they alone were 43 % of what the embedded model lost, and as
8 bits nothing (KL divergence from float32: 0.057, 0.032; 0.032 with the embeddings in float32).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from kernels.quantized_linear import GROUP_SIZE, QuantizedWeight, quantized_linear, shapes_of
from kernels.quantized_linear import quantize as quantize_weight

if TYPE_CHECKING:
    from torch import Tensor

METHOD = "keystate"


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """How weights are quantized: 8 bits an output channel, or 4 bits a group of inputs.

    group_size and symmetric (no zero points) are for 4 bits. Raises ValueError.
    """

    bits: int
    group_size: int = GROUP_SIZE
    symmetric: bool = True

    def __post_init__(self) -> None:
        """Check that such weights exist."""
        if self.bits not in (8, 4) or isinstance(self.bits, bool):
            raise ValueError(f"bits is {self.bits!r}, expected 8 or 4")
        if not isinstance(self.symmetric, bool) or (self.bits == 8 and not self.symmetric):
            raise ValueError(
                f"symmetric is {self.symmetric!r}, expected true, or false with 4 bits"
            )
        if isinstance(self.group_size, bool) or not isinstance(self.group_size, int):
            raise ValueError(f"group_size is {self.group_size!r}, expected a whole number")
        if self.group_size < 2 or self.group_size % 2:
            raise ValueError(f"group_size is {self.group_size}, expected an even number")

    @property
    def name(self) -> str:
        """Give a name for messages and files, such as "int4"."""
        return next((name for name, kind in KINDS.items() if kind == self), _long_name(self))

    @classmethod
    def named(cls, name: str) -> Quantization:
        """Give the quantization of a name that commands and settings use."""
        if name not in KINDS:
            raise ValueError(f"quantize is {name!r}, expected {' or '.join(KINDS)}")
        return KINDS[name]

    @classmethod
    def from_config(cls, content: object) -> Quantization:
        """Read a config's `quantization_config`; raises ValueError for those of other programs."""
        if not isinstance(content, Mapping):
            raise ValueError(f"quantization_config is {content!r}, expected an object")
        values = dict(content)
        method = values.pop("quant_method", None)
        if method != METHOD:
            raise ValueError(f"quant_method is {method!r}, expected {METHOD!r}: no other is known")
        unknown = sorted(values.keys() - {"bits", "group_size", "symmetric"})
        if unknown or "bits" not in values:
            found = f"{unknown[0]!r} in it" if unknown else "no bits in it"
            raise ValueError(
                f"quantization_config has {found}, expected bits, group_size, symmetric"
            )
        return cls(**values)

    def to_config(self) -> dict[str, Any]:
        """Give the content of a config's `quantization_config`."""
        return {"quant_method": METHOD, **asdict(self)}

    def check_width(self, name: str, width: int) -> None:
        """Raise ValueError where weights of this width cannot be cut into groups."""
        if self.bits == 4 and width % self.group_size:
            raise ValueError(
                f"{name} is {width}, expected a multiple of {self.group_size} for {self.name}:"
                " quantize to int8"
            )

    def apply(self, weight: Tensor) -> QuantizedWeight:
        """Quantize a weight (n_out, n_in); raises ValueError where that cannot be."""
        return quantize_weight(weight, self.bits, self.group_size, self.symmetric)


KINDS = {
    "int8": Quantization(bits=8),
    "int4": Quantization(bits=4, symmetric=False),
}
"""By the names that commands and settings use."""


def _long_name(kind: Quantization) -> str:
    symmetric = "symmetric" if kind.symmetric else "asymmetric"
    return f"int{kind.bits}-{kind.group_size}-{symmetric}"


class QuantizedLinear(nn.Module):
    """A quantized linear layer without bias; its buffers are values, scales and zero_points."""

    def __init__(self, n_in: int, n_out: int, kind: Quantization) -> None:
        """Make the buffers, without meaningful values."""
        super().__init__()
        self.kind = kind
        shapes = shapes_of((n_out, n_in), bits=kind.bits, group_size=kind.group_size)
        if kind.symmetric:
            shapes.pop("zero_points", None)
        for name, (shape, dtype) in shapes.items():
            self.register_buffer(name, torch.empty(shape, dtype=dtype))

    @property
    def weight(self) -> QuantizedWeight:
        """Give the weight (n_out, n_in); shares the buffers."""
        buffers = dict(self.named_buffers())
        group_size = None if self.kind.bits == 8 else self.kind.group_size
        return QuantizedWeight(**buffers, group_size=group_size)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply x (..., n_in); gives (..., n_out) in its dtype."""
        return quantized_linear(x, self.weight)


class QuantizedEmbedding(QuantizedLinear):
    """Embeddings (vocab_size, d_model) that are the head too, as int8; the lookup gives float32."""

    def __init__(self, d_model: int, vocab_size: int) -> None:
        """Make the buffers, without meaningful values."""
        super().__init__(d_model, vocab_size, KINDS["int8"])

    def forward(self, tokens: Tensor) -> Tensor:
        """Look up tokens (...); gives their rows (..., d_model), float32."""
        rows = self.weight.rows(tokens.flatten()).dequantize()
        return rows.view(*tokens.shape, -1)


def linear(x: Tensor, weight: Tensor | QuantizedWeight) -> Tensor:
    """Multiply x (..., n_in) by a weight's transpose, quantized or not."""
    if isinstance(weight, QuantizedWeight):
        return quantized_linear(x, weight)
    return F.linear(x, weight)
