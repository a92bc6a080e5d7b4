"""A matrix of small integers with scales: what weight-only quantization keeps of a linear layer.

- 8 bits: w[o, i] = scales[o] * values[o, i], one scale a row (output channel).
- 4 bits: w[o, i] = scales[o, g] * (u[o, i] - zero_points[o, g]) for the group g = i // group_size
  and u from 0 to 15; the zero point of every group is 8 where there are none.

Two of the 4-bit numbers share a byte, the halves of a group side by side: byte j of a group, of
group_size / 2 bytes, holds the group's input j in its low four bits and its input
j + group_size / 2 in its high four. Either half is read as it lies, without interleaving.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

GROUP_SIZE = 128
# Quantizing goes by so many weights at a time, so that copies in float32 stay small; on a CPU in
# the cache, which is 1.8 times as fast to 8 bits as blocks of 2**22.
_CPU_BLOCK_WEIGHTS, _GPU_BLOCK_WEIGHTS = 2**18, 2**24


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """A weight (n_out, n_in) as integers; all tensors contiguous and on one device.

    values: int8 (n_out, n_in), or uint8 (n_out, n_in / 2) for 4 bits. scales: float32 (n_out,), or
    bfloat16 (n_out, n_in / group_size) for 4 bits. zero_points: uint8 of the scales' shape, 4 bits
    alone, or None. group_size: None for 8 bits. Raises ValueError where these do not fit together.
    """

    values: Tensor
    scales: Tensor
    zero_points: Tensor | None = None
    group_size: int | None = None

    def __post_init__(self) -> None:
        """Check dtypes and shapes."""
        bits = 8 if self.group_size is None else 4
        expected = shapes_of(self.shape, bits=bits, group_size=self.group_size or GROUP_SIZE)
        for name, (shape, dtype) in expected.items():
            tensor = getattr(self, name)
            if tensor is None and name == "zero_points":
                continue
            if tensor.shape != shape or tensor.dtype != dtype or not tensor.is_contiguous():
                raise ValueError(
                    f"{name} is {tensor.dtype} {tuple(tensor.shape)}, expected a contiguous {dtype}"
                    f" {shape} in a {bits}-bit weight of shape {self.shape}"
                )
        if bits == 8 and self.zero_points is not None:
            raise ValueError("zero_points are given, expected none in an 8-bit weight")

    @property
    def shape(self) -> tuple[int, int]:
        """Give (n_out, n_in)."""
        n_out, n_columns = self.values.shape
        return n_out, n_columns if self.group_size is None else 2 * n_columns

    @property
    def bits(self) -> int:
        """Give the bits of a weight: 8 or 4."""
        return 8 if self.group_size is None else 4

    @property
    def n_bytes(self) -> int:
        """Give the bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Give those of values, scales and zero_points that there are."""
        every = {
            "values": self.values,
            "scales": self.scales,
            "zero_points": self.zero_points,
        }
        return {name: tensor for name, tensor in every.items() if tensor is not None}

    def rows(self, index: slice | Tensor) -> QuantizedWeight:
        """Give some rows (output channels), by a slice or by a tensor (n,) of their numbers."""
        zeros = None if self.zero_points is None else self.zero_points[index]
        return QuantizedWeight(self.values[index], self.scales[index], zeros, self.group_size)

    def unpacked(self) -> Tensor:
        """Give the integers without scales, zero points taken off, as int8 (n_out, n_in)."""
        if self.group_size is None:
            return self.values
        n_out, n_in = self.shape
        packed = self.values.view(n_out, -1, self.group_size // 2)
        groups = torch.cat((packed & 15, packed >> 4), dim=-1).to(torch.int8)
        if self.zero_points is None:
            groups -= 8
        else:
            groups -= self.zero_points[..., None].to(torch.int8)
        return groups.view(n_out, n_in)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Give the weight (n_out, n_in), multiplied in float32 or in a wider `dtype`."""
        scales = self.scales.to(torch.promote_types(dtype, torch.float32))
        if self.group_size is None:
            return (self.values * scales[:, None]).to(dtype)
        groups = self.unpacked().unflatten(-1, (-1, self.group_size))
        return (groups * scales[..., None]).to(dtype).flatten(-2)


def quantize(
    weight: Tensor, bits: int, group_size: int = GROUP_SIZE, symmetric: bool = True
) -> QuantizedWeight:
    """Round a weight (n_out, n_in) of any float dtype to 8 bits a row, or to 4 bits a group.

    `group_size` (even) is for 4 bits, and so are zero points (`symmetric` False), which spend the
    16 values on the range from a group's smallest weight to its largest; 0 stays 0 either way.
    Raises ValueError for a width that is no multiple of the group and for weights that are not
    finite.
    """
    if weight.dim() != 2:
        raise ValueError(f"the weight's shape is {tuple(weight.shape)}, expected two dimensions")
    if bits == 8 and not symmetric:
        raise ValueError("symmetric is False with 8 bits, expected True: zero points are for 4")
    shape = (weight.shape[0], weight.shape[1])
    made = {
        name: torch.empty(size, dtype=dtype, device=weight.device)
        for name, (size, dtype) in shapes_of(shape, bits=bits, group_size=group_size).items()
        if not (name == "zero_points" and symmetric)
    }
    n_weights = _GPU_BLOCK_WEIGHTS if weight.is_cuda else _CPU_BLOCK_WEIGHTS
    n_rows = max(1, n_weights // max(1, shape[1]))
    for start in range(0, shape[0], n_rows):
        block = weight[start : start + n_rows].float()
        if not block.isfinite().all():
            raise ValueError("the weight has values that are not finite, expected none")
        parts = _rounded(block) if bits == 8 else _rounded_groups(block, group_size, symmetric)
        for name, part in zip(made, parts, strict=True):
            made[name][start : start + n_rows] = part
    return QuantizedWeight(**made, group_size=None if bits == 8 else group_size)


def shapes_of(
    shape: tuple[int, int], *, bits: int, group_size: int = GROUP_SIZE
) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Give shape and dtype of each tensor of a quantized weight, by its name.

    Raises ValueError for other bits than 8 and 4, and for a width that is no multiple of the group.
    """
    n_out, n_in = shape
    if bits == 8:
        return {"values": (shape, torch.int8), "scales": ((n_out,), torch.float32)}
    if bits != 4:
        raise ValueError(f"bits is {bits}, expected 8 or 4")
    if group_size < 2 or group_size % 2:
        raise ValueError(f"group_size is {group_size}, expected an even number")
    if n_in % group_size:
        raise ValueError(
            f"the weight is {n_in} wide, expected a multiple of {group_size} for 4 bits: use 8"
        )
    by_group = (n_out, n_in // group_size)
    return {
        "values": ((n_out, n_in // 2), torch.uint8),
        "scales": (by_group, torch.bfloat16),
        "zero_points": (by_group, torch.uint8),
    }


def _rounded(block: Tensor) -> tuple[Tensor, Tensor]:
    scales = _no_zeros(block.abs().amax(-1) / 127)
    return (block / scales[:, None]).round().clamp(-127, 127), scales


def _rounded_groups(block: Tensor, group_size: int, symmetric: bool) -> tuple[Tensor, ...]:
    groups = block.unflatten(-1, (-1, group_size))
    # Rounded to bfloat16 first: what is lost of the scale is made up for by the values.
    if symmetric:
        scales = _no_zeros((groups.abs().amax(-1) / 7).bfloat16())
        zeros = torch.full_like(scales, 8).float()
    else:
        low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
        scales = _no_zeros(((high - low) / 15).bfloat16())
        zeros = (-low / scales.float()).round().clamp(0, 15)
    values = (groups / scales.float()[..., None]).round() + zeros[..., None]
    values = values.clamp(0, 15).to(torch.uint8)
    half = group_size // 2
    packed = (values[..., :half] | (values[..., half:] << 4)).flatten(-2)
    return (packed, scales) if symmetric else (packed, scales, zeros.to(torch.uint8))


def _no_zeros(scales: Tensor) -> Tensor:
    """Give scales of 1 to what is all zeros."""
    return torch.where(scales > 0, scales, torch.ones_like(scales))
