"""The line that is more probable as a whole than the one written token by token."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.engine.engine_world import CURSOR, TEXT, Session, ask, prompt_ids
from tests.oracle import check_exact, logits_from_scratch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from engine.mamba2 import Mamba2
    from engine.request import Completion, CompletionRequest
    from engine.tokenizer import Tokenizer

# What follows a piece, and how often; "" is the end of the sequence.
World = dict[str, dict[str, float]]

LINE = "x\n"
BLOCK = "def f():\n\t"
# Token by token "ac", which is right in 3 of 10 cases; "bfg" is in 4.
FORK: World = {
    "\n": {"a": 0.6, "b": 0.4},
    "a": {"c": 0.5, "d": 0.3, "e": 0.2},
    "c": {"\n": 1},
    "d": {"\n": 1},
    "b": {"f": 1},
    "f": {"g": 1},
    "g": {"\n": 1},
}
# The same, a token later.
LATE: World = FORK | {"\n": {"j": 1}, "j": {"a": 0.6, "b": 0.4}}


@pytest.fixture(scope="module")
def in_world(
    tiny_model: Callable[..., Any], tokenizer: Tokenizer, new_session: Callable[..., Session]
) -> Callable[[World], Session]:
    """`in_world(world)`: a session whose model looks at the last token alone."""

    def make(world: World) -> Session:
        n_vocab = tokenizer.n_vocab
        model = tiny_model(vocab_size=n_vocab, n_layers=1, d_model=512, headdim=64)
        model.backbone.embeddings.weight.copy_(100 * torch.eye(n_vocab, 512))
        model.backbone.norm_f.weight.fill_(1)
        model.backbone.layers[0].mixer.out_proj.weight.zero_()
        model.lm_head.weight.zero_()
        for piece, following in world.items():
            for next_piece, share in following.items():
                logit = 30 + math.log(share)
                at = token_of(tokenizer, next_piece), token_of(tokenizer, piece)
                model.lm_head.weight[at] = logit / math.sqrt(512)
        return new_session(model)

    return make


def token_of(tokenizer: Tokenizer, piece: str) -> int:
    (token_id,) = tokenizer.encode(piece) if piece else [tokenizer.eos_id]
    return token_id


def ask_line(**changes: Any) -> CompletionRequest:
    """Ask behind a line, for the most probable one."""
    fields = {"header": "", "prefix": LINE, "suffix": "", "max_tokens": 32}
    return ask(**{**fields, "search_above": -math.inf, **changes})


@pytest.mark.parametrize(
    ("world", "changes", "text", "stop", "probability", "n_generated", "n_passes"),
    [
        pytest.param(FORK, {}, "bfg", "line", 0.4, 4, 3, id="more probable as a whole"),
        pytest.param(LATE, {}, "jbfg", "line", 0.4, 5, 3, id="later in the line"),
        pytest.param(FORK | {"b": {"": 1}}, {}, "b", "eos", 0.4, 1, 1, id="ends the sequence"),
        pytest.param(FORK | {"c": {"": 1}}, {}, "bfg", "line", 0.4, 4, 3, id="instead of such"),
        pytest.param(
            FORK | {"\n": {"a": 1}, "a": {"c": 0.5, "": 0.4}, "c": {"d": 0.6, "e": 0.4}},
            {},
            *("a", "eos", 0.4 / 0.9, 1, 0),
            id="ends where the other goes on",
        ),
        pytest.param(
            FORK | {"\n": {"self": 0.6, "se": 0.4}, "self": FORK["a"], "se": FORK["b"]},
            {"prefix": LINE + "s", "max_tokens": 3},
            *("efg", "line", 0.4, 3, 3),
            id="other tokens for what is held back",
        ),
        pytest.param(
            FORK | {"\t": FORK["\n"], "\n": {"j": 1}, "g": {"\r": 1}, "\r": {"\t": 1}},
            {"prefix": BLOCK, "multiline": True},
            *("bfg\r\tac", "block", 0.4, 9, 8),
            id="block",
        ),
        pytest.param(
            FORK | {"\n": {"a": 0.6, "b": 0.25, "e": 0.15}}, {}, "ac", "line", 0.3, 3, 0, id="less"
        ),
        pytest.param(
            FORK | {"f": {"g": 0.5, "h": 0.5}}, {}, "ac", "line", 0.3, 3, 2, id="given up"
        ),
        pytest.param(
            FORK | {"\n": {"a": 0.6, "\n": 0.4}}, {}, "ac", "line", 0.3, 3, 0, id="empty line"
        ),
        pytest.param(
            FORK | {"\n": {"a": 0.6, " ": 0.4}, " ": {"\n": 1}},
            {},
            *("ac", "line", 0.3, 3, 1),
            id="blank line",
        ),
        pytest.param(FORK | {"\n": {"a": 0.6, "": 0.4}}, {}, "ac", "line", 0.3, 3, 0, id="nothing"),
        pytest.param(
            # Copied from itself, and so read many tokens at a time.
            FORK | {"g": {"b": 1}},
            {"max_tokens": 64},
            *("ac", "line", 0.3, 3, 11),
            id="the same again and again",
        ),
        pytest.param(FORK, {"max_tokens": 2}, "", "limit", 0.3, 2, 0, id="nothing behind a limit"),
        pytest.param(
            FORK | {"f": {".": 1}, ".": {"g": 1}},
            {"max_tokens": 4},
            *("ac", "line", 0.3, 3, 3),
            id="too long",
        ),
        pytest.param(FORK, {"max_tokens": 4}, "bfg", "line", 0.4, 4, 3, id="just short enough"),
        pytest.param(LATE, {"max_tokens": 4}, "jac", "line", 0.3, 4, 2, id="later, too long"),
        pytest.param(FORK, {"search_above": None}, "ac", "line", 0.3, 3, 0, id="not asked for"),
        pytest.param(FORK, {"search_above": 0.0}, "ac", "line", 0.3, 3, 0, id="never enough"),
        pytest.param(
            FORK, {"search_above": math.log(0.41)}, "ac", "line", 0.3, 3, 0, id="not enough"
        ),
        pytest.param(FORK, {"search_above": math.log(0.39)}, "bfg", "line", 0.4, 4, 3, id="enough"),
        pytest.param(
            FORK | {"c": {"": 1}}, {"raw": True}, "ac", "eos", 0.3, 2, 0, id="raw: the model's own"
        ),
    ],
)
def test_the_most_probable_line(
    in_world: Callable[[World], Session],
    world: World,
    changes: dict[str, Any],
    text: str,
    stop: str,
    probability: float,
    n_generated: int,
    n_passes: int,
) -> None:
    session = in_world(world)
    completion = session.complete(ask_line(**changes))
    assert (completion.text, completion.stop) == (text, stop)
    assert math.exp(completion.log_prob) == pytest.approx(probability, rel=1e-3)
    assert completion.n_generated == n_generated
    assert completion.n_alternative_passes == n_passes
    assert completion.alternatives == ()
    assert len(completion.log_probs) == len(completion.token_ids)
    check_exact(session.engine.model, completion)


@pytest.mark.parametrize(
    ("world", "text", "probability"),
    [
        # "d" is more probable behind "a" than "b" is, but "ad" is less probable than it.
        pytest.param(FORK | {"a": {"c": 0.55, "d": 0.45}}, "bfg", 0.4, id="as a whole"),
        pytest.param(
            FORK | {"\n": {"a": 1}, "a": {"c": 0.8, "d": 0.2}, "c": {"": 0.6, "f": 0.4}},
            *("acfg", 0.32),
            id="behind the end",
        ),
    ],
)
def test_alternatives_leave_where_their_lines_are_the_most_probable(
    in_world: Callable[[World], Session], world: World, text: str, probability: float
) -> None:
    completion = in_world(world).complete(ask_line(n_alternatives=1))
    assert completion.text == "ac", "the answer stays where others are asked for besides"
    (other,) = completion.alternatives
    assert (other.text, other.stop) == (text, "line")
    assert math.exp(other.log_prob) == pytest.approx(probability, rel=1e-3)


def test_at_the_deadline_the_line_written_token_by_token_is_the_answer(
    in_world: Callable[[World], Session], new_session: Callable[..., Session]
) -> None:
    model = in_world(FORK).engine.model
    in_time = []
    for deadline_ms in range(0, 100, 10):
        request = ask_line(deadline_ms=float(deadline_ms))
        completion = new_session(model).complete(request, ms_per_step=10)
        if completion.stop == "line":
            in_time.append((completion.text, completion.n_alternative_passes))
            check_exact(model, completion)
    # First it is late before anything else is tried, in the end not before it is whole.
    assert in_time[:4] == [("ac", 0), ("ac", 1), ("ac", 2), ("bfg", 3)]
    assert set(in_time[4:]) == {("bfg", 3)}


def test_superseded_while_another_line_is_tried(in_world: Callable[[World], Session]) -> None:
    session = in_world(FORK)
    older = session.submit(ask_line())
    while older.cost.n_alternative_passes < 2:
        assert session.engine.step()
    newer = session.submit(ask_line(prefix=LINE + LINE))
    superseded = session.answer(older)
    assert superseded is not None
    assert (superseded.text, superseded.stop) == ("", "superseded")
    session.run()
    completion = session.answer(newer)
    assert completion is not None
    assert completion.text == "bfg"
    assert older.cost.n_alternative_passes == 2
    check_exact(session.engine.model, completion)


OTHERS = pytest.mark.parametrize(
    "changes", [{}, {"n_alternatives": 2}], ids=["another line", "alternatives"]
)


@OTHERS
def test_who_waits_waits_for_one_pass(
    in_world: Callable[[World], Session], monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    session, n_passes = in_world(FORK), 0
    forward = session.engine.model.forward

    def counted(*args: Any) -> Any:
        nonlocal n_passes
        n_passes += 1
        return forward(*args)

    monkeypatch.setattr(session.engine.model, "forward", counted)
    ticket = session.submit(ask_line(**changes))
    while session.answer(ticket) is None:
        n_before = n_passes
        session.engine.step()
        assert n_passes <= n_before + 1
    completion = session.answer(ticket)
    assert completion is not None
    assert n_passes == completion.n_passes + completion.n_alternative_passes
    assert completion.n_alternative_passes >= 3


@OTHERS
@pytest.mark.parametrize("n_good", [0, 2])
def test_where_memory_runs_out_the_answer_stands(
    in_world: Callable[[World], Session],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    n_good: int,
) -> None:
    session = in_world(FORK)
    plain = session.complete(ask_line(search_above=None))
    ticket, answered = session.submit(ask_line(**changes)), session.engine.model.forward

    def failing(*args: Any) -> Any:
        # The answer itself is on the trail: passes are for others.
        if ticket.cost.n_alternative_passes >= n_good:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return answered(*args)

    monkeypatch.setattr(session.engine.model, "forward", failing)
    session.run()
    completion = session.answer(ticket)
    assert completion is not None
    assert (completion.text, completion.stop) == ("ac", "line")
    assert completion.token_ids == plain.token_ids
    assert completion.alternatives == ()
    assert completion.n_alternative_passes == n_good


# Models that remember


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What a request is answered without and with looking for a more probable line."""

    session: Session
    request: CompletionRequest
    greedy: Completion
    likeliest: Completion

    @property
    def is_other(self) -> bool:
        return self.likeliest.token_ids != self.greedy.token_ids

    @property
    def n_shared(self) -> int:
        ids = zip(self.greedy.token_ids, self.likeliest.token_ids, strict=False)
        return len(list(takewhile(lambda pair: pair[0] == pair[1], ids)))


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Any], tokenizer: Tokenizer) -> Mamba2:
    """A model that is sure of some tokens, and ends its lines, or all, after a few."""
    model = tiny_model(vocab_size=tokenizer.n_vocab)
    model.lm_head.weight *= 4
    model.lm_head.weight[[tokenizer.eos_id, *tokenizer.encode("\n")]] *= 2.5
    return model


@pytest.fixture(scope="module")
def pairs(model: Mamba2, new_session: Callable[..., Session]) -> list[Pair]:
    """Answers at many cursors: at line starts, where nothing is held back, and within words."""
    session = new_session(model)
    starts = [i + 1 for i, character in enumerate(TEXT) if character == "\n"]
    found = []
    for n, cursor in enumerate([*starts[1::2], *range(CURSOR, CURSOR + 70, 5)]):
        plain = ask(TEXT, cursor, max_tokens=16, multiline=n % 3 == 0, explicit=True)
        request = replace(plain, search_above=-math.inf)
        greedy = session.complete(plain)
        likeliest = session.complete(request)
        found.append(Pair(session=session, request=request, greedy=greedy, likeliest=likeliest))
    return found


def test_the_answer_is_never_less_probable(pairs: list[Pair]) -> None:
    for pair in pairs:
        if pair.is_other:
            assert pair.likeliest.log_prob > pair.greedy.log_prob
            assert pair.likeliest.stop != "limit"
            assert pair.likeliest.text.strip()
            assert pair.likeliest.n_generated <= pair.request.max_tokens
        else:
            assert pair.likeliest.log_prob == pair.greedy.log_prob
            assert pair.likeliest.text == pair.greedy.text
        # Whatever was tried, what the answer itself takes is counted apart.
        assert pair.likeliest.n_recomputed == 0
        assert pair.greedy.n_alternative_passes == 0
    tried = [pair for pair in pairs if pair.likeliest.n_alternative_passes]
    assert sum(pair.is_other for pair in tried) >= 5
    assert sum(not pair.is_other for pair in tried) >= 3
    assert any(pair.is_other and pair.request.multiline for pair in pairs)
    assert any(pair.greedy.stop == "limit" for pair in pairs)


def test_every_answer_is_exact(pairs: list[Pair]) -> None:
    for pair in pairs:
        session, completion = pair.session, pair.likeliest
        engine = session.engine
        check_exact(engine.model, completion)
        assert list(completion.prompt_ids) == prompt_ids(engine, pair.request, "epoch")
        held = engine.fim.split(pair.request.header + pair.request.prefix).held
        written = b"".join(map(engine.tokenizer.piece_bytes, completion.token_ids))
        assert written.startswith(held)
        assert written[len(held) :].decode(errors="ignore").startswith(completion.text)
    n_held = [len(pair.likeliest.token_ids) - pair.likeliest.n_generated for pair in pairs]
    assert {0, 1} <= set(n_held)


def test_probabilities_are_the_model_s(pairs: list[Pair], tokenizer: Tokenizer) -> None:
    for pair in pairs:
        completion = pair.likeliest
        given = len(completion.token_ids) - completion.n_generated
        own = chances(pair.session, completion, completion.token_ids)
        expected = [float(own[i][completion.token_ids[i]]) for i in range(len(own) - 1)]
        assert completion.log_probs[given:] == pytest.approx(expected[given:], abs=1e-3)
        line = completion.log_probs
        if completion.stop == "eos" and "\n" not in completion.text:
            line = (*line, float(own[-1][tokenizer.eos_id]))
        if not pair.request.multiline:
            assert completion.log_prob == pytest.approx(sum(line), abs=1e-3)


def test_it_is_the_best_continuation_of_the_most_probable_other_line(
    pairs: list[Pair], tokenizer: Tokenizer
) -> None:
    """Written out from scratch, where nothing is held back and the answer is a line."""
    n_checked = 0
    for pair in pairs:
        greedy = pair.greedy
        n_given = len(greedy.token_ids) - greedy.n_generated
        if pair.request.multiline or n_given or greedy.stop == "limit":
            continue
        own = chances(pair.session, greedy, greedy.token_ids)
        seconds = own[: len(greedy.token_ids) + (greedy.stop == "eos")].topk(2)
        before = [sum(greedy.log_probs[:i]) for i in range(len(seconds.values))]
        scores = [
            before_it + float(second)
            for before_it, second in zip(before, seconds.values[:, 1], strict=True)
        ]
        at = max(range(len(scores)), key=scores.__getitem__)
        ids, total = list(greedy.token_ids[:at]), scores[at]
        token_id = int(seconds.indices[at, 1])
        while total > greedy.log_prob and token_id != tokenizer.eos_id:
            ids.append(token_id)
            if b"\n" in tokenizer.piece_bytes(token_id) or len(ids) == pair.request.max_tokens:
                break
            value, best = chances(pair.session, greedy, ids)[-1].max(-1)
            total, token_id = total + float(value), int(best)
        text = b"".join(map(tokenizer.piece_bytes, ids)).decode(errors="ignore")
        is_whole = text.endswith("\n") or token_id == tokenizer.eos_id
        if is_whole and total > greedy.log_prob and text.strip():
            assert pair.likeliest.token_ids == tuple(ids)
            assert pair.likeliest.log_prob == pytest.approx(total, abs=1e-2)
            n_checked += 1
        else:
            assert not pair.is_other
    assert n_checked >= 2


def chances(session: Session, completion: Completion, ids: Any) -> Tensor:
    """Give, from scratch, the log-probabilities (len(ids) + 1, vocab_size) after each of ids."""
    longer = replace(completion, token_ids=(*ids, 0))
    logits = logits_from_scratch(session.engine.model, longer).clone()
    logits[:, session.engine.decoder.banned] = -torch.inf
    return torch.log_softmax(logits, -1)


def test_what_is_kept_changes_no_answer(
    pairs: list[Pair], model: Mamba2, new_session: Callable[..., Session]
) -> None:
    """Asked again, and typed along."""
    others = [pair for pair in pairs if pair.is_other and len(pair.likeliest.text) >= 2]
    others.sort(key=lambda pair: pair.n_shared)
    assert others[-2].n_shared >= 2
    for pair in (others[0], *others[-2:]):
        session, request, text = new_session(model), pair.request, pair.likeliest.text
        for n_typed in (0, 0, 1, 2):
            typed = replace(request, prefix=request.prefix + text[:n_typed])
            completion = session.complete(typed)
            check_exact(model, completion)
            fresh = new_session(model).complete(typed)
            assert completion.text == fresh.text
            assert completion.token_ids == fresh.token_ids
            assert completion.log_prob == pytest.approx(fresh.log_prob, abs=1e-3)
            assert completion.n_alternative_passes == fresh.n_alternative_passes
            if not n_typed:
                assert text == completion.text
