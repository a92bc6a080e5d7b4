"""A model of Codestral's shape on random weights: decoding, keystrokes, prefill, kept states."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from engine.cache import Checkpoint, StateCache
from engine.config import Mamba2Config
from engine.mamba2 import Mamba2
from engine.quantized import Quantization, QuantizedLinear
from engine.slots import SlotPool, slot_bytes
from kernels.sending import send
from perf.gpu_device import synchronize

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from engine.state import RecurrentState
    from perf.gpu_device import Floors

CODESTRAL = Mamba2Config(
    d_model=4096,
    n_layers=64,
    vocab_size=32768,
    d_state=128,
    headdim=64,
    ngroups=8,
    tie_embeddings=False,
)
KEYSTROKE_TOKENS = (1, 2, 3, 4, 6, 8, 12, 16)


def random_model(
    config: Mamba2Config, device: torch.device, dtype: torch.dtype = torch.bfloat16
) -> Mamba2:
    """Make a model with random weights of usual sizes, on the device itself."""
    model = Mamba2(config, device=device, dtype=dtype).requires_grad_(False).eval()
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if name.endswith("dt_bias"):
            step = torch.empty_like(parameter).uniform_(math.log(1e-3), math.log(1e-1)).exp_()
            parameter.copy_(step + torch.log(-torch.expm1(-step)))
        elif name.endswith("A_log"):
            parameter.uniform_(1, 16).log_()
        elif name.endswith(("norm.weight", "norm_f.weight", "mixer.D")):
            parameter.uniform_(0.5, 1.5)
        else:
            parameter.normal_(std=1 / math.sqrt(math.prod(parameter.shape[1:])))
    for module in model.modules():
        if isinstance(module, QuantizedLinear):
            weight = torch.randn(module.weight.shape, device=device)
            made = module.kind.apply(weight / math.sqrt(weight.shape[1]))
            for name, tensor in made.tensors.items():
                getattr(module, name).copy_(tensor)
    return model


def token_bytes(model: Mamba2) -> int:
    """Give the bytes that a decoded token moves: weights once, the state there and back."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    if model.lm_head is not None:
        # Of the embeddings, one row.
        tensors.pop("backbone.embeddings.weight")
    n_bytes = sum(tensor.nbytes for tensor in tensors.values())
    return n_bytes + 2 * model.initial_state().n_bytes


def decode_s(model: Mamba2, state: RecurrentState, n_tokens: int) -> list[float]:
    """Decode greedily, reading each token as it comes; give the seconds of each."""
    token, seconds = 1, []
    for _ in range(n_tokens):
        started = time.perf_counter()
        result = model(send([token], model.device, torch.long), state)
        best = result.logits[-1].argmax()
        state = result.commit(1)
        token = int(best)
        seconds.append(time.perf_counter() - started)
    return seconds


def decoding(model: Mamba2, floors: Floors, *, n_tokens: int = 64) -> dict[str, Any]:
    """Measure decoding against moving the bytes that it takes."""
    state = model.prefill(_random_tokens(model, 1, 64))[1]
    decode_s(model, state, min(8, n_tokens))
    seconds = statistics.median(decode_s(model, state, n_tokens))
    floor = floors.seconds(token_bytes(model))
    return {
        "ms_per_token": 1e3 * seconds,
        "tokens_s": 1 / seconds,
        "floor_ms": 1e3 * floor,
        "share_of_floor": floor / seconds,
        "token_bytes": token_bytes(model),
    }


def keystrokes(
    model: Mamba2, *, lengths: tuple[int, ...] = KEYSTROKE_TOKENS, repeats: int = 30
) -> list[dict[str, Any]]:
    """Measure passes over the tokens of a keystroke, each with its commit, to its next token."""
    state = model.prefill(_random_tokens(model, 1, 64))[1]
    tokens = _random_tokens(model, max(lengths))

    def pass_s(n: int) -> float:
        started = time.perf_counter()
        result = model(tokens[:n], state)
        result.commit(n)
        int(result.logits[-1].argmax())
        return time.perf_counter() - started

    medians = {}
    for n in lengths:
        pass_s(n)
        medians[n] = statistics.median(pass_s(n) for _ in range(repeats))
    return [
        {"tokens": n, "ms": 1e3 * seconds, "over_one": seconds / medians[min(lengths)]}
        for n, seconds in medians.items()
    ]


def prefilling(
    model: Mamba2, floors: Floors, *, n_tokens: int = 4096, repeats: int = 5
) -> dict[str, Any]:
    """Measure the prefill of one chunk."""
    tokens = _random_tokens(model, 1, n_tokens)
    state = model.initial_state()

    def prefill() -> None:
        model.prefill(tokens, state)

    seconds = _median_s(prefill, model.device, repeats)
    n_weights = sum(p.numel() for block in model.blocks for p in block.parameters())
    return {
        "tokens": n_tokens,
        "ms": 1e3 * seconds,
        "tokens_s": n_tokens / seconds,
        "share_of_rate": 2 * n_weights * n_tokens / seconds / floors.bf16_flops_s,
    }


def long_prompt(
    model: Mamba2, *, n_tokens: int = 2**18, chunk: int = 4096, n_decoded: int = 32
) -> dict[str, Any]:
    """Measure whether time per token, memory and decoding stay what they were at the start."""
    state = model.initial_state()
    after_chunk = state
    seconds, allocated = [], []
    for n in range(n_tokens // chunk):
        tokens = _random_tokens(model, 1, chunk)
        synchronize(model.device)
        started = time.perf_counter()
        state = model.prefill(tokens, state)[1]
        synchronize(model.device)
        seconds.append(time.perf_counter() - started)
        allocated.append(_allocated_bytes(model.device))
        if not n:
            after_chunk = state
    # The first ones warm up; the state after the first chunk is kept.
    few = max(1, len(seconds) // 8)
    early = statistics.median(seconds[1 : 1 + few] or seconds)
    late = statistics.median(seconds[-few:])
    decode_s(model, state, 4)
    rounds = [
        [statistics.median(decode_s(model, start, n_decoded)) for start in (after_chunk, state)]
        for _ in range(3)
    ]
    decoded = [statistics.median(column) for column in zip(*rounds, strict=True)]
    return {
        "tokens": n_tokens,
        "tokens_s": n_tokens / sum(seconds),
        "late_over_early": late / early,
        "memory_growth_bytes": allocated[-1] - allocated[min(1, len(allocated) - 1)],
        "decode_late_over_early": decoded[1] / decoded[0],
        "early_tokens": chunk,
    }


def kept_states(model: Mamba2, *, n_tokens: int = 300, cut: int = 200) -> dict[str, Any]:
    """Check that a kept state is the state, in either tier, and that passes do not change it."""
    device = model.device
    room = slot_bytes(model.config, model.dtype)
    tiers = [
        SlotPool(model.config, room, dtype=model.dtype, device=device),
        SlotPool(model.config, 2 * room, dtype=model.dtype, pinned=device.type == "cuda"),
    ]
    cache = StateCache(tiers, device)
    tokens = _random_tokens(model, n_tokens)
    ids = tokens.cpu().numpy().astype(np.int32)
    hidden, state = model.prefill(tokens[None, :cut])
    before = [tensor.clone() for tensor in state.tensors]
    added_s = _once_s(lambda: cache.add(Checkpoint(ids[:cut], state, hidden[0, -1])), model.device)
    # Pushes the first one out to the host.
    other = model.prefill(tokens[None, 1:cut])[1]
    cache.add(Checkpoint(ids[1:cut], other, hidden[0, -1]))
    started = time.perf_counter()
    lease = cache.longest_prefix(ids)
    synchronize(device)
    fetched_s = time.perf_counter() - started
    if lease is None:
        raise RuntimeError("the state was not kept: is there memory for three?")
    with lease as found:
        equal = all(torch.equal(a, b) for a, b in zip(found.state.tensors, before, strict=True))
        result = model(tokens[cut : cut + 8], found.state)
        result.commit(8)
        unchanged = all(torch.equal(a, b) for a, b in zip(found.state.tensors, before, strict=True))
        rest = model.prefill(tokens[None, cut:], found.state)[0][0, -1]
    whole = model.prefill(tokens[None])[0][0, -1]
    in_two = model.prefill(tokens[None, cut // 2 :], model.prefill(tokens[None, : cut // 2])[1])[0][
        0, -1
    ]
    expected, other_chunks, kept = map(model.logits, (whole, in_two, rest))
    return {
        "state_bytes": state.n_bytes,
        "keep_ms": 1e3 * added_s,
        "fetch_from_host_ms": 1e3 * fetched_s,
        "from_tier": lease.tier,
        "equal": equal,
        "unchanged_by_a_pass": unchanged,
        "logits_distance": _distance(kept, expected),
        "distance_between_chunkings": _distance(other_chunks, expected),
    }


def agreement(config: Mamba2Config, device: torch.device, *, n_tokens: int = 24) -> dict[str, Any]:
    """Compare a float32 model of two layers with the same one on the CPU, where torch runs it."""
    small = replace(config, n_layers=2, vocab_size=min(config.vocab_size, 2048))
    reference = random_model(small, torch.device("cpu"), torch.float32)
    model = Mamba2(small, device=device, dtype=torch.float32).requires_grad_(False).eval()
    model.load_state_dict(reference.state_dict())
    model.capture_passes()
    tokens = torch.randint(0, small.vocab_size, (n_tokens,))
    cut = n_tokens - 8
    states = [reference.prefill(tokens[None, :cut])[1]]
    states.append(model.prefill(tokens[None, :cut].to(device))[1])
    passes = [reference(tokens[cut:], states[0]), model(tokens[cut:].to(device), states[1])]
    after = [result.commit(5) for result in passes]
    return {
        "prefill_state": _distance(states[1].ssm_state.cpu(), states[0].ssm_state),
        "logits": _distance(passes[1].logits.cpu(), passes[0].logits),
        "committed_state": _distance(after[1].ssm_state.cpu(), after[0].ssm_state),
    }


def measure(
    config: Mamba2Config,
    device: torch.device,
    floors: Floors,
    *,
    prefill_tokens: int = 4096,
    long_tokens: int = 2**18,
    repeats: int = 30,
) -> dict[str, Any]:
    """Measure the model in bfloat16, and decoding with quantized weights."""
    found: dict[str, Any] = {"n_layers": config.n_layers, "agreement": agreement(config, device)}
    model = random_model(config, device)
    model.capture_passes()
    found |= {
        "parameters": sum(p.numel() for p in model.parameters()),
        "decode": {"bf16": decoding(model, floors, n_tokens=2 * repeats)},
        "keystrokes": {"bf16": keystrokes(model, repeats=repeats)},
        "prefill": prefilling(model, floors, n_tokens=prefill_tokens),
        "long_prompt": long_prompt(
            model, n_tokens=long_tokens, chunk=prefill_tokens, n_decoded=repeats
        ),
        "kept_states": kept_states(model),
    }
    del model
    for name in ("int8", "int4"):
        model = random_model(replace(config, quantization=Quantization.named(name)), device)
        model.capture_passes()
        found["decode"][name] = decoding(model, floors, n_tokens=2 * repeats)
        found["keystrokes"][name] = keystrokes(model, lengths=(1, 8, 16), repeats=repeats)
        del model
    return found


def _random_tokens(model: Mamba2, *shape: int) -> Tensor:
    return torch.randint(0, model.config.vocab_size, shape, device=model.device)


def _median_s(call: Callable[[], None], device: torch.device, repeats: int) -> float:
    call()
    return statistics.median(_once_s(call, device) for _ in range(repeats))


def _once_s(call: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    started = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - started


def _distance(found: Tensor, expected: Tensor) -> float:
    """Give the largest difference, relative to the largest value; NaN counts as infinite."""
    difference = (found.double() - expected.double()).abs().max()
    return float(difference.nan_to_num(nan=torch.inf) / expected.abs().max())


def _allocated_bytes(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
