"""The Triton operators of the `mamba-ssm` package on the same tensors as ours.

Its source package is used as it lies in a folder: what is compiled of it is not needed here.
"""

from __future__ import annotations

import importlib
import sys
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

from kernels.add_rmsnorm import add_rmsnorm
from kernels.gated_rmsnorm import gated_rmsnorm
from kernels.ssd_chunk_scan import ssd_chunk_scan
from kernels.ssm_pass import ssm_commit, ssm_pass
from perf.gpu_device import measure_s, n_copies
from perf.gpu_kernels import Maker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

    from engine.config import Mamba2Config

PACKAGES = ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.triton", "mamba_ssm.utils")


class PeerError(RuntimeError):
    """The package's operators cannot be used."""


@contextmanager
def operators(folder: Path) -> Iterator[Callable[[str], ModuleType]]:
    """Give a function that imports modules of `mamba_ssm.ops.triton` from a folder, by name.

    The folder holds `mamba_ssm/`; what that needs and is not installed (einops) may lie beside it.
    Raises PeerError where there is none.
    """
    if not (folder / "mamba_ssm" / "ops" / "triton").is_dir():
        raise PeerError(f"{folder} has no mamba_ssm/ops/triton")
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    for name in PACKAGES:
        # Empty packages in place of its own, whose imports want compiled extensions.
        package = ModuleType(name)
        package.__path__ = [str(folder.joinpath(*name.split(".")))]
        sys.modules[name] = package

    def import_operator(name: str) -> ModuleType:
        try:
            return importlib.import_module(f"mamba_ssm.ops.triton.{name}")
        except ImportError as error:
            raise PeerError(f"mamba_ssm.ops.triton.{name} cannot be imported: {error}") from error

    try:
        yield import_operator
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == "mamba_ssm":
                del sys.modules[name]


def compare(
    folder: Path,
    config: Mamba2Config,
    device: torch.device,
    *,
    tokens: Sequence[int] = (1, 8),
    prefill_tokens: int = 4096,
) -> list[dict[str, Any]]:
    """Time both on the same tensors in bfloat16, and hold their results together."""
    maker = Maker(config, torch.bfloat16, device)
    with operators(folder) as module:
        pairs = [
            *(_update(module("selective_state_update"), maker, n) for n in tokens),
            _scan(module("ssd_combined"), maker, prefill_tokens),
            *(_gated(module("layernorm_gated"), maker, n) for n in (1, prefill_tokens)),
            *(_add_norm(module("layer_norm"), maker, n) for n in (1, prefill_tokens)),
        ]
        return [_compared(*pair, device) for pair in pairs]


Pair = tuple[str, "Callable[[], list[Any]]", "Callable[..., Any]", "Callable[..., Any]"]


def _update(module: ModuleType, maker: Maker, n: int) -> Pair:
    """Outputs of n tokens and the state after them; theirs takes one token at a time, in place."""

    def ours(
        x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        return ssm_pass(x, dt, A, B, C, D, state), ssm_commit(x, dt, A, B, state, n)

    def theirs(
        x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        heads, headdim, d_state = state.shape[1:]
        # Without strides of 0 all through, it takes one for each channel's own rates.
        bias = torch.zeros_like(D)[:, None].expand(heads, headdim)
        outputs = [
            module.selective_state_update(
                state,
                x[:, t],
                dt[:, t, :, None].expand(-1, -1, headdim),
                A[:, None, None].expand(heads, headdim, d_state),
                B[:, t],
                C[:, t],
                D=D[:, None].expand(heads, headdim),
                dt_bias=bias,
            )
            for t in range(n)
        ]
        return outputs[0][:, None] if n == 1 else torch.stack(outputs, dim=1), state

    def make() -> list[Any]:
        return [*maker.inputs(1, n), maker.state(1)]

    return f"state update, {n} token(s)", make, ours, theirs


def _scan(module: ModuleType, maker: Maker, n: int) -> Pair:
    chunk_size = maker.config.chunk_size

    def make() -> list[Any]:
        return [*maker.inputs(1, n), maker.state(1)]

    def theirs(
        x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor
    ) -> Any:
        return module.mamba_chunk_scan_combined(
            x, dt, A, B, C, 256, D=D, initial_states=state, return_final_states=True
        )

    def ours(
        x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor
    ) -> Any:
        return ssd_chunk_scan(x, dt, A, B, C, D, state, chunk_size)[:2]

    return f"chunk scan, {n} tokens", make, ours, theirs


def _gated(module: ModuleType, maker: Maker, n: int) -> Pair:
    c = maker.config

    def theirs(y: Tensor, z: Tensor, weight: Tensor) -> Any:
        group_size = c.d_inner // c.ngroups
        return module.rmsnorm_fn(
            y, weight, None, z=z, eps=c.norm_eps, group_size=group_size, norm_before_gate=False
        )

    make = maker.gated(n).make
    return (
        f"gated norm, {n} token(s)",
        lambda: list(make()),
        partial(gated_rmsnorm, eps=c.norm_eps, ngroups=c.ngroups),
        theirs,
    )


def _add_norm(module: ModuleType, maker: Maker, n: int) -> Pair:
    c = maker.config

    def theirs(residual: Tensor, update: Tensor, weight: Tensor) -> Any:
        return module.rms_norm_fn(
            update,
            weight,
            None,
            residual=residual,
            eps=c.norm_eps,
            prenorm=True,
            residual_in_fp32=True,
        )

    make = maker.add_norm(n).make
    return (
        f"add and norm, {n} token(s)",
        lambda: list(make()),
        partial(add_rmsnorm, eps=c.norm_eps),
        theirs,
    )


def _compared(
    name: str,
    make: Callable[[], list[Any]],
    ours: Callable[..., Any],
    theirs: Callable[..., Any],
    device: torch.device,
) -> dict[str, Any]:
    first = make()
    # Copies: one of theirs works in place.
    results = [call(*(tensor.clone() for tensor in first)) for call in (ours, theirs)]
    tensors = [[part] if torch.is_tensor(part) else list(part) for part in results]
    distance = max(
        float((a.double() - b.double()).abs().max() / b.double().abs().max())
        for a, b in zip(*tensors, strict=True)
    )
    n_bytes = sum(tensor.nbytes for tensor in [*first, *tensors[0]])
    sets = [first, *(make() for _ in range(n_copies(n_bytes, device) - 1))]
    # In turn, so that neither has the quieter moment.
    rounds = [
        [measure_s([partial(call, *a) for a in sets], device) for call in (ours, theirs)]
        for _ in range(3)
    ]
    ours_s, theirs_s = (sorted(column)[1] for column in zip(*rounds, strict=True))
    return {
        "name": name,
        "us": 1e6 * ours_s,
        "mamba_ssm_us": 1e6 * theirs_s,
        "ratio": theirs_s / ours_s,
        "distance": distance,
    }
