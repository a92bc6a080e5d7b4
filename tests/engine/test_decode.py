from __future__ import annotations

import math
from contextlib import ExitStack
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import pytest
import torch

from engine import covering, decode
from engine.cache import Checkpoint, StateCache
from engine.decode import MAX_PASS_TOKENS, Decoder, Work
from engine.mamba2 import InputLog
from engine.slots import SlotPool
from engine.trail import MAX_TOKENS, Trail
from tests.oracle import TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable, Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from engine.draft import Draft
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


def decoder_of(model: Mamba2, budget_bytes: int = 2**24, **options: Any) -> Decoder:
    cache = StateCache([SlotPool(model.config, budget_bytes)])
    return Decoder(model, cast("Tokenizer", TinyVocabulary()), cache, **options)


@pytest.fixture
def decoder(tiny_model: Callable[..., Mamba2]) -> Iterator[Decoder]:
    with torch.inference_mode():
        yield decoder_of(tiny_model(vocab_size=len(PIECES) + N_PADDED))


OWNER = ("a.py", "epoch")


def read(
    decoder: Decoder, ids: NDArray[np.int32], owner: Hashable = OWNER
) -> tuple[Checkpoint, Work]:
    """Read without letting go of what was leased: nothing is evicted in most tests."""
    work = Work()
    checkpoint, n_yields = run(decoder.read(ids, owner, work, ExitStack()))
    assert n_yields == work.n_passes, "every pass is a place to stop"
    assert checkpoint.ids.tolist() == ids.tolist()
    return checkpoint, work


def forget_trails(decoder: Decoder) -> None:
    decoder.trails.clear()


def kept_for(decoder: Decoder, ids: NDArray[np.int32]) -> Checkpoint:
    lease = decoder.cache.longest_prefix(ids)
    assert lease is not None
    return lease.checkpoint


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
    check_state(decoder.model, last)
    assert work.n_recomputed == n_tokens
    passes = list(decoder.passes(0, n_tokens))
    assert work.n_passes == len(passes)
    places = [place for one in passes for place in one]
    kept = [checkpoint for checkpoint, _ in decoder.cache.checkpoints()]
    assert n_tokens in [len(checkpoint.ids) for checkpoint in kept]
    for checkpoint in kept:
        assert len(checkpoint.ids) in places
        assert checkpoint.ids.tolist() == ids[: len(checkpoint.ids)].tolist()
        check_state(decoder.model, checkpoint)
    # Some were thinned again; none where they all were wanted.
    assert len(kept) + decoder.cache.counts["thinned"] == len(places)


@pytest.mark.parametrize("n_tokens", [1, 16, 17, 100])
@pytest.mark.parametrize("source", ["trail", "tier0"])
def test_a_prompt_that_is_kept_whole_costs_no_pass(
    decoder: Decoder, source: str, n_tokens: int
) -> None:
    ids = random_ids(n_tokens)
    _, work = read(decoder, ids)
    assert work.source == "none"
    if source == "tier0":
        forget_trails(decoder)
    assert decoder.n_missing(ids, OWNER) == 0
    again, work = read(decoder, ids.copy())
    assert (work.n_recomputed, work.n_passes, work.source) == (0, 0, source)
    check_state(decoder.model, again)


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
        # What is read again for a change there, and what is behind it.
        recomputed = n_tokens - decoder.cache.known(ids[: n_tokens - d])
        assert recomputed <= 2 * d + 8, f"going back {d}"


@pytest.mark.parametrize("chunk_tokens", [64, 2048], ids="chunk{}".format)
def test_an_edit_d_tokens_back_costs_at_most_2d_and_8(decoder: Decoder, chunk_tokens: int) -> None:
    decoder.chunk_tokens = chunk_tokens
    ids = random_ids(400)
    for d in (1, 2, 5, 9, 16, 17, 31, 32, 50, 100, 333):
        read(decoder, ids)
        changed = ids.copy()
        changed[-d] = (ids[-d] + 1) % len(PIECES)
        checkpoint, work = read(decoder, changed)
        assert work.n_recomputed <= 2 * d + 8, f"{d} back"
        check_state(decoder.model, checkpoint)


def test_going_back_and_typing_something_else(decoder: Decoder) -> None:
    ids = random_ids(150)
    read(decoder, ids)
    other = np.concatenate([ids[:140], random_ids(5, seed=1)])
    checkpoint, work = read(decoder, other)
    assert work.n_recomputed == 5, "the trail reaches back"
    check_state(decoder.model, checkpoint)
    forget_trails(decoder)
    other = np.concatenate([ids[:138], random_ids(5, seed=2)])
    checkpoint, work = read(decoder, other)
    assert 5 < work.n_recomputed <= 2 * 12 + 8
    check_state(decoder.model, checkpoint)


def test_stopped_between_passes_it_goes_on_from_there(decoder: Decoder) -> None:
    ids = random_ids(300)
    work = Work()
    steps = decoder.read(ids, OWNER, work, ExitStack())
    next(steps)
    next(steps)
    steps.close()
    checkpoint, rest = read(decoder, ids)
    assert work.n_recomputed == list(decoder.passes(0, 300))[1][-1]
    assert rest.n_recomputed == 300 - work.n_recomputed
    check_state(decoder.model, checkpoint)


def test_without_a_budget_everything_is_read_again(decoder: Decoder) -> None:
    poor = decoder_of(decoder.model, 0, trail_budget_bytes=0)
    for ids in (random_ids(100), random_ids(100), random_ids(3), random_ids(3)):
        checkpoint, work = read(poor, ids)
        assert (work.n_recomputed, work.source) == (len(ids), "none")
        assert poor.trail_bytes == poor.cache.n_bytes == 0
        check_state(poor.model, checkpoint)


def test_a_checkpoint_keeps_nothing_else_alive(decoder: Decoder) -> None:
    ids = random_ids(200)
    read(decoder, ids)
    for kept, _ in decoder.cache.checkpoints():
        assert kept.hidden.untyped_storage().nbytes() == kept.hidden.nbytes
        assert kept.ids.base is None


# The trail


def storage_bytes(trail: Trail) -> int:
    """Give what a trail's tensors keep alive."""
    states = [trail.start.state, *trail._states.values()]
    tensors = [part for run in trail._runs for part in (*run.log.tensors, run.hidden)]
    tensors += [run.logits for run in trail._runs if run.logits is not None]
    tensors += [part for state in states for part in (state.conv_state, state.ssm_state)]
    storages = {part.untyped_storage().data_ptr(): part.untyped_storage() for part in tensors}
    return sum(storage.nbytes() for storage in storages.values())


@pytest.mark.parametrize("n_typed", [1, 3])
def test_typing_and_deleting_on_a_trail(decoder: Decoder, n_typed: int) -> None:
    """Long enough that the trail moves up again and again; some letters are taken back."""
    ids = random_ids(200)
    read(decoder, ids[:60])
    n = 60
    while n + n_typed < 60 + 45 * n_typed:
        n += n_typed
        checkpoint, work = read(decoder, ids[:n])
        assert (work.n_recomputed, work.n_passes, work.source) == (n_typed, 1, "trail")
        if n % 3 == 0:
            check_state(decoder.model, checkpoint)
        if n % 5 == 0:
            back, work = read(decoder, ids[: n - 4])
            assert (work.n_recomputed, work.n_passes) == (0, 0)
            check_state(decoder.model, back)
            read(decoder, ids[:n])
        trail = decoder.trails[OWNER]
        assert len(trail.ids) - len(trail.start.ids) <= MAX_TOKENS + n_typed
        assert decoder.trail_bytes >= storage_bytes(trail)


def test_two_readings_of_one_owner_do_not_disturb_each_other(decoder: Decoder) -> None:
    """As a build and a request take turns: each goes on from where it was."""
    decoder.chunk_tokens = 16
    ids, other = random_ids(84), np.append(random_ids(63), random_ids(21, seed=1)).astype(np.int32)
    for n_first in (1, 2):
        for n_second in (1, 2):
            decoder.cache = StateCache([SlotPool(decoder.model.config, 2**24)])
            forget_trails(decoder)
            read(decoder, ids[:62])
            first = decoder.read(ids, OWNER, Work(), ExitStack())
            second = decoder.read(other, OWNER, Work(), ExitStack())
            for _ in range(n_first):
                next(first)
            for _ in range(n_second):
                next(second)
            check_state(decoder.model, run(first)[0])
            check_state(decoder.model, run(second)[0])
            forget = decoder.cache.counts.copy()
            for wanted in (ids, other, ids[:70], other[:75]):
                check_state(decoder.model, read(decoder, wanted)[0])
            assert decoder.cache.counts != forget or decoder.trails


def test_two_readings_of_the_same_share_the_work(decoder: Decoder) -> None:
    ids = random_ids(500)
    works = [Work(), Work()]
    readings = [decoder.read(ids, OWNER, work, ExitStack()) for work in works]
    checkpoints = []
    while readings:
        steps = readings.pop(0)
        try:
            next(steps)
        except StopIteration as stop:
            checkpoints.append(stop.value)
        else:
            readings.append(steps)
    assert sum(work.n_recomputed for work in works) == 500
    assert min(work.n_recomputed for work in works) > 100
    for checkpoint in checkpoints:
        check_state(decoder.model, checkpoint)


def test_a_reading_from_nothing_does_not_take_a_later_trail_for_its_own(decoder: Decoder) -> None:
    poor = decoder_of(decoder.model, 0)
    ids = random_ids(100)
    read(poor, ids)
    assert len(poor.trails[OWNER].start.ids) > 16
    for n in (5, 12, 9, 100):
        check_state(poor.model, read(poor, ids[:n])[0])


def test_trails_stay_within_their_bytes_and_number(decoder: Decoder) -> None:
    read(decoder, random_ids(70))
    one = decoder.trail_bytes
    poor = decoder_of(decoder.model, trail_budget_bytes=int(2.5 * one))
    for i in range(5):
        read(poor, random_ids(70, seed=i), (f"{i}.py", "epoch"))
        assert one * min(2, i + 1) == poor.trail_bytes <= poor.trail_budget_bytes
    assert list(poor.trails) == [("3.py", "epoch"), ("4.py", "epoch")]
    for i in range(decode.MAX_TRAILS + 3):
        read(decoder, random_ids(3, seed=i), i)
    assert list(decoder.trails) == list(range(3, decode.MAX_TRAILS + 3))


def test_forgetting_a_document_forgets_its_trails(decoder: Decoder) -> None:
    for i, owner in enumerate([("a.py", "epoch"), ("a.py", "trunk"), ("b.py", "trunk"), None]):
        read(decoder, random_ids(10, seed=i), owner)
    assert len(decoder.trails) == 4
    decoder.forget("a.py")
    assert list(decoder.trails) == [("b.py", "trunk"), None]


def test_a_leased_state_outlives_eviction(decoder: Decoder) -> None:
    """The state given is a view: what comes meanwhile must not be written over it."""
    state_bytes = decoder.cache.tiers[0].slot_bytes
    poor = decoder_of(decoder.model, 3 * state_bytes, trail_budget_bytes=0)
    ids = random_ids(60)
    read(poor, ids)
    with ExitStack() as stack:
        checkpoint, _ = run(poor.read(ids, OWNER, Work(), stack))
        assert checkpoint.state.ssm_state.data_ptr() != 0
        for i in range(1, 5):
            read(poor, random_ids(60, seed=i), i)
        check_state(poor.model, checkpoint)


def test_a_trail_does_not_live_in_the_cache(decoder: Decoder) -> None:
    ids = random_ids(60)
    read(decoder, ids)
    forget_trails(decoder)
    with ExitStack() as stack:
        run(decoder.read(np.append(ids, np.int32(4)), OWNER, Work(), stack))
    pool = decoder.cache.tiers[0]
    pool._ssm.zero_()
    pool._conv.zero_()
    checkpoint, work = read(decoder, np.append(ids, np.int32(5)))
    assert (work.n_recomputed, work.source) == (1, "trail")
    check_state(decoder.model, checkpoint)


@pytest.mark.parametrize("chunk_tokens", [16, 64, 1000])
@pytest.mark.parametrize(
    ("start", "end"), [(0, 0), (5, 5), (0, 1), (0, 1000), (17, 1000), (990, 1000), (900, 1000)]
)
def test_passes_are_full_and_leave_checkpoints_where_they_will_be_wanted(
    decoder: Decoder, chunk_tokens: int, start: int, end: int
) -> None:
    decoder.chunk_tokens = chunk_tokens
    passes = list(decoder.passes(start, end))
    assert len(passes) == math.ceil((end - start) / chunk_tokens)
    assert all(places[-1] - start == (i + 1) * chunk_tokens for i, places in enumerate(passes[:-1]))
    places = [place for one in passes for place in one]
    assert places == sorted(set(places))
    assert all(place > start for place in places)
    assert places[-1:] == ([end] if end > start else [])
    if end - start <= MAX_PASS_TOKENS:
        assert len(places) <= 1, "its log is enough for going back"
        return
    near = {end - d for d in (0, 10, 30, 70, 150, 310, 630) if end - d > start}
    assert near <= set(places)
    assert len(places) <= len(near) + len(passes)


def test_states_of_a_large_model_are_given_by_a_few_passes_more(decoder: Decoder) -> None:
    """As many as fit beside the model at once."""
    ids = random_ids(400)
    wanted = {place for one in decoder.passes(0, 400) for place in one}
    decoder.max_places = 3
    passes = list(decoder.passes(0, 400))
    assert wanted <= {place for one in passes for place in one}
    assert max(len(places) for places in passes) == 3
    checkpoint, work = read(decoder, ids)
    assert work.n_passes == len(passes)
    check_state(decoder.model, checkpoint)


@pytest.mark.parametrize(
    ("n_tokens", "n_back"), [(17, 16), (26, 25), (27, 10), (100, 10), (500, 10)]
)
def test_the_end_of_what_was_read_is_on_the_trail(
    decoder: Decoder, n_tokens: int, n_back: int
) -> None:
    decoder.chunk_tokens = 2048
    ids = random_ids(n_tokens)
    _, work = read(decoder, ids)
    assert work.n_passes == 1
    for d in range(1, n_back + 1):
        back, work = read(decoder, ids[: n_tokens - d])
        assert (work.n_recomputed, work.source) == (0, "trail")
        check_state(decoder.model, back)
    _, work = read(decoder, ids[: n_tokens - n_back - 1])
    assert work.source != "trail"


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


def cover(
    decoder: Decoder, held: bytes, ids: NDArray[np.int32], proposal: tuple[int, ...] = ()
) -> tuple[Draft, Work]:
    checkpoint, _ = read(decoder, ids)
    work = Work()
    covering = decoder.cover(held, checkpoint, OWNER, work, keep_rows=True, proposal=proposal)
    draft, n_yields = run(covering)
    assert n_yields == work.n_healing_passes + work.n_passes, "every pass is a place to stop"
    assert work.n_passes == bool(proposal)
    assert (work.n_recomputed, work.n_generated) == (0, 0)
    return draft, work


HELD = ["a", "ab", "aba", " ab", "é", "aé€", "bé€b", "abab a", "  ab", "b  abé", "€ba"]


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cover_takes_the_path_of_highest_joint_probability(
    tiny_model: Callable[..., Mamba2], monkeypatch: pytest.MonkeyPatch, held: str, seed: int
) -> None:
    monkeypatch.setattr(covering, "MAX_PASSES", 10_000)
    check_cover(tiny_model, held.encode(), seed)


def check_cover(tiny_model: Callable[..., Mamba2], held: bytes, seed: int) -> bool:
    """Hold cover against all paths; tell whether greedy choice would have taken another one."""
    model = tiny_model(seed=seed, vocab_size=len(PIECES) + N_PADDED)
    # Wider, so that paths differ clearly.
    cast("Any", model.lm_head).weight.mul_(2)
    ids = random_ids(30, seed)
    with torch.inference_mode():
        decoder = decoder_of(model)
        draft, _ = cover(decoder, held, ids)
        paths = Paths(model, ids)
        ranked = sorted(paths.all(held), reverse=True)
        best = next(p for p in ranked if list(p[1]) == draft.token_ids)[0]
        assert best >= ranked[0][0] - TOLERANCE
        check_draft(model, ids, held, draft)
        greedy = paths.greedy(held)
        check_proposals(decoder, greedy, ids, held)
        return list(greedy) != draft.token_ids


def check_draft(model: Mamba2, ids: NDArray[np.int32], held: bytes, draft: Draft) -> None:
    assert draft.text == b"".join(PIECES[i] for i in draft.token_ids)
    assert draft.text.startswith(held)
    assert not b"".join(PIECES[i] for i in draft.token_ids[:-1]).startswith(held)
    hidden, _ = model.prefill(torch.tensor([[*ids.tolist(), *draft.token_ids]]))
    logits = model.logits(hidden[0, len(ids) - 1 :])
    assert draft.rows is not None
    rows = torch.stack([*draft.rows, draft.walk.row])
    torch.testing.assert_close(rows, logits, atol=TOLERANCE, rtol=0)
    # And the state: one more token from there.
    draft.walk.follow((4,))
    expected, _ = model.prefill(torch.tensor([[*ids.tolist(), *draft.token_ids, 4]]))
    torch.testing.assert_close(
        draft.walk.row, model.logits(expected[0, -1]), atol=TOLERANCE, rtol=0
    )


def check_proposals(
    decoder: Decoder, greedy: tuple[int, ...], ids: NDArray[np.int32], held: bytes
) -> None:
    """Hold that what is proposed changes nothing but the cost."""
    forget_trails(decoder)
    plain, plain_work = cover(decoder, held, ids)
    best = tuple(plain.token_ids)
    for proposal in ((*best, 3, 5, 4), best[:-1], greedy, (4, 4)):
        draft, work = cover(decoder, held, ids, proposal)
        assert tuple(draft.token_ids) == best
        check_draft(decoder.model, ids, held, draft)
        assert work.n_healing_passes <= plain_work.n_healing_passes
        if proposal[: len(best)] == best:
            assert work.n_healing_passes < plain_work.n_healing_passes, "it was read already"


def test_the_best_path_is_often_not_the_greedy_one(
    tiny_model: Callable[..., Mamba2], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the test above would prove nothing."""
    monkeypatch.setattr(covering, "MAX_PASSES", 10_000)
    n_different = sum(check_cover(tiny_model, held.encode(), 0) for held in HELD)
    assert n_different >= 3


@pytest.mark.parametrize("seed", range(3))
def test_a_word_that_is_typed_on_is_not_searched_again(
    tiny_model: Callable[..., Mamba2], seed: int
) -> None:
    """A path that the last letter's search has looked behind is known for the next."""
    with torch.inference_mode():
        decoder = decoder_of(tiny_model(seed=seed, vocab_size=len(PIECES) + N_PADDED))
        ids, word = random_ids(30, seed), b"abab a"
        n_typed = n_alone = 0
        for n in range(1, len(word) + 1):
            draft, work = cover(decoder, word[:n], ids)
            n_typed += work.n_healing_passes
            forget = decoder_of(decoder.model)
            alone, work = cover(forget, word[:n], ids)
            n_alone += work.n_healing_passes
            assert draft.token_ids == alone.token_ids
            check_draft(decoder.model, ids, word[:n], draft)
    assert n_typed < n_alone


def test_nothing_held_costs_nothing(decoder: Decoder) -> None:
    ids = random_ids(20)
    draft, work = cover(decoder, b"", ids)
    assert (draft.token_ids, draft.text, draft.rows, work.n_healing_passes) == ([], b"", [], 0)
    torch.testing.assert_close(
        draft.walk.row, from_scratch(decoder.model, ids)[0], atol=TOLERANCE, rtol=0
    )


def test_covering_does_not_change_what_is_cached(decoder: Decoder) -> None:
    ids = random_ids(20)
    cover(decoder, b"abab a", ids)
    check_state(decoder.model, kept_for(decoder, ids))
    check_state(decoder.model, read(decoder, ids)[0])


@pytest.mark.parametrize("max_passes", [1, 2, 5])
@pytest.mark.parametrize("held", ["abab abab", "é€é€é€ a", "€" * 10, "aé€b  ab" * 4])
def test_a_search_that_is_given_up_still_covers(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch, max_passes: int, held: str
) -> None:
    monkeypatch.setattr(covering, "MAX_PASSES", max_passes)
    ids = random_ids(20)
    draft, work = cover(decoder, held.encode(), ids)
    assert work.n_healing_passes <= max_passes + 1
    check_draft(decoder.model, ids, held.encode(), draft)


@pytest.mark.filterwarnings("error")
def test_covering_warns_of_nothing(decoder: Decoder) -> None:
    """As torch does, once a process, where it is given a read-only array."""
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
    draft, work = cover(decoder, b"", random_ids(20))
    for _ in decoder.write(draft, raw=raw, work=work):
        if work.n_generated == n_tokens:
            break
    return draft, work


def test_write_takes_the_best_token_each_time(decoder: Decoder) -> None:
    draft, work = write(decoder, 12)
    ids = random_ids(20).tolist()
    assert draft.rows is not None
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
    bias(decoder.model, token_id, kept_for(decoder, random_ids(20)).hidden)
    draft, _ = write(decoder, 8, raw)
    assert (token_id in draft.token_ids) is raw
    assert bool(set(draft.token_ids) & set(BANNED)) is raw
    assert draft.rows is not None
    assert int(draft.rows[0].argmax()) == token_id, "the rows are the model's own"
    assert draft.text == b"".join(PIECES[i] for i in draft.token_ids if i < len(PIECES))


@pytest.mark.parametrize("raw", [False, True], ids=["code", "raw"])
def test_the_end_of_the_sequence_ends_it_and_is_not_written(decoder: Decoder, raw: bool) -> None:
    checkpoint, _ = read(decoder, random_ids(20))
    bias(decoder.model, EOS_ID, checkpoint.hidden)
    draft, work = write(decoder, 8, raw)
    assert (draft.token_ids, draft.text, draft.rows) == ([], b"", [])
    assert (work.n_generated, work.n_passes) == (0, 0)


# Going along what was written


def answer(decoder: Decoder, ids: NDArray[np.int32], n_tokens: int) -> tuple[list[int], Work]:
    """Write some tokens after a prompt and keep them, as a completion does."""
    work = Work()
    with ExitStack() as stack:
        checkpoint, _ = run(decoder.read(ids, OWNER, work, stack))
        draft, _ = run(decoder.cover(b"", checkpoint, OWNER, work))
        for _ in decoder.write(draft, raw=True, work=work):
            if work.n_generated == n_tokens:
                break
        decoder.keep(checkpoint, OWNER, draft.walk)
    return draft.token_ids, work


def joined(ids: NDArray[np.int32], tokens: list[int]) -> NDArray[np.int32]:
    return np.append(ids, np.array(tokens, dtype=np.int32))


def test_going_on_along_a_trail_computes_neither_states_nor_logits(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = random_ids(50)
    tokens, _ = answer(decoder, ids, 12)

    def refused(*_: Any) -> Any:
        raise AssertionError("it was known")

    with monkeypatch.context() as patch:
        patch.setattr(InputLog, "replay", refused)
        patch.setattr(decoder.model, "logits", refused)
        for n in (1, 4, 3, 7):
            again, work = answer(decoder, joined(ids, tokens[:n]), 11 - n)
            assert again == tokens[n:11]
            assert work.n_passes == 0
    for n in (2, 6):
        check_state(decoder.model, read(decoder, joined(ids, tokens[:n]))[0])


@pytest.mark.parametrize("step", [1, 3, 11])
def test_typing_along_a_suggestion_costs_no_pass(decoder: Decoder, step: int) -> None:
    ids = random_ids(50)
    tokens, _ = answer(decoder, ids, 12)
    for n in range(step, 12, step):
        typed = joined(ids, tokens[:n])
        assert decoder.n_missing(typed, OWNER) == 0
        checkpoint, work = read(decoder, typed)
        assert (work.n_recomputed, work.n_passes) == (0, 0)
        check_state(decoder.model, checkpoint)
        # And what is still to be typed of it need not be written anew.
        again, work = answer(decoder, typed, 12 - n)
        assert again == tokens[n:]
        assert work.n_passes == 0
    # Away from it, only what differs is read.
    other = joined(ids, [*tokens[:6], (tokens[6] + 1) % len(PIECES)])
    checkpoint, work = read(decoder, other)
    assert (work.n_recomputed, work.n_passes) == (1, 1)
    check_state(decoder.model, checkpoint)


@pytest.mark.parametrize("n_tokens", [1, 2, 5])
def test_an_answer_that_was_interrupted_loses_nothing_of_an_earlier_one(
    decoder: Decoder, n_tokens: int
) -> None:
    ids = random_ids(50)
    tokens, _ = answer(decoder, ids, 12)
    answer(decoder, ids, n_tokens)
    answer(decoder, joined(ids, tokens[:2]), n_tokens)
    again, work = answer(decoder, ids, 12)
    assert (again, work.n_passes) == (tokens, 0)


def test_accepting_a_suggestion_and_deleting_it_costs_no_pass(decoder: Decoder) -> None:
    ids = random_ids(50)
    tokens, _ = answer(decoder, ids, 12)
    accepted = joined(ids, tokens[:-1])
    for wanted in (accepted, ids, ids[:47], accepted[:55], accepted, ids):
        checkpoint, work = read(decoder, wanted)
        assert (work.n_recomputed, work.n_passes, work.source) == (0, 0, "trail")
        check_state(decoder.model, checkpoint)


def test_an_answer_from_another_place_replaces_the_trail(decoder: Decoder) -> None:
    ids, other = random_ids(50), random_ids(50, seed=1)
    answer(decoder, ids, 12)
    tokens, _ = answer(decoder, other, 12)
    checkpoint, work = read(decoder, joined(other, tokens[:7]))
    assert work.n_passes == 0
    check_state(decoder.model, checkpoint)
    checkpoint, _ = read(decoder, ids)
    check_state(decoder.model, checkpoint)


def test_rows_are_kept_on_request_alone(decoder: Decoder) -> None:
    checkpoint, _ = read(decoder, random_ids(20))
    draft, _ = run(decoder.cover(b"ab", checkpoint, OWNER, Work(), keep_rows=False))
    steps = decoder.write(draft, raw=False, work=Work())
    next(steps)
    assert draft.token_ids
    assert draft.rows is None


# The first line


@pytest.mark.parametrize(
    ("held", "pieces", "n_first"),
    [
        pytest.param(b"", [b"a", b"b", b"\n", b"c"], 3, id="up to its break"),
        pytest.param(b"", [b"a", b"b"], 2, id="unfinished"),
        pytest.param(b"", [b"\n"], 1, id="nothing but its end"),
        pytest.param(b"", [b"\n", b"  ", b"a", b"\n", b"b"], 4, id="after a blank one"),
        pytest.param(b"x\nx", [b"x\nxa", b"b", b"\r", b"\n"], 3, id="held-back text has none"),
        pytest.param(b"", [], 0, id="nothing"),
    ],
)
def test_the_first_line_of_a_draft(
    decoder: Decoder, held: bytes, pieces: list[bytes], n_first: int
) -> None:
    checkpoint, work = read(decoder, random_ids(5))
    draft, _ = run(decoder.cover(b"", checkpoint, OWNER, work))
    draft.n_held = len(held)
    for i, piece in enumerate(pieces):
        draft.add(i, piece, -(2.0**i), None)
    assert draft.n_first_line() == n_first
    total = sum(-(2.0**i) for i in range(n_first))
    assert draft.log_prob() == (total if pieces else -float("inf"))
    draft.end = (-0.5, None)
    ended = n_first == len(pieces) and pieces[-1:] not in ([b"\n"], [b"\r"])
    assert draft.log_prob() == total - 0.5 * (ended or pieces == [b"\n"])
