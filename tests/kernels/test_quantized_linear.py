"""Products with quantized weights: each way to compute them against float64, and what is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from kernels.choice import triton_forced
from kernels.quantized_linear import (
    QuantizedWeight,
    blockwise,
    quantize,
    quantized_linear,
    reference,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Bits, group size, symmetric.
KINDS = {
    "int8": (8, 128, True),
    "int4": (4, 128, True),
    "int4_zero_points": (4, 128, False),
    "int4_group_32": (4, 32, False),
}
kinds = pytest.mark.parametrize("kind", list(KINDS))


def forced(x: Tensor, weight: QuantizedWeight) -> Tensor:
    with triton_forced():
        return quantized_linear(x, weight)


def make(n_out: int, n_in: int, kind: str, *, seed: int = 0) -> QuantizedWeight:
    """A random weight whose groups have different sizes and, as those of a model, no mean of 0."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(n_out, n_in, generator=generator)
    weight *= torch.rand(n_out, 1, generator=generator) + 0.1
    bits, group_size, symmetric = KINDS[kind]
    made = quantize((weight + 0.3).to(DEVICE), bits, group_size, symmetric)
    assert made.bits == bits
    assert (made.zero_points is None) == symmetric
    return made


def by_definition(weight: QuantizedWeight) -> Tensor:
    """The weight in float64, number by number: shares no line with `dequantize`."""
    n_out, n_in = weight.shape
    values = weight.values.tolist()
    scales = weight.scales.double().tolist()
    if weight.bits == 8:
        rows = [[scales[o] * value for value in values[o]] for o in range(n_out)]
        return torch.tensor(rows, dtype=torch.float64, device=DEVICE)
    size = weight.group_size or 0
    zeros = None if weight.zero_points is None else weight.zero_points.tolist()

    def number(o: int, i: int) -> float:
        group, place = divmod(i, size)
        byte = values[o][group * size // 2 + place % (size // 2)]
        nibble = byte % 16 if place < size // 2 else byte // 16
        zero = 8 if zeros is None else zeros[o][group]
        return scales[o][group] * (nibble - zero)

    rows = [[number(o, i) for i in range(n_in)] for o in range(n_out)]
    return torch.tensor(rows, dtype=torch.float64, device=DEVICE)


@kinds
def test_dequantized_by_definition(kind: str) -> None:
    weight = make(5, 384, kind)
    assert torch.equal(weight.dequantize(torch.float64), by_definition(weight))
    some = torch.tensor([3, 0, 3], device=DEVICE)
    assert torch.equal(weight.rows(some).dequantize(), weight.dequantize()[some])
    assert torch.equal(weight.rows(slice(1, 3)).dequantize(), weight.dequantize()[1:3])


@kinds
@pytest.mark.parametrize(
    "multiply", [reference.quantized_linear, blockwise.quantized_linear, forced]
)
@pytest.mark.parametrize("n_rows", [1, 3, 16, 17])
def test_products(
    kind: str,
    multiply: Callable[[Tensor, QuantizedWeight], Tensor],
    n_rows: int,
    dtype: torch.dtype,
    check: Callable[[Tensor, Tensor, torch.dtype], None],
) -> None:
    # Blocks of 32 outputs and 256 inputs: neither comes out even.
    weight = make(45, 384, kind, seed=n_rows)
    x = torch.randn(n_rows, 384, generator=torch.Generator().manual_seed(n_rows)).to(DEVICE, dtype)
    expected = x.double() @ weight.dequantize(torch.float64).T
    y = multiply(x, weight)
    assert y.dtype == dtype
    check(y, expected, dtype)


@kinds
def test_products_in_blocks_and_in_splits(
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    check: Callable[[Tensor, Tensor, torch.dtype], None],
) -> None:
    """More blocks of the weight than one, and programs that share their outputs."""
    from kernels.quantized_linear import triton

    launch = triton.launch_for(16, 1664, torch.float32)
    assert launch.n_splits == 4
    # 13 groups: the splits get different numbers of them, and the last block is not full.
    weight = make(16, 1664, kind)
    x = torch.randn(2, 3, 1664, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    expected = x.double() @ weight.dequantize(torch.float64).T
    monkeypatch.setattr(blockwise, "_CPU_BLOCK_WEIGHTS", 3 * 1664)
    monkeypatch.setattr(blockwise, "_GPU_BLOCK_WEIGHTS", 3 * 1664)
    for y in (blockwise.quantized_linear(x, weight), forced(x, weight)):
        check(y, expected, torch.float32)
    assert torch.equal(forced(x, weight), forced(x, weight))


def test_8_bits_of_any_width(check: Callable[[Tensor, Tensor, torch.dtype], None]) -> None:
    for n_out, n_in in ((1, 1), (33, 7), (64, 259)):
        weight = make(n_out, n_in, "int8")
        x = torch.randn(2, n_in, generator=torch.Generator().manual_seed(0)).to(DEVICE)
        expected = x.double() @ weight.dequantize(torch.float64).T
        for y in (blockwise.quantized_linear(x, weight), forced(x, weight)):
            check(y, expected, torch.float32)


@kinds
def test_no_rows_and_a_single_vector(kind: str) -> None:
    weight = make(9, 128, kind)
    for multiply in (blockwise.quantized_linear, forced):
        assert multiply(torch.zeros(0, 128, device=DEVICE), weight).shape == (0, 9)
        assert multiply(torch.ones(128, device=DEVICE), weight).shape == (9,)


def test_many_rows_go_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = make(9, 128, "int8")
    seen: list[int] = []

    def counted(x: Tensor, _weight: QuantizedWeight) -> Tensor:
        seen.append(x.shape[0])
        return x

    monkeypatch.setattr(blockwise, "quantized_linear", counted)
    for n_rows in (16, 17):
        forced(torch.ones(n_rows, 128, device=DEVICE), weight)
    assert seen == [17]


@kinds
def test_rounding_is_to_the_nearest(kind: str) -> None:
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(40, 256, generator=generator) + torch.randn(40, 1, generator=generator)
    bits, group_size, symmetric = KINDS[kind]
    made = quantize(weight, bits, group_size, symmetric)
    error = (made.dequantize() - weight).abs().unflatten(-1, (-1, made.group_size or 256))
    scales = made.scales.float().view(40, -1, 1)
    # Half a step; bfloat16's scale may leave the ends of the range a little outside.
    assert (error <= scales * (0.5001 if bits == 8 else 0.55)).all()
    # What is stored is worth storing: no coarser than the range needs.
    span = weight.unflatten(-1, (-1, made.group_size or 256))
    high, low = span.amax(-1).clamp(min=0), span.amin(-1).clamp(max=0)
    widest = torch.maximum(high, -low) / (127 if bits == 8 else 7)
    step = widest if symmetric else (high - low) / 15
    assert (made.scales.float().view(40, -1) <= step * 1.005).all()


@kinds
def test_zeros_stay_zeros(kind: str) -> None:
    weight = torch.ones(3, 256)
    weight[:, ::3] = 0
    weight[1] = 0
    bits, group_size, symmetric = KINDS[kind]
    made = quantize(weight, bits, group_size, symmetric).dequantize()
    assert (made[weight == 0] == 0).all()
    assert made[weight != 0] == pytest.approx(1, rel=0.01)


@kinds
def test_quantizing_in_blocks_changes_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from kernels.quantized_linear import weight as module

    whole = make(11, 256, kind)
    monkeypatch.setattr(module, "_CPU_BLOCK_WEIGHTS", 4 * 256)
    monkeypatch.setattr(module, "_GPU_BLOCK_WEIGHTS", 4 * 256)
    parts = make(11, 256, kind)
    for name, tensor in whole.tensors.items():
        assert torch.equal(parts.tensors[name], tensor), name
    assert whole.n_bytes == sum(tensor.nbytes for tensor in whole.tensors.values())


def test_bytes_of_a_projection() -> None:
    weight = torch.zeros(64, 4096)
    assert quantize(weight, 8).n_bytes == 64 * (4096 + 4)
    # A byte for two, two bytes a scale and one a zero point for 128.
    assert quantize(weight, 4).n_bytes == 64 * (2048 + 32 * 2)
    assert quantize(weight, 4, symmetric=False).n_bytes == 64 * (2048 + 32 * 3)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((4, 192), {"bits": 4}, "192 wide, expected a multiple of 128"),
        ((4, 128), {"bits": 3}, "bits is 3, expected 8 or 4"),
        ((4, 129), {"bits": 4, "group_size": 43}, "group_size is 43, expected an even number"),
        ((4, 128), {"bits": 8, "symmetric": False}, "symmetric is False with 8 bits"),
        ((4, 2, 128), {"bits": 8}, r"\(4, 2, 128\), expected two dimensions"),
    ],
)
def test_what_cannot_be_quantized(
    shape: tuple[int, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        quantize(torch.zeros(shape), **options)


def test_weights_that_are_not_finite() -> None:
    weight = torch.ones(3, 128)
    weight[2, 5] = torch.inf
    with pytest.raises(ValueError, match="not finite"):
        quantize(weight, 8)


def test_tensors_that_do_not_fit_together() -> None:
    made = make(6, 256, "int4_zero_points")
    with pytest.raises(ValueError, match=r"scales is torch.bfloat16 \(3, 2\), expected"):
        QuantizedWeight(made.values, made.scales[:3], made.zero_points, 128)
    with pytest.raises(ValueError, match=r"zero_points is torch\.int8"):
        QuantizedWeight(made.values, made.scales, made.values[:, :2].to(torch.int8), 128)
    with pytest.raises(ValueError, match="contiguous"):
        QuantizedWeight(made.values.T.contiguous().T, made.scales, None, 128)


def test_launcher_says_what_does_not_fit() -> None:
    from kernels.quantized_linear import triton

    weight = make(4, 128, "int8")
    with pytest.raises(ValueError, match="17 rows, expected at most 16"):
        triton.quantized_linear(torch.zeros(17, 128, device=DEVICE), weight)
    with pytest.raises(ValueError, match=r"torch\.float16, expected float32"):
        triton.quantized_linear(torch.zeros(1, 128, device=DEVICE).half(), weight)


@pytest.mark.parametrize("shape", [(18560, 4096), (4096, 8192), (32768, 4096), (1184, 256)])
def test_launches_give_every_multiprocessor_work(shape: tuple[int, int]) -> None:
    from kernels.quantized_linear import triton

    launch = triton.launch_for(*shape, torch.bfloat16)
    n_programs = -(-shape[0] // launch.block_out) * launch.n_splits
    # Codestral's shapes fill an H200; a small model's cannot.
    assert n_programs >= (264 if shape[0] > 4000 else 37)
    assert launch.n_splits * launch.block_in <= max(512, shape[1])
