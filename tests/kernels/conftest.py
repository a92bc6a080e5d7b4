"""Random inputs of the recurrence, and how far a result may be from the oracle.

The same tests run on a GPU where there is one, and on a CPU with Triton's kernels interpreted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from kernels.choice import has_triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor


@pytest.fixture(scope="session", autouse=True)
def _interpreter_rounds() -> Iterator[None]:
    """What the interpreter does otherwise than a GPU, put right.

    It cuts float32 off to bfloat16 instead of rounding to the nearest, and multiplies the bits of
    bfloat16 matrices as integers. It also patches Triton's language anew for each call from a
    kernel to another function, which is a quarter of all it does: here, where it is not patched.
    """
    if DEVICE != "cpu" or not has_triton():
        yield
        return
    import triton.language as tl
    from triton.runtime import interpreter
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    as_it_is, plain_dot = InterpreterBuilder.cast_impl, InterpreterBuilder.create_dot

    def cast(self: Any, source: Any, kind: Any) -> Any:
        scalars = (str(source.dtype.scalar), str(kind.scalar))
        if scalars != ("fp32", "bf16"):
            return as_it_is(self, source, kind)
        rounded = torch.from_numpy(np.ascontiguousarray(source.data)).bfloat16()
        return TensorHandle(rounded.view(torch.int16).numpy().view(np.uint16), kind.scalar)

    def dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        wide = [
            as_it_is(self, m, tl.float32) if str(m.dtype.scalar) == "bf16" else m for m in (a, b)
        ]
        return plain_dot(self, *wide, *rest)

    def call(self: Any, *args: Any, **options: Any) -> Any:
        seen = [value for value in self.fn.__globals__.values() if value is tl or value is tl.core]
        if any(tl.core.is_builtin(language.load) for language in seen):
            interpreter._patch_lang(self.fn)
        return self.rewrite()(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter.InterpretedFunction, "__call__", call)
        patch.setattr(InterpreterBuilder, "cast_impl", cast)
        patch.setattr(InterpreterBuilder, "create_dot", dot)
        yield


TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 1e-2}


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Arguments of one call: shapes as in the kernels, x, B and C in the dtype under test."""

    x: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    state: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        changed: dict[str, Any] = {
            name: None if tensor is None else change(tensor) for name, tensor in vars(self).items()
        }
        return Inputs(**changed)

    def double(self) -> Inputs:
        """The same values in float64."""
        return self.map(torch.Tensor.double)

    def clone(self) -> Inputs:
        return self.map(torch.Tensor.clone)

    def tokens(self, start: int, end: int) -> Inputs:
        """Only the tokens from `start` to `end`."""
        names = ("x", "dt", "B", "C")
        return replace(self, **{name: getattr(self, name)[:, start:end] for name in names})


def make_inputs(
    *,
    batch: int = 2,
    length: int,
    nheads: int = 4,
    headdim: int = 6,
    ngroups: int = 2,
    d_state: int = 10,
    with_D: bool = True,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Inputs:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(DEVICE)

    return Inputs(
        x=normal(batch, length, nheads, headdim).to(dtype),
        dt=torch.nn.functional.softplus(normal(batch, length, nheads) - 1),
        A=-torch.exp(normal(nheads) - 1),
        B=normal(batch, length, ngroups, d_state).to(dtype),
        C=normal(batch, length, ngroups, d_state).to(dtype),
        D=normal(nheads) if with_D else None,
        state=normal(batch, nheads, headdim, d_state),
    )


def recurrence(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """The recurrence unrolled, in float64: every output as a sum over the tokens before it.

    Shares no line with the kernels: neither their loop over a state nor their chunks.
    """
    i = inputs.double()
    ratio = i.x.shape[2] // i.B.shape[2]
    B, C = (t.repeat_interleave(ratio, dim=2) for t in (i.B, i.C))  # (b, l, h, n)
    total = torch.cumsum(i.dt * i.A, dim=1)  # (b, l, h)
    y = torch.zeros_like(i.x)
    state = torch.zeros_like(i.state)
    length = i.x.shape[1]
    for t in range(length):
        carried = torch.einsum("bhpn,bhn->bhp", i.state, C[:, t])
        y[:, t] = carried * torch.exp(total[:, t])[..., None]
        for s in range(t + 1):
            weight = (B[:, s] * C[:, t]).sum(-1) * i.dt[:, s]  # (b, h)
            weight = weight * torch.exp(total[:, t] - total[:, s])
            y[:, t] += weight[..., None] * i.x[:, s]
        if i.D is not None:
            y[:, t] += i.D[:, None] * i.x[:, t]
    last = total[:, -1] if length else torch.zeros_like(i.state[..., 0, 0])
    for s in range(length):
        scale = (torch.exp(last - total[:, s]) * i.dt[:, s])[..., None, None]
        state += scale * i.x[:, s, :, :, None] * B[:, s, :, None]
    return y, state + i.state * torch.exp(last)[..., None, None]


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest error, relative to the largest expected value; nan counts as infinite."""
    assert found.shape == expected.shape
    if not expected.numel():
        return 0.0
    error = (found.double() - expected).abs().max() / expected.abs().max()
    return error.nan_to_num(nan=torch.inf).item()


@pytest.fixture(scope="session")
def inputs() -> Callable[..., Inputs]:
    """`inputs(length=, ...)`: fresh random inputs."""
    return make_inputs


@pytest.fixture(scope="session")
def oracle() -> Callable[[Inputs], tuple[Tensor, Tensor]]:
    """`oracle(inputs)`: y and the last state, in float64."""
    return recurrence


@pytest.fixture(scope="session")
def check() -> Callable[[Tensor, Tensor, torch.dtype], None]:
    """`check(found, expected, dtype)`: within the tolerance of that dtype."""

    def check_close(found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
        assert relative_error(found, expected) < TOLERANCES[dtype]

    return check_close


@pytest.fixture(scope="session")
def device() -> str:
    """The GPU where there is one, else the CPU."""
    return DEVICE


@pytest.fixture
def apart() -> Callable[[Tensor], Tensor]:
    """`apart(tensor)`: the same values as a slice of a larger tensor of NaN."""

    def slice_of_larger(tensor: Tensor) -> Tensor:
        shape = (*tensor.shape[:-1], tensor.shape[-1] + 3)
        larger = torch.full(shape, torch.nan, dtype=tensor.dtype, device=tensor.device)
        larger[..., 1:-2] = tensor
        return larger[..., 1:-2]

    return slice_of_larger


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param
