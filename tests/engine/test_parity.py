"""The model against transformers' Mamba2ForCausalLM, in float32, through both layouts on disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from engine.checkpoint import load_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from engine.mamba2 import Mamba2
    from engine.state import RecurrentState

TOLERANCE = 1e-4
N_TOKENS = 80  # crosses the prefill's chunk of 64
VOCAB_SIZE = 320

# headdim, d_state, expand and d_conv are those that params.json leaves unsaid.
BASE: dict[str, Any] = {
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "vocab_size": VOCAB_SIZE,
    "num_heads": 8,
    "head_dim": 64,
    "state_size": 128,
    "tie_word_embeddings": False,
}
CASES: dict[str, dict[str, Any]] = {
    "ngroups1": {"n_groups": 1},
    "ngroups2": {"n_groups": 2},
    "ngroups8": {"n_groups": 8},
    "tied": {"n_groups": 2, "tie_word_embeddings": True},
    # Mistral's layout can say neither of these two.
    "no_conv_bias": {"n_groups": 2, "use_conv_bias": False},
    "dt_limit": {"n_groups": 8, "time_step_limit": (0.1, 0.15)},
}
MISTRAL_CASES = ("ngroups1", "ngroups2", "ngroups8", "tied")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A model of ours and the oracle it was loaded from, and what both say of `tokens`.

    `prefills[k]` is our hidden and state after the first k tokens, read from scratch.
    """

    case: str
    ours: Mamba2
    oracle: Any
    tokens: Tensor
    logits: Tensor
    prefills: list[tuple[Tensor, RecurrentState]]


@pytest.fixture(
    scope="module",
    params=[(case, "huggingface") for case in CASES]
    + [(case, "mistral") for case in MISTRAL_CASES],
    ids="-".join,
)
def pair(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    randomize_parameters: Callable[..., None],
) -> Pair:
    case, layout = request.param
    config = transformers.Mamba2Config(**{**BASE, **CASES[case]})
    oracle = transformers.Mamba2ForCausalLM(config).eval()
    randomize_parameters(oracle.named_parameters(), seed=7)
    directory = tmp_path_factory.mktemp(f"{case}-{layout}")
    oracle.save_pretrained(directory)
    if layout == "mistral":
        re_lay(directory)
    tokens = torch.randint(VOCAB_SIZE, (N_TOKENS,), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = oracle(tokens[None], use_cache=False).logits[0]
    ours = load_model(directory)
    return Pair(
        case=case,
        ours=ours,
        oracle=oracle,
        tokens=tokens,
        logits=logits,
        prefills=[ours.prefill(tokens[None, :k]) for k in range(N_TOKENS + 1)],
    )


def re_lay(directory: Path) -> None:
    """Turn a directory of Hugging Face's layout into one of Mistral's."""
    config = json.loads((directory / "config.json").read_text())
    params = {
        "dim": config["hidden_size"],
        "n_layers": config["num_hidden_layers"],
        "vocab_size": VOCAB_SIZE - 1,
        "n_groups": config["n_groups"],
        "rms_norm": True,
        "residual_in_fp32": True,
        "fused_add_norm": True,
        "pad_vocab_size_multiple": 64,
        "tie_embeddings": config["tie_word_embeddings"],
        "model_type": "mamba",
    }
    weights = load_file(directory / "model.safetensors")
    renamed = {
        "model." + name.replace("embeddings", "embedding"): tensor
        for name, tensor in weights.items()
    }
    for file in directory.iterdir():
        file.unlink()
    save_file(renamed, directory / "consolidated.safetensors")
    (directory / "params.json").write_text(json.dumps(params))


def assert_close(found: Tensor, expected: Tensor, what: str) -> None:
    assert found.shape == expected.shape, what
    error = (found - expected).abs().max().item() if found.numel() else 0.0
    assert error <= TOLERANCE, f"{what}: off by {error:.1e}"


def test_prefill_of_every_length(pair: Pair) -> None:
    for k, (hidden, _) in enumerate(pair.prefills):
        assert_close(pair.ours.logits(hidden[0]), pair.logits[:k], f"prefill of {k}")


def test_every_split_into_prefill_and_one_pass(pair: Pair) -> None:
    for k, (_, state) in enumerate(pair.prefills):
        read = pair.ours.forward(pair.tokens[k:], state)
        assert_close(read.logits, pair.logits[k:], f"pass over all tokens from {k}")


def test_every_split_of_the_prefill(pair: Pair) -> None:
    for k, (_, state) in enumerate(pair.prefills):
        hidden, _ = pair.ours.prefill(pair.tokens[None, k:], state)
        assert_close(pair.ours.logits(hidden[0]), pair.logits[k:], f"second prefill from {k}")


@pytest.mark.parametrize(("start", "n_unlogged"), [(0, 60), (5, 0), (30, 50), (79, 1)])
def test_reading_gives_every_state_on_the_way(pair: Pair, start: int, n_unlogged: int) -> None:
    """And a log that leads from one of them to all that follow."""
    _, base = pair.prefills[start]
    positions = [0, *range(N_TOKENS - start, 0, -1)]
    reading = pair.ours.read(pair.tokens[start:], base, positions, n_unlogged)
    assert_close(pair.ours.logits(reading.hidden), pair.logits[start:], f"reading from {start}")
    states = dict(zip(positions, reading.states, strict=True))
    for n, state in states.items():
        _, expected = pair.prefills[start + n]
        assert_close(state.ssm_state, expected.ssm_state, f"ssm_state after {n} from {start}")
        assert_close(state.conv_state, expected.conv_state, f"conv_state after {n} from {start}")
        assert state.ssm_state.untyped_storage().nbytes() == state.ssm_state.nbytes
    assert reading.log.n_tokens == N_TOKENS - start - n_unlogged
    for n in range(reading.log.n_tokens + 1):
        state = reading.log.replay(states[n_unlogged], pair.ours.A, n)
        _, expected = pair.prefills[start + n_unlogged + n]
        assert_close(state.ssm_state, expected.ssm_state, f"ssm_state {n} along the log")
        assert_close(state.conv_state, expected.conv_state, f"conv_state {n} along the log")


@pytest.mark.parametrize("n_pass", [1, 2, 7, 16])
def test_passes_one_after_another(pair: Pair, n_pass: int) -> None:
    _, state = pair.prefills[5]
    for k in range(5, N_TOKENS, n_pass):
        read = pair.ours.forward(pair.tokens[k : k + n_pass], state)
        assert_close(read.logits, pair.logits[k : k + n_pass], f"pass from {k}")
        state = read.commit(len(read))


@pytest.mark.parametrize("start", [0, 1, 50])
def test_commit_of_every_length(pair: Pair, start: int) -> None:
    """The tokens after the n-th that the pass read were a wrong guess: they must leave no trace."""
    length = 24
    _, base = pair.prefills[start]
    for n in range(length + 1):
        guess = pair.tokens[start : start + length].clone()
        guess[n:] = (guess[n:] + 1) % VOCAB_SIZE
        read = pair.ours.forward(guess, base)
        after = pair.ours.forward(pair.tokens[start + n : start + 30], read.commit(n))
        assert_close(
            after.logits, pair.logits[start + n : start + 30], f"after commit({n}) at {start}"
        )


def test_committed_state_is_the_oracles(pair: Pair) -> None:
    taps = pair.ours.config.d_conv - 1
    _, base = pair.prefills[60]
    read = pair.ours.forward(pair.tokens[60:], base)
    for n in (1, 2, 3, 4, 19):
        with torch.no_grad():
            cache = pair.oracle(pair.tokens[None, : 60 + n], use_cache=True).cache_params
        state = read.commit(n)
        for layer in range(pair.ours.config.n_layers):
            ssm_state = cache.get_recurrent_state(layer, state_idx=0)
            conv_state = cache.get_conv_state(layer, state_idx=0)[..., -taps:].transpose(1, 2)
            assert_close(state.ssm_state[layer], ssm_state, f"ssm_state {layer}, commit({n})")
            assert_close(state.conv_state[layer], conv_state, f"conv_state {layer}, commit({n})")


def test_base_state_is_only_read(pair: Pair) -> None:
    _, base = pair.ours.prefill(pair.tokens[None, :30])
    before = (base.conv_state.clone(), base.ssm_state.clone())
    read = pair.ours.forward(pair.tokens[30:40], base)
    for n in range(len(read) + 1):
        read.commit(n)
    pair.ours.prefill(pair.tokens[None, 30:], base)
    assert torch.equal(base.conv_state, before[0])
    assert torch.equal(base.ssm_state, before[1])


@pytest.mark.parametrize("n", [-1, 4])
def test_commit_outside_the_pass(pair: Pair, n: int) -> None:
    read = pair.ours.forward(pair.tokens[:3], pair.ours.initial_state())
    with pytest.raises(ValueError, match=f"{n} tokens of a pass over 3"):
        read.commit(n)


def test_greedy_continuation(pair: Pair) -> None:
    if pair.case == "dt_limit":
        pytest.skip("transformers forgets the limit when it decodes one token at a time")
    prompt = pair.tokens[None, :40]
    with torch.no_grad():
        generated = pair.oracle.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=64,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )[0]
        gaps = pair.oracle(generated[None], use_cache=False).logits[0].topk(2).values
    theirs = generated[40:].tolist()
    hidden, state = pair.prefills[40]
    ours = [int(pair.ours.logits(hidden[0, -1]).argmax())]
    while len(ours) < 64:
        read = pair.ours.forward(torch.tensor(ours[-1:]), state)
        ours.append(int(read.logits[-1].argmax()))
        state = read.commit(1)
    assert len(theirs) == 64
    for i, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        if mine != other:
            first, second = gaps[39 + i].tolist()
            assert first - second < 2 * TOLERANCE, f"token {i} differs, and it is no tie"
            return


def test_long_memory(pair: Pair) -> None:
    """What is compared depends on tokens far back, so a lost state would show."""
    tokens = torch.randint(VOCAB_SIZE, (2, 300), generator=torch.Generator().manual_seed(2))
    tokens[1, -200:] = tokens[0, -200:]
    with torch.no_grad():
        first, second = pair.oracle(tokens, use_cache=False).logits[:, -1]
    assert (first - second).abs().max() > 100 * TOLERANCE


def test_batch_rows_are_alone(pair: Pair) -> None:
    rows = torch.stack((pair.tokens, pair.tokens.flip(0)))
    hidden, _ = pair.ours.prefill(rows)
    assert_close(pair.ours.logits(hidden[0]), pair.logits, "first row of a batch")
