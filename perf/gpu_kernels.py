"""Every kernel at a model's sizes: against float64, and against what the device can do at most."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from kernels.add_rmsnorm import add_rmsnorm
from kernels.add_rmsnorm import reference as add_rmsnorm_reference
from kernels.causal_conv1d import causal_conv1d
from kernels.causal_conv1d import reference as causal_conv1d_reference
from kernels.gated_rmsnorm import gated_rmsnorm
from kernels.gated_rmsnorm import reference as gated_rmsnorm_reference
from kernels.mixer_pass import mixer_pass
from kernels.mixer_pass import reference as mixer_pass_reference
from kernels.quantized_linear import QuantizedWeight, quantize, quantized_linear
from kernels.ssd_chunk_scan import reference as ssd_chunk_scan_reference
from kernels.ssd_chunk_scan import ssd_chunk_scan
from kernels.ssm_pass import parallel as ssm_pass_reference
from kernels.ssm_pass import ssm_commit, ssm_pass
from perf.gpu_device import measure_s, n_copies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from engine.config import Mamba2Config
    from perf.gpu_device import Floors

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
PASS_TOKENS = (1, 2, 4, 8, 16)
PREFILL_TOKENS = 4096


@dataclass(frozen=True, kw_only=True)
class Case:
    """An operation at some sizes: fresh random arguments, and what it costs."""

    name: str
    detail: str
    make: Callable[[], Sequence[Any]]
    run: Callable[..., Any]
    # The same in float64, of the same arguments in float64.
    reference: Callable[..., Any]
    n_flops: int

    def error(self) -> float:
        """Give the largest error of any result, relative to that result's largest value."""
        arguments = self.make()
        found, expected = (
            _tensors(self.run(*arguments)),
            _tensors(self.reference(*map(_double, arguments))),
        )
        return max(
            float((a.double() - b).abs().max().nan_to_num(nan=torch.inf) / b.abs().max())
            for a, b in zip(found, expected, strict=True)
            if b.numel()
        )

    def measure(self, floors: Floors, device: torch.device) -> dict[str, Any]:
        """Time it; every argument is read once and every result written once, at least."""
        first = self.make()
        results = self.run(*first)
        n_bytes = sum(tensor.nbytes for part in (first, results) for tensor in _tensors(part))
        del results
        sets = [first, *(self.make() for _ in range(n_copies(n_bytes, device) - 1))]
        seconds = measure_s([partial(self.run, *a) for a in sets], device)
        floor = floors.seconds(n_bytes, self.n_flops)
        return {
            "name": self.name,
            "detail": self.detail,
            "us": 1e6 * seconds,
            "floor_us": 1e6 * floor,
            "over_floor": seconds / floor,
            "bytes": n_bytes,
            "flops": self.n_flops,
        }


def correctness_cases(config: Mamba2Config, device: torch.device) -> Iterator[tuple[str, Case]]:
    """Yield dtype names and cases, awkward lengths among them."""
    for dtype in TOLERANCES:
        maker = Maker(config, dtype, device)
        lengths = (1, 5, 16)
        cases = [
            *(maker.convolution(n) for n in (*lengths, 130)),
            *(maker.mixer(n) for n in lengths),
            *(maker.recurrence(n) for n in lengths),
            *(maker.commit(n, n_layers=2) for n in lengths),
            *(maker.scan(n) for n in (1, 200)),
            *(maker.gated(n) for n in (1, 7)),
            *(maker.add_norm(n) for n in (1, 7)),
            *(
                maker.linear(n, config.d_in_proj, config.d_model, bits)
                for n in (1, 7, 16)
                for bits in (8, 4)
            ),
        ]
        yield from ((str(dtype).removeprefix("torch."), case) for case in cases)


def check(config: Mamba2Config, device: torch.device) -> list[dict[str, Any]]:
    """Compare every kernel with float64, in float32 and bfloat16."""
    rows = []
    for dtype, case in correctness_cases(config, device):
        error, tolerance = case.error(), TOLERANCES[getattr(torch, dtype)]
        rows.append(
            {
                "name": case.name,
                "detail": case.detail,
                "dtype": dtype,
                "error": error,
                "tolerance": tolerance,
                "ok": error < tolerance,
            }
        )
    return rows


def timing_cases(
    config: Mamba2Config, device: torch.device, *, prefill_tokens: int = PREFILL_TOKENS
) -> Iterator[Case]:
    """Yield what a pass and a prefill are made of, in bfloat16."""
    maker = Maker(config, torch.bfloat16, device)
    for n in PASS_TOKENS:
        yield maker.mixer(n)
    for n in (1, 8):
        yield maker.commit(n, n_layers=config.n_layers)
    for n in (1, 16, prefill_tokens):
        yield maker.gated(n)
        yield maker.add_norm(n)
    for n in (16, prefill_tokens):
        yield maker.convolution(n)
    yield maker.scan(prefill_tokens)
    shapes = (
        (config.d_in_proj, config.d_model),
        (config.d_model, config.d_inner),
        (config.vocab_size, config.d_model),
    )
    for n_out, n_in in shapes:
        for bits in (16, 8, 4):
            for n in (1, 8, 16):
                yield maker.linear(n, n_out, n_in, bits)


def measure(
    config: Mamba2Config,
    device: torch.device,
    floors: Floors,
    *,
    prefill_tokens: int = PREFILL_TOKENS,
) -> list[dict[str, Any]]:
    """Time every kernel at the model's sizes."""
    cases = timing_cases(config, device, prefill_tokens=prefill_tokens)
    return [case.measure(floors, device) for case in cases]


@dataclass(frozen=True)
class Maker:
    """Makes cases at one model's sizes, with arguments as the model hands them in."""

    config: Mamba2Config
    dtype: torch.dtype
    device: torch.device

    def convolution(self, n_tokens: int) -> Case:
        """The convolution over a prefill's chunk."""
        c = self.config

        def make() -> list[Any]:
            _, xBC, _ = self._projected(n_tokens)
            return [xBC, *self._convolution_weights(), self._normal(1, c.d_conv - 1, c.conv_dim)]

        return Case(
            name="causal_conv1d",
            detail=_tokens(n_tokens),
            make=make,
            run=causal_conv1d,
            reference=causal_conv1d_reference.causal_conv1d,
            n_flops=2 * n_tokens * c.conv_dim * c.d_conv,
        )

    def mixer(self, n_tokens: int) -> Case:
        """A short pass: convolution, step sizes and recurrence at once."""
        c = self.config
        sizes: dict[str, Any] = {"headdim": c.headdim, "ngroups": c.ngroups, "dt_limit": c.dt_limit}

        def make() -> list[Any]:
            _, xBC, dt = self._projected(n_tokens)
            return [
                xBC,
                dt,
                *self._convolution_weights(),
                self._normal(c.nheads, dtype=torch.float32) - 3,
                self._normal(c.nheads, dtype=torch.float32),
                self._normal(c.nheads, dtype=torch.float32),
                self._normal(1, c.d_conv - 1, c.conv_dim),
                self.state(1),
            ]

        return Case(
            name="mixer_pass",
            detail=_tokens(n_tokens),
            make=make,
            run=partial(mixer_pass, **sizes),
            reference=partial(mixer_pass_reference.mixer_pass, **sizes),
            n_flops=4 * n_tokens * c.d_inner * c.d_state,
        )

    def recurrence(self, n_tokens: int) -> Case:
        """A short pass without convolution."""
        return Case(
            name="ssm_pass",
            detail=_tokens(n_tokens),
            make=lambda: [*self.inputs(1, n_tokens), self.state(1)],
            run=ssm_pass,
            reference=ssm_pass_reference.ssm_pass,
            n_flops=4 * n_tokens * self.config.d_inner * self.config.d_state,
        )

    def commit(self, n_tokens: int, *, n_layers: int) -> Case:
        """The state after a pass, of so many layers at once."""
        c = self.config

        def make() -> list[Any]:
            x, dt, _, B, _, _ = self.inputs(n_layers, n_tokens)
            A = -torch.exp(self._normal(n_layers, c.nheads, dtype=torch.float32))
            return [x, dt, A, B, self.state(n_layers)]

        return Case(
            name="ssm_commit",
            detail=f"{_tokens(n_tokens)}, {n_layers} layers",
            make=make,
            run=partial(ssm_commit, n=n_tokens),
            reference=partial(ssm_pass_reference.ssm_commit, n=n_tokens),
            n_flops=4 * n_layers * n_tokens * c.d_inner * c.d_state,
        )

    def scan(self, n_tokens: int) -> Case:
        """The recurrence over a prefill's chunk."""
        return Case(
            name="ssd_chunk_scan",
            detail=_tokens(n_tokens),
            make=lambda: [*self.inputs(1, n_tokens), self.state(1)],
            run=partial(ssd_chunk_scan, chunk_size=self.config.chunk_size),
            reference=ssd_chunk_scan_reference.ssd_chunk_scan,
            n_flops=4 * n_tokens * self.config.d_inner * self.config.d_state,
        )

    def gated(self, n_tokens: int) -> Case:
        """The norm before the output projection."""
        c = self.config

        def make() -> list[Any]:
            z, _, _ = self._projected(n_tokens)
            return [self._normal(1, n_tokens, c.d_inner), z, self._normal(c.d_inner)]

        return Case(
            name="gated_rmsnorm",
            detail=_tokens(n_tokens),
            make=make,
            run=partial(gated_rmsnorm, eps=c.norm_eps, ngroups=c.ngroups),
            reference=partial(
                gated_rmsnorm_reference.gated_rmsnorm, eps=c.norm_eps, ngroups=c.ngroups
            ),
            n_flops=8 * n_tokens * c.d_inner,
        )

    def add_norm(self, n_tokens: int) -> Case:
        """The norm before the input projection."""
        c = self.config

        def make() -> list[Any]:
            residual = self._normal(1, n_tokens, c.d_model, dtype=torch.float32)
            return [residual, self._normal(1, n_tokens, c.d_model), self._normal(c.d_model)]

        return Case(
            name="add_rmsnorm",
            detail=_tokens(n_tokens),
            make=make,
            run=partial(add_rmsnorm, eps=c.norm_eps),
            reference=partial(add_rmsnorm_reference.add_rmsnorm, eps=c.norm_eps),
            n_flops=5 * n_tokens * c.d_model,
        )

    def linear(self, n_rows: int, n_out: int, n_in: int, bits: int) -> Case:
        """A product of a few rows with a weight of 8 or 4 bits, or of 16: torch's own."""

        def make() -> list[Any]:
            weight = self._normal(n_out, n_in)
            kept = weight if bits == 16 else quantize(weight, bits, symmetric=bits == 8)
            return [self._normal(n_rows, n_in), kept]

        return Case(
            name="linear" if bits == 16 else f"quantized_linear int{bits}",
            detail=f"{n_rows} x {n_in} -> {n_out}",
            make=make,
            run=F.linear if bits == 16 else quantized_linear,
            reference=F.linear,
            n_flops=2 * n_rows * n_out * n_in,
        )

    def _normal(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.randn(shape, device=self.device).to(dtype or self.dtype)

    def _projected(self, n_tokens: int) -> tuple[Tensor, ...]:
        """z, xBC and dt, as slices of one projection."""
        c = self.config
        projected = self._normal(1, n_tokens, c.d_in_proj)
        return projected.split((c.d_inner, c.conv_dim, c.nheads), dim=-1)

    def _convolution_weights(self) -> tuple[Tensor, Tensor]:
        c = self.config
        return self._normal(c.conv_dim, c.d_conv), self._normal(c.conv_dim)

    def inputs(self, batch: int, n_tokens: int) -> tuple[Tensor, ...]:
        """x, dt, A, B, C and D of the recurrence."""
        c = self.config
        dt = F.softplus(self._normal(batch, n_tokens, c.nheads, dtype=torch.float32) - 3)
        B, C = (self._normal(batch, n_tokens, c.ngroups, c.d_state) for _ in "BC")
        A, D = (self._normal(c.nheads, dtype=torch.float32) for _ in "AD")
        return self._normal(batch, n_tokens, c.nheads, c.headdim), dt, -torch.exp(A), B, C, D

    def state(self, batch: int) -> Tensor:
        c = self.config
        return self._normal(batch, c.nheads, c.headdim, c.d_state, dtype=torch.float32)


def _tokens(n: int) -> str:
    return "1 token" if n == 1 else f"{n:,} tokens"


def _tensors(value: Any) -> list[Tensor]:
    """All tensors in arguments or results."""
    if torch.is_tensor(value):
        return [value]
    if isinstance(value, QuantizedWeight):
        return list(value.tensors.values())
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in _tensors(part)]
    return []


def _double(value: Any) -> Any:
    if isinstance(value, QuantizedWeight):
        return value.dequantize(torch.float64)
    return value.double() if torch.is_tensor(value) else value
