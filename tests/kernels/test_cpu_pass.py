"""The compiled pass of a whole model against its reference in float64."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numba.core.caching
import pytest
import torch

from kernels.cpu_pass import (
    CompiledPasses,
    LayerWeights,
    ModelWeights,
    compiled,
    narrowest,
    pack,
    passes,
    reference,
    vectors,
)
from kernels.quantized_linear import QuantizedWeight, quantize

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from kernels.cpu_pass import PassOutputs

LIMIT = 1e-5
KINDS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}
# nheads, headdim, ngroups, d_state, d_model, vocabulary. Whole vectors: the first two.
SHAPES = {
    "whole": (4, 64, 1, 64, 48, 130),
    "grouped": (4, 64, 2, 128, 64, 64),
    "awkward": (6, 6, 2, 10, 35, 77),
    "half": (2, 64, 1, 24, 33, 1),
    "one": (1, 1, 1, 1, 1, 3),
}


def random_model(
    shape: str = "whole",
    kind: str = "float32",
    *,
    n_layers: int = 2,
    d_conv: int = 4,
    with_bias: bool = True,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    seed: int = 0,
) -> ModelWeights:
    """Random weights, the matrices such that `kind` holds them."""
    generator = torch.Generator().manual_seed(seed)
    nheads, headdim, ngroups, d_state, d_model, n_vocab = SHAPES[shape]
    d_inner = nheads * headdim
    conv_dim = d_inner + 2 * ngroups * d_state

    def noise(*size: int, scale: float = 1.0, mean: float = 0.0) -> Tensor:
        return mean + scale * torch.randn(size, generator=generator)

    def matrix(n_rows: int, k: int) -> Tensor | QuantizedWeight:
        values = noise(n_rows, k, scale=k**-0.5)
        if kind == "int8":
            return quantize(values, 8)
        return values.bfloat16().float() if kind == "bfloat16" else values

    layers = [
        LayerWeights(
            norm=noise(d_model, scale=0.1, mean=1),
            in_proj=matrix(d_inner + conv_dim + nheads, d_model),
            conv=noise(conv_dim, d_conv, scale=0.5),
            conv_bias=noise(conv_dim) if with_bias else None,
            A=-torch.exp(noise(nheads, scale=0.3, mean=-1)),
            D=noise(nheads),
            dt_bias=noise(nheads, mean=-1),
            gate_norm=noise(d_inner, scale=0.1, mean=1),
            out_proj=matrix(d_model, d_inner),
        )
        for _ in range(n_layers)
    ]
    embeddings = noise(n_vocab, d_model)
    return ModelWeights(
        embeddings=quantize(embeddings, 8) if kind == "int8" else embeddings,
        layers=layers,
        norm_f=noise(d_model, scale=0.1, mean=1),
        head=matrix(n_vocab, d_model),
        ngroups=ngroups,
        d_state=d_state,
        norm_eps=1e-5,
        dt_limit=dt_limit,
    )


def random_inputs(weights: ModelWeights, length: int, seed: int = 1) -> tuple[Tensor, ...]:
    """Tokens, and both states before them."""
    generator = torch.Generator().manual_seed(seed)
    first, n_layers = weights.layers[0], len(weights.layers)
    nheads = len(first.A)
    conv_dim, d_conv = first.conv.shape
    sizes = (
        (n_layers, d_conv - 1, conv_dim),
        (n_layers, nheads, len(first.gate_norm) // nheads, weights.d_state),
    )
    tokens = torch.randint(weights.head.shape[0], (length,), generator=generator)
    return tokens, *(torch.randn(size, generator=generator) for size in sizes)


def made_ready(weights: ModelWeights, n_threads: int = 1) -> CompiledPasses:
    kind = narrowest(weights)
    assert kind is not None
    return CompiledPasses(weights, pack(weights, kind), n_threads)


def check(found: PassOutputs, weights: ModelWeights, inputs: tuple[Tensor, ...]) -> None:
    """Hold every output against the reference in float64."""
    tokens, *states = inputs
    expected = reference.short_pass(weights, tokens, *(state.double() for state in states))
    for name, value in expected._asdict().items():
        of_found = getattr(found, name)
        assert of_found.shape == value.shape, name
        assert of_found.dtype == torch.float32, name
        if not value.numel():
            continue
        error, size = float((of_found.double() - value).norm()), float(value.norm())
        assert error <= LIMIT * size, f"{name} is {error:.1e} of {size:.1e} off"


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody writes is NaN, outputs and working memory."""
    plain, like = torch.empty, torch.empty_like

    def poison(tensor: Tensor) -> Tensor:
        return tensor.fill_(torch.nan) if tensor.is_floating_point() else tensor

    monkeypatch.setattr(torch, "empty", lambda *a, **options: poison(plain(*a, **options)))
    monkeypatch.setattr(passes, "_room", lambda *sizes: torch.full(sizes, torch.nan))
    monkeypatch.setattr(torch, "empty_like", lambda *a, **options: poison(like(*a, **options)))


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("shape", list(SHAPES))
def test_every_output_at_every_length(shape: str, kind: str) -> None:
    weights = random_model(shape, kind)
    assert narrowest(weights) == KINDS[kind]
    ready = made_ready(weights)
    # Growing and shrinking again: there is room for the longest so far.
    for length in (1, 2, 3, 16, 7, 33):
        inputs = random_inputs(weights, length)
        check(ready(*inputs), weights, inputs)


@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize("d_conv", [1, 2, 5])
@pytest.mark.parametrize("dt_limit", [(0.0, float("inf")), (0.1, 0.3)], ids=["free", "limited"])
def test_optional_parts(with_bias: bool, d_conv: int, dt_limit: tuple[float, float]) -> None:
    for shape in ("whole", "awkward"):
        weights = random_model(shape, with_bias=with_bias, d_conv=d_conv, dt_limit=dt_limit)
        ready = made_ready(weights)
        for length in (1, 4):
            inputs = random_inputs(weights, length)
            check(ready(*inputs), weights, inputs)


@pytest.mark.parametrize("shape", ["whole", "awkward"])
def test_strong_inputs(shape: str) -> None:
    """Decays that vanish, gates that close, steps far from 0 on both sides."""
    weights = random_model(shape)
    tokens, conv_state, ssm_state = random_inputs(weights, 16)
    for layer in weights.layers:
        layer.dt_bias.mul_(30)
        layer.A.mul_(30)
        layer.norm.mul_(4)
    ready = made_ready(weights)
    inputs = (tokens, conv_state * 30, ssm_state * 1e-3)
    check(ready(*inputs), weights, inputs)


def test_int8_is_the_product_with_the_dequantized_weights() -> None:
    weights = random_model("grouped", "int8")
    inputs = random_inputs(weights, 5)
    head = weights.head
    assert isinstance(head, QuantizedWeight)
    found = made_ready(weights)(*inputs)
    expected = found.hidden.double() @ (head.values.double() * head.scales.double()[:, None]).t()
    assert float((found.logits - expected).norm() / expected.norm()) < LIMIT


def test_int8_with_inputs_far_apart_or_missing() -> None:
    """One input a hundred times the others, only zeros, and what is no number."""
    weights = random_model("grouped", "int8")
    embeddings = weights.embeddings
    assert isinstance(embeddings, QuantizedWeight)
    plain = embeddings.dequantize()
    plain[0, 5] = 100
    plain[1] = 0
    plain[2, 3] = torch.nan
    weights = ModelWeights(**{**vars(weights), "embeddings": plain})
    ready = made_ready(weights)
    for token in (0, 1):
        inputs = (torch.tensor([token]), *random_inputs(weights, 1)[1:])
        check(ready(*inputs), weights, inputs)
    inputs = (torch.tensor([2]), *inputs[1:])
    assert ready(*inputs).logits.isnan().all()


def test_weights_of_4_bits_and_mixed_ones_have_no_type() -> None:
    weights = random_model("grouped")
    assert isinstance(weights.head, torch.Tensor)
    for bits in (8, 4):
        head = quantize(weights.head, bits, group_size=32)
        assert narrowest(ModelWeights(**{**vars(weights), "head": head})) is None


@pytest.mark.parametrize("shape", list(SHAPES))
def test_inputs_are_only_read_and_outputs_are_its_own(shape: str) -> None:
    weights = random_model(shape)
    ready, inputs = made_ready(weights), random_inputs(weights, 5)
    before = [part.clone() for part in inputs]
    first = ready(*inputs)
    kept = [part.clone() for part in first]
    for part in ready(*inputs):
        part.fill_(torch.nan)
    assert all(map(torch.equal, inputs, before))
    assert all(map(torch.equal, first, kept))


def test_a_state_takes_the_room_of_one_that_nobody_keeps() -> None:
    weights = random_model()
    ready = made_ready(weights)
    token, conv_state, ssm_state = random_inputs(weights, 1)
    kept, places = [], set()
    for number in range(24):
        after = ready(token, conv_state, ssm_state)
        conv_state, ssm_state = after.conv_state, after.ssm_state
        # A view is enough to keep it.
        if number % 8 == 0:
            kept.append((ssm_state[0], ssm_state[0].clone()))
        places.add(ssm_state.data_ptr())
        del after
    assert all(torch.equal(*pair) for pair in kept)
    assert len(places) < 24 / 2


def test_without_logits_all_else_is_the_same() -> None:
    weights = random_model()
    for n_threads in (1, 2):
        ready, inputs = made_ready(weights, n_threads), random_inputs(weights, 5)
        full, bare = ready(*inputs), ready(*inputs, with_logits=False)
        assert bare.logits.shape == (5, 0)
        assert all(map(torch.equal, full[1:], bare[1:]))


@pytest.mark.parametrize("shape", ["grouped", "awkward"])
def test_threads_change_nothing(shape: str) -> None:
    """Who does what share of a pass has no influence: bit by bit, over many passes."""
    weights = random_model(shape, n_layers=4)
    alone, together = made_ready(weights), made_ready(weights, 2)
    inputs = [random_inputs(weights, length, seed=length) for length in (1, 3, 17)]
    expected = [alone(*given) for given in inputs]
    for number in range(300):
        found = together(*inputs[number % 3])
        assert all(map(torch.equal, found, expected[number % 3])), number


def test_threads_end_with_the_passes() -> None:
    ready = made_ready(random_model(), 3)
    threads = [helper.thread for helper in ready.helpers]
    assert len(threads) == 2
    assert all(thread.is_alive() for thread in threads)
    del ready
    gc.collect()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()


def test_helpers_that_sleep_are_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "PATIENCE", 1)
    weights = random_model()
    ready, inputs = made_ready(weights, 2), random_inputs(weights, 3)
    for _ in range(50):
        check(ready(*inputs), weights, inputs)
    (helper,) = ready.helpers
    assert helper.n_woken > 0


def test_nowhere_to_keep_compiled_code(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Any) -> None:
        raise PermissionError("read-only")

    locator = numba.core.caching._CacheLocator
    monkeypatch.setattr(locator, "ensure_cache_path", fail)
    assert compiled.entry(0) is not None
    assert "every start compiles anew" in caplog.text


def test_a_full_disk_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain, n_calls = passes.run, 0

    def run(*args: Any) -> None:
        nonlocal n_calls
        n_calls += 1
        if n_calls == 1:
            raise OSError(28, "No space left on device")
        plain(*args)

    monkeypatch.setattr(passes, "run", run)
    weights = random_model()
    ready, inputs = made_ready(weights), random_inputs(weights, 2)
    check(ready(*inputs), weights, inputs)
    assert "could not be kept" in caplog.text


OTHER_LANES = """
import sys, pytest, platform
from llvmlite import binding
machine, features = platform.machine, binding.get_host_cpu_features()
features = type(features)({name: has for name, has in features.items() if "avx512" not in name})
binding.get_host_cpu_features = lambda: features
platform.machine = lambda: sys.argv[1]
from kernels.cpu_pass import vectors
platform.machine = machine
assert (vectors.LANES, vectors.TILE_TOKENS) == (int(sys.argv[2]), int(sys.argv[3]))
options = ["-q", "-p", "no:cacheprovider", "-k", "every_output and not bfloat16"]
sys.exit(pytest.main([*options, sys.argv[4]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("machine", "lanes", "tokens"), [("x86_64", 8, 2), ("arm64", 4, 4)])
def test_vectors_of_other_cpus(machine: str, lanes: int, tokens: int, tmp_path: Path) -> None:
    """The code that CPUs without AVX-512 get, run on this one."""
    if lanes == vectors.LANES:
        pytest.skip("these are this CPU's own")
    arguments = [machine, str(lanes), str(tokens), __file__]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", OTHER_LANES, *arguments], check=True, env=environment)
