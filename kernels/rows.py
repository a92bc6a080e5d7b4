"""How the launchers of row-wise kernels see their arguments."""

from torch import Tensor


def as_rows(tensor: Tensor, name: str) -> Tensor:
    """Give (..., d) as (rows, d) without copying. Raises ValueError where that cannot be."""
    try:
        seen = tensor.view(-1, tensor.shape[-1])
    except RuntimeError:
        seen = None
    if seen is None or (seen.stride(-1) != 1 and seen.shape[-1] > 1):
        raise ValueError(
            f"{name} is {tuple(tensor.shape)} of strides {tensor.stride()},"
            " expected rows without gaps, at equal distances"
        )
    return seen


def check_weight(weight: Tensor, width: int) -> None:
    """Raise ValueError unless `weight` is a vector of that width without gaps."""
    if weight.shape != (width,) or not weight.is_contiguous():
        raise ValueError(
            f"weight is {tuple(weight.shape)} of strides {weight.stride()},"
            f" expected ({width},) without gaps"
        )


def warps_of(block: int) -> int:
    """Give how many warps share a row of that many numbers: 8 numbers or more for each thread."""
    return max(1, min(16, block // 256))
