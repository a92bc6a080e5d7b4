from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import pytest
import torch

from engine import decode
from engine.cache import Checkpoint, StateCache
from engine.decode import MAX_PASS_TOKENS, Decoder, Draft, Work
from tests.oracle import TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from engine.mamba2 import Mamba2
    from engine.tokenizer import Tokenizer

T = TypeVar("T")

# As tokenizers with byte fallback have it: characters cut into bytes, bytes that are pieces too.
CONTROL = [b"", b"", b""]
BYTES = [bytes([byte]) for byte in sorted(set("ab é€".encode()))]
WORDS = [b"a", b"b", b"ab", b"ba", b"aba", b"bb", b" a", b" ab", b"  ", "é".encode()]
WORDS += ["aé".encode(), "é€".encode(), "€b".encode(), b"abab", b"a ", b"b  a"]
PIECES = [*CONTROL, *BYTES, *WORDS]
EOS_ID = 1
N_PADDED = 5


class TinyVocabulary:
    """As much of a Tokenizer as decoding asks for, on PIECES."""

    pieces = PIECES
    n_vocab = len(PIECES)
    eos_id = EOS_ID

    def piece_bytes(self, token_id: int) -> bytes:
        return PIECES[token_id]


def run(steps: Generator[None, None, T]) -> tuple[T, int]:
    """Step to the end; give the result, and how often it yielded."""
    n_yields = 0
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value, n_yields
        n_yields += 1


def random_ids(n: int, seed: int = 0) -> NDArray[np.int32]:
    return np.random.default_rng(seed).integers(len(PIECES), size=n, dtype=np.int32)


def from_scratch(model: Mamba2, ids: NDArray[np.int32]) -> tuple[Tensor, Tensor]:
    """Logits and next logits after one more token, without a cache."""
    tokens = torch.tensor(ids.tolist())[None]
    hidden, state = model.prefill(tokens)
    return model.logits(hidden[0, -1]), model(torch.tensor([4]), state).logits[-1]


@pytest.fixture
def decoder(tiny_model: Callable[..., Mamba2]) -> Iterator[Decoder]:
    model = tiny_model(vocab_size=len(PIECES) + N_PADDED)
    with torch.inference_mode():
        yield Decoder(model, cast("Tokenizer", TinyVocabulary()), StateCache(10**9))


def read(decoder: Decoder, ids: NDArray[np.int32]) -> tuple[Checkpoint, Work]:
    work = Work()
    checkpoint, n_yields = run(decoder.read(ids, work))
    assert n_yields == work.n_passes, "every pass is a place to stop"
    assert checkpoint.ids.tolist() == ids.tolist()
    return checkpoint, work


def check_state(model: Mamba2, checkpoint: Checkpoint) -> None:
    logits, after = from_scratch(model, checkpoint.ids)
    torch.testing.assert_close(model.logits(checkpoint.hidden), logits, atol=TOLERANCE, rtol=0)
    following = model(torch.tensor([4]), checkpoint.state).logits[-1]
    torch.testing.assert_close(following, after, atol=TOLERANCE, rtol=0)


# Reading


@pytest.mark.parametrize("n_tokens", [1, 2, 16, 17, 64, 65, 200, 500])
@pytest.mark.parametrize("chunk_tokens", [32, 64, 2048])
def test_every_checkpoint_of_a_prefill_is_the_state_from_scratch(
    decoder: Decoder, n_tokens: int, chunk_tokens: int
) -> None:
    decoder.chunk_tokens = chunk_tokens
    ids = random_ids(n_tokens)
    last, work = read(decoder, ids)
    assert work.n_recomputed == n_tokens
    ends = list(decoder.cuts(0, n_tokens))
    assert len(decoder.cache) == work.n_passes == len(ends)
    for end in ends:
        kept = decoder.cache.longest_prefix(ids[:end])
        assert kept is not None
        assert len(kept.ids) == end
        check_state(decoder.model, kept)
    assert decoder.cache.longest_prefix(ids) is last


def test_a_prompt_that_is_cached_whole_costs_no_pass(decoder: Decoder) -> None:
    ids = random_ids(100)
    first, _ = read(decoder, ids)
    again, work = read(decoder, ids.copy())
    assert again is first
    assert (work.n_recomputed, work.n_passes) == (0, 0)


@pytest.mark.parametrize("n_typed", [1, 2, 8, MAX_PASS_TOKENS, 17, 100])
def test_typing_at_the_end_costs_the_new_tokens(decoder: Decoder, n_typed: int) -> None:
    ids = random_ids(150)
    read(decoder, ids[: 150 - n_typed])
    checkpoint, work = read(decoder, ids)
    assert work.n_recomputed == n_typed
    if n_typed <= 8:
        assert work.n_passes == 1
    check_state(decoder.model, checkpoint)


@pytest.mark.parametrize("chunk_tokens", [64, 2048], ids="chunk{}".format)
def test_going_back_d_tokens_costs_at_most_2d_and_8(decoder: Decoder, chunk_tokens: int) -> None:
    n_tokens = 400
    decoder.chunk_tokens = chunk_tokens
    ids = random_ids(n_tokens)
    read(decoder, ids)
    for d in range(1, n_tokens):
        kept = decoder.cache.longest_prefix(ids[: n_tokens - d])
        recomputed = n_tokens - d - (0 if kept is None else len(kept.ids))
        assert recomputed <= 2 * d + 8, f"going back {d}"


def test_going_back_and_typing_something_else(decoder: Decoder) -> None:
    ids = random_ids(150)
    read(decoder, ids)
    other = np.concatenate([ids[:140], random_ids(5, seed=1)])
    checkpoint, work = read(decoder, other)
    assert work.n_recomputed <= 2 * 10 + 8
    check_state(decoder.model, checkpoint)


def test_stopped_between_passes_it_goes_on_from_there(decoder: Decoder) -> None:
    ids = random_ids(300)
    work = Work()
    steps = decoder.read(ids, work)
    next(steps)
    next(steps)
    steps.close()
    checkpoint, rest = read(decoder, ids)
    assert work.n_recomputed == list(decoder.cuts(0, 300))[1]
    assert rest.n_recomputed == 300 - work.n_recomputed
    check_state(decoder.model, checkpoint)


def test_without_a_budget_everything_is_read_again(
    decoder: Decoder, tiny_model: Callable[..., Mamba2]
) -> None:
    poor = Decoder(decoder.model, decoder.tokenizer, StateCache(0))
    ids = random_ids(100)
    for _ in range(2):
        checkpoint, work = read(poor, ids)
        assert work.n_recomputed == 100
        check_state(poor.model, checkpoint)


def test_the_bytes_of_a_checkpoint_are_all_it_keeps_alive(decoder: Decoder) -> None:
    ids = random_ids(200)
    read(decoder, ids)
    for end in decoder.cuts(0, 200):
        kept = decoder.cache.longest_prefix(ids[:end])
        assert kept is not None
        tensors = (kept.state.conv_state, kept.state.ssm_state, kept.hidden)
        held = sum(tensor.untyped_storage().nbytes() for tensor in tensors)
        owner = kept.ids if kept.ids.base is None else kept.ids.base
        assert held + owner.nbytes == kept.n_bytes


@pytest.mark.parametrize("chunk_tokens", [16, 64, 1000])
@pytest.mark.parametrize(
    ("start", "end"), [(0, 0), (5, 5), (0, 1), (0, 1000), (17, 1000), (990, 1000), (900, 1000)]
)
def test_cuts(decoder: Decoder, chunk_tokens: int, start: int, end: int) -> None:
    decoder.chunk_tokens = chunk_tokens
    cuts = list(decoder.cuts(start, end))
    passes = np.diff([start, *cuts])
    assert all(0 < n_tokens <= chunk_tokens for n_tokens in passes)
    assert cuts[-1:] == ([end] if end > start else [])
    near = {end - d for d in decode.CHECKPOINT_DISTANCES if end - d > start}
    assert near <= set(cuts)
    assert len(cuts) <= len(near) + (end - start) // chunk_tokens + 1


# Covering the held-back text


class Paths:
    """Every covering token path with its joint log probability, from scratch."""

    def __init__(self, model: Mamba2, prompt: NDArray[np.int32]) -> None:
        self._model, self._prompt = model, prompt.tolist()
        self.log_probs = lru_cache(None)(self._log_probs)

    def _log_probs(self, path: tuple[int, ...]) -> list[float]:
        hidden, _ = self._model.prefill(torch.tensor([[*self._prompt, *path]]))
        return torch.log_softmax(self._model.logits(hidden[0, -1]), -1).tolist()

    def all(
        self, held: bytes, path: tuple[int, ...] = ()
    ) -> Iterator[tuple[float, tuple[int, ...]]]:
        """Yield (log probability, path) for each sequence of pieces that reaches held's end."""
        written = b"".join(PIECES[i] for i in path)
        if path and written.startswith(held):
            yield sum(self.log_probs(path[:i])[path[i]] for i in range(len(path))), path
            return
        for token_id in self.allowed(held, path):
            yield from self.all(held, (*path, token_id))

    def allowed(self, held: bytes, path: tuple[int, ...]) -> list[int]:
        left = held[len(b"".join(PIECES[i] for i in path)) :]
        return [
            i
            for i, piece in enumerate(PIECES)
            if piece and (left.startswith(piece) or piece.startswith(left))
        ]

    def greedy(self, held: bytes) -> tuple[int, ...]:
        """Give the path of the best allowed token each time: what cover must not settle for."""
        path: tuple[int, ...] = ()
        while not path or not b"".join(PIECES[i] for i in path).startswith(held):
            path = (*path, max(self.allowed(held, path), key=self.log_probs(path).__getitem__))
        return path


def cover(decoder: Decoder, held: bytes, ids: NDArray[np.int32]) -> tuple[Draft, Work]:
    checkpoint, _ = run(decoder.read(ids, Work()))
    work = Work()
    draft, n_yields = run(decoder.cover(held, checkpoint, work, keep_rows=True))
    assert n_yields == work.n_healing_passes, "every pass is a place to stop"
    assert (work.n_recomputed, work.n_passes, work.n_generated) == (0, 0, 0)
    return draft, work


HELD = ["a", "ab", "aba", " ab", "é", "aé€", "bé€b", "abab a", "  ab", "b  abé", "€ba"]


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cover_takes_the_path_of_highest_joint_probability(
    tiny_model: Callable[..., Mamba2], monkeypatch: pytest.MonkeyPatch, held: str, seed: int
) -> None:
    monkeypatch.setattr(decode, "MAX_COVER_PASSES", 10_000)
    check_cover(tiny_model, held.encode(), seed)


def check_cover(tiny_model: Callable[..., Mamba2], held: bytes, seed: int) -> bool:
    """Hold cover against all paths; tell whether greedy choice would have taken another one."""
    model = tiny_model(seed=seed, vocab_size=len(PIECES) + N_PADDED)
    # Wider, so that paths differ clearly.
    cast("Any", model.lm_head).weight.mul_(2)
    ids = random_ids(30, seed)
    with torch.inference_mode():
        decoder = Decoder(model, cast("Tokenizer", TinyVocabulary()), StateCache(10**9))
        draft, _ = cover(decoder, held, ids)
        paths = Paths(model, ids)
        ranked = sorted(paths.all(held), reverse=True)
        best = next(p for p in ranked if list(p[1]) == draft.token_ids)[0]
        assert best >= ranked[0][0] - TOLERANCE
        check_draft(model, ids, held, draft)
        return list(paths.greedy(held)) != draft.token_ids


def check_draft(model: Mamba2, ids: NDArray[np.int32], held: bytes, draft: Draft) -> None:
    assert draft.text == b"".join(PIECES[i] for i in draft.token_ids)
    assert draft.text.startswith(held)
    assert not b"".join(PIECES[i] for i in draft.token_ids[:-1]).startswith(held)
    hidden, state = model.prefill(torch.tensor([[*ids.tolist(), *draft.token_ids]]))
    logits = model.logits(hidden[0, len(ids) - 1 :])
    torch.testing.assert_close(torch.stack([*draft.rows, draft.logits]), logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(draft.state.ssm_state, state.ssm_state, atol=1e-4, rtol=1e-4)


def test_the_best_path_is_often_not_the_greedy_one(
    tiny_model: Callable[..., Mamba2], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the test above would prove nothing."""
    monkeypatch.setattr(decode, "MAX_COVER_PASSES", 10_000)
    n_different = sum(check_cover(tiny_model, held.encode(), 0) for held in HELD)
    assert n_different >= 3


def test_nothing_held_costs_nothing(decoder: Decoder) -> None:
    ids = random_ids(20)
    draft, work = cover(decoder, b"", ids)
    assert (draft.token_ids, draft.text, draft.rows, work.n_healing_passes) == ([], b"", [], 0)
    torch.testing.assert_close(
        draft.logits, from_scratch(decoder.model, ids)[0], atol=TOLERANCE, rtol=0
    )


def test_covering_does_not_change_what_is_cached(decoder: Decoder) -> None:
    ids = random_ids(20)
    cover(decoder, b"abab a", ids)
    kept = decoder.cache.longest_prefix(ids)
    assert kept is not None
    check_state(decoder.model, kept)


@pytest.mark.parametrize("max_passes", [1, 2, 5])
@pytest.mark.parametrize("held", ["abab abab", "é€é€é€ a", "€" * 10, "aé€b  ab" * 4])
def test_a_search_that_is_given_up_still_covers(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch, max_passes: int, held: str
) -> None:
    monkeypatch.setattr(decode, "MAX_COVER_PASSES", max_passes)
    ids = random_ids(20)
    draft, work = cover(decoder, held.encode(), ids)
    assert work.n_healing_passes <= max_passes + 1
    check_draft(decoder.model, ids, held.encode(), draft)


@pytest.mark.filterwarnings("error")
def test_covering_warns_of_nothing(decoder: Decoder) -> None:
    """As torch does, once a process, where it is given the vocabulary's read-only ids."""
    torch.set_warn_always(True)
    try:
        cover(decoder, b"ab", random_ids(20))
    finally:
        torch.set_warn_always(False)


# Writing on


def bias(model: Mamba2, token_id: int, hidden: Tensor) -> None:
    """Make a token the most probable one after anything like `hidden`."""
    cast("Any", model.lm_head).weight[token_id] = 10 * hidden


def write(decoder: Decoder, n_tokens: int, raw: bool = False) -> tuple[Draft, Work]:
    draft, _ = cover(decoder, b"", random_ids(20))
    work = Work()
    for _ in decoder.write(draft, raw, True, work):
        if work.n_generated == n_tokens:
            break
    return draft, work


def test_write_takes_the_best_token_each_time(decoder: Decoder) -> None:
    draft, work = write(decoder, 12)
    ids = random_ids(20).tolist()
    assert len(draft.token_ids) == len(draft.rows) == work.n_generated == 12
    assert work.n_passes == 11, "the last token needs no pass"
    hidden, _ = decoder.model.prefill(torch.tensor([ids + draft.token_ids[:-1]]))
    logits = decoder.model.logits(hidden[0, len(ids) - 1 :])
    torch.testing.assert_close(torch.stack(draft.rows), logits, atol=TOLERANCE, rtol=0)
    logits[:, decoder.banned] = -torch.inf
    assert logits.argmax(-1).tolist() == draft.token_ids
    assert draft.text == b"".join(PIECES[i] for i in draft.token_ids)


BANNED = [0, 2, *range(len(PIECES), len(PIECES) + N_PADDED)]


@pytest.mark.parametrize("token_id", BANNED)
@pytest.mark.parametrize("raw", [False, True], ids=["code", "raw"])
def test_control_and_padded_ids_are_written_only_raw(
    decoder: Decoder, token_id: int, raw: bool
) -> None:
    read(decoder, random_ids(20))
    kept = decoder.cache.longest_prefix(random_ids(20))
    assert kept is not None
    bias(decoder.model, token_id, kept.hidden)
    draft, _ = write(decoder, 8, raw)
    assert (token_id in draft.token_ids) is raw
    assert bool(set(draft.token_ids) & set(BANNED)) is raw
    assert int(draft.rows[0].argmax()) == token_id, "the rows are the model's own"
    assert draft.text == b"".join(PIECES[i] for i in draft.token_ids if i < len(PIECES))


@pytest.mark.parametrize("raw", [False, True], ids=["code", "raw"])
def test_the_end_of_the_sequence_ends_it_and_is_not_written(decoder: Decoder, raw: bool) -> None:
    checkpoint, _ = read(decoder, random_ids(20))
    bias(decoder.model, EOS_ID, checkpoint.hidden)
    draft, work = write(decoder, 8, raw)
    assert (draft.token_ids, draft.text, draft.rows) == ([], b"", [])
    assert (work.n_generated, work.n_passes) == (0, 0)


def test_rows_are_kept_on_request_alone(decoder: Decoder) -> None:
    checkpoint, _ = read(decoder, random_ids(20))
    draft, _ = run(decoder.cover(b"ab", checkpoint, Work(), keep_rows=False))
    steps = decoder.write(draft, False, False, Work())
    next(steps)
    assert draft.rows == []
