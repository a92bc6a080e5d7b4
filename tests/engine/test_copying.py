from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import copying
from engine.checkpoint import CheckpointError
from engine.copying import (
    FEATURES,
    MAX_DRAFT_TOKENS,
    MAX_MATCH_BYTES,
    MIN_MATCH_BYTES,
    Candidate,
    Copier,
    CopyWeights,
)
from engine.engine import Engine
from engine.request import Completion, CompletionRequest
from engine.stopping import StopRule
from engine.tokenizer import Tokenizer
from kernels.token_choice import distribution
from tests.oracle import check_copied, check_exact

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from engine.mamba2 import Mamba2

# Copied tokens outweigh a tiny random model clearly, the more so the longer the match.
TRUSTING = CopyWeights(bias=(0.0, 12.0, 2.0, 2.0, 0.0, 0.0, 0.0), slope=(-0.5, *[0.0] * 6))


@pytest.fixture(scope="session")
def tokenizer(small_tokenizer_dir: Path) -> Tokenizer:
    return Tokenizer.load(small_tokenizer_dir)


def best(copier: Copier, written: str = "", left: str = "") -> Candidate | None:
    candidates = copier.candidates(written.encode(), left.encode())
    return max(candidates, key=lambda c: (c.n_matched, c.place), default=None)


def text_of(tokenizer: Tokenizer, ids: list[int]) -> str:
    return b"".join(map(tokenizer.piece_bytes, ids)).decode()


# Finding


@pytest.mark.parametrize(
    ("before", "others", "copied", "n_matched"),
    [
        pytest.param("alpha = 1\nalp", [], "ha = 1\n", 3, id="half a word"),
        pytest.param("x f(a)\ny f(b)\nz f(", [], "b)\n", 3, id="the nearest of equal matches"),
        pytest.param("xf(a)\nf(b)\nxf(", [], "a)\n", 3, id="the longest"),
        pytest.param("call(", ["call(one)"], "one)", 5, id="in the text below"),
        pytest.param("call(", ["zz", "call(one)", "call(two)"], "one)", 5, id="first source first"),
        pytest.param("call(new)\ncall(", ["call(one)"], "new)\n", 5, id="before the cursor first"),
        pytest.param("call(new)\nacall(", ["acall(one)"], "one)", 6, id="unless longer elsewhere"),
        pytest.param("größe = 1\ngrö", [], "ße = 1\n", 4, id="beyond ASCII"),
        pytest.param("-----", [], "-" * 48, 4, id="text that overlaps itself"),
        pytest.param("a " * 80, [], None, MAX_MATCH_BYTES, id="no longer than the limit"),
    ],
)
def test_the_longest_and_nearest_match_is_copied(
    tokenizer: Tokenizer, before: str, others: list[str], copied: str | None, n_matched: int
) -> None:
    copier = Copier(tokenizer, before, others)
    found = best(copier)
    assert found is not None
    assert found.n_matched == n_matched
    run = copier.draft(found)
    assert run[0] == found.token_id
    assert 0 < len(run) <= MAX_DRAFT_TOKENS
    if copied is not None:
        assert copied.startswith(text_of(tokenizer, run))
        if len(run) < MAX_DRAFT_TOKENS:
            assert text_of(tokenizer, run) == copied


@pytest.mark.parametrize("before", ["", "a", "ab", "abc", "xyz = 1\n%"])
def test_nothing_is_found_where_nothing_came_before(tokenizer: Tokenizer, before: str) -> None:
    assert Copier(tokenizer, before, ["", "\0\0"]).candidates() == []


def test_texts_do_not_run_into_each_other(tokenizer: Tokenizer) -> None:
    copier = Copier(tokenizer, "call(", ["one call(", "two call("])
    assert copier.candidates() == []


@pytest.mark.parametrize(("held", "left"), [("alp", "alp"), ("alp", "p"), ("= alp", " alp")])
def test_copied_tokens_spell_what_is_held_back_first(
    tokenizer: Tokenizer, held: str, left: str
) -> None:
    copier = Copier(tokenizer, f"x = alphabet()\ny {held}")
    found = best(copier, left=left)
    assert found is not None
    assert text_of(tokenizer, copier.draft(found, left=left.encode())) == f"{left}habet()\n"


def test_what_was_written_counts_as_text(tokenizer: Tokenizer) -> None:
    copier = Copier(tokenizer, "total = price * amount\ntotal = ")
    assert best(copier, "price * ") == best(Copier(tokenizer, copier._text.decode() + "price * "))
    # And going back gives what it gave.
    assert best(copier) == best(Copier(tokenizer, "total = price * amount\ntotal = "))


def test_nothing_is_copied_into_a_character(tokenizer: Tokenizer) -> None:
    text = "naïve = '€'\nnaïve = '"
    copier = Copier(tokenizer, text)
    assert copier.candidates()
    assert copier.candidates("€".encode()[:1]) == []
    assert copier.candidates("€".encode())


TEXTS = st.text(st.sampled_from("ab(\né\0"), max_size=60)


@given(before=TEXTS, others=st.lists(TEXTS, max_size=2), written=TEXTS)
@settings(max_examples=200, deadline=None)
def test_matches_are_matches_and_the_longest_is_found(
    tokenizer: Tokenizer, before: str, others: list[str], written: str
) -> None:
    copier = Copier(tokenizer, before, others)
    candidates = copier.candidates(written.encode())
    text = "\0".join([before, *others][::-1]).encode() + written.encode()
    for c in candidates:
        tail = text[len(text) - c.n_matched :]
        assert text[: c.place].endswith(tail)
        assert c.place < len(text)
        after = text[c.place :].partition(b"\0")[0]
        piece = tokenizer.piece_bytes(c.token_id)
        assert (after * len(piece)).startswith(piece) or after.startswith(piece)
        assert len(c.features) == len(FEATURES)
        assert all(map(math.isfinite, c.features))
    n_own = len((before + written).encode())
    lengths = [
        n
        for place in range(1, len(text))
        for n in range(MIN_MATCH_BYTES, min(place, n_own, MAX_MATCH_BYTES) + 1)
        if text[place - n : place] == text[len(text) - n :] and follows(text, place)
    ]
    if candidates and lengths:
        assert max(c.n_matched for c in candidates) <= max(lengths)
    if lengths:
        longest = max(lengths)
        places = [p for p in range(longest, len(text)) if text[:p].endswith(text[-longest:])]
        if len(places) <= copying.PLACES_PER_LENGTH:
            assert candidates
    assert len({c.token_id for c in candidates}) == len(candidates)


@given(text=TEXTS, n_own=st.integers(0, 80))
@settings(max_examples=200, deadline=None)
def test_for_each_length_the_nearest_places_are_looked_at(text: str, n_own: int) -> None:
    searched = text.encode()
    limit = min(n_own, MAX_MATCH_BYTES)
    matched = {}
    for place in range(1, len(searched)):
        tails = range(1, min(limit, place) + 1)
        matched[place] = max(
            (n for n in tails if searched[:place].endswith(searched[-n:])), default=0
        )
    length = max(matched.values(), default=0)
    nearest = set()
    while length >= MIN_MATCH_BYTES:
        behind = [place for place, n in matched.items() if n >= length]
        nearest |= set(behind[-copying.PLACES_PER_LENGTH :])
        at_least = MIN_MATCH_BYTES if length > MIN_MATCH_BYTES else 0
        length = max(at_least, length * 2 // 3)
    found = copying._places(searched, n_own)
    assert found == {place: matched[place] for place in nearest}


def follows(text: bytes, place: int) -> bool:
    """Tell whether a token may be copied from a place."""
    return text[place] != 0 and not 0x80 <= text[place] < 0xC0


def test_the_text_that_is_searched_is_bounded(tokenizer: Tokenizer) -> None:
    filler = "x" * copying.MAX_CHARS
    assert Copier(tokenizer, "mark(one)\n" + filler + "\nmark(").candidates() == []
    assert Copier(tokenizer, "mark(", [filler, "mark(one)"]).candidates() == []
    assert Copier(tokenizer, "mark(", [filler[: 2**15], "mark(one)"]).candidates()
    assert len(Copier(tokenizer, filler, [filler, filler])._text) <= copying.MAX_CHARS + 3


# Mixing


def mixture(copier: Copier, row: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Give the log-probabilities that a step chooses by, of all tokens."""
    return distribution(row, ids, copier.odds(copier.candidates()))[0]


def test_the_mixture_is_a_distribution_in_which_copied_tokens_gain(tokenizer: Tokenizer) -> None:
    copier = Copier(tokenizer, "f(a)\nf(b)\nf(", weights=TRUSTING)
    row, texts = torch.randn(tokenizer.n_vocab), torch.arange(3, tokenizer.n_vocab)
    own, _ = distribution(row, texts)
    mixed = mixture(copier, row, texts)
    assert float(mixed.exp().sum()) == pytest.approx(1)
    ids = [c.token_id for c in copier.candidates()]
    assert (mixed[ids] > own[ids]).all()
    others = [i for i in texts.tolist() if i not in ids]
    shift = mixed[others] - own[others]
    torch.testing.assert_close(shift, shift[:1].expand_as(shift), atol=1e-5, rtol=0)


def test_odds_are_features_weighed(tokenizer: Tokenizer) -> None:
    copier = Copier(tokenizer, "f(a)\nf(b)\nf(", weights=TRUSTING)
    candidates = copier.candidates()
    odds = copier.odds(candidates)
    assert odds
    for candidate, (token_id, bias, slope) in zip(candidates, odds, strict=True):
        assert token_id == candidate.token_id
        for found, side in ((bias, TRUSTING.bias), (slope, TRUSTING.slope)):
            pairs = zip(side, candidate.features, strict=True)
            assert found == pytest.approx(sum(weight * feature for weight, feature in pairs))


def test_without_weights_or_matches_nothing_is_mixed(tokenizer: Tokenizer) -> None:
    plain = Copier(tokenizer, "f(a)\nf(b)\nf(")
    assert plain.candidates()
    assert plain.odds(plain.candidates()) == []
    assert Copier(tokenizer, "f(", weights=TRUSTING).odds([]) == []


@given(held=st.sampled_from(["f", "fo", "x.ap", " ", "  ret", "é", "€("]), n=st.integers(0, 40))
@settings(deadline=None)
def test_what_may_be_copied_agrees_with_what_is_held_back(
    tokenizer: Tokenizer, held: str, n: int
) -> None:
    """So that it is always among the tokens in question."""
    before = ("foo(a)\nx.append(b)\n  return é€(foo)\n" * 2)[:n] + held
    for candidate in Copier(tokenizer, before).candidates(left=held.encode()):
        piece = tokenizer.piece_bytes(candidate.token_id)
        assert piece
        assert piece.startswith(held.encode()) or held.encode().startswith(piece)


def test_weights_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert CopyWeights.load(tmp_path) is None
    TRUSTING.save(tmp_path)
    assert CopyWeights.load(tmp_path) == TRUSTING


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"features": ["one"]}, id="other features"),
        pytest.param({"bias": [1.0]}, id="too few"),
        pytest.param({"bias": None}, id="none"),
        pytest.param({"slope": ["a"] * len(FEATURES)}, id="words"),
        pytest.param({"slope": ["1"] * len(FEATURES)}, id="numbers in quotes"),
        pytest.param({"bias": "1" * len(FEATURES)}, id="digits"),
        pytest.param({"bias": [10**400] * len(FEATURES)}, id="no float"),
        pytest.param({"slope": [math.nan] * len(FEATURES)}, id="not a number"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    TRUSTING.save(tmp_path)
    file = tmp_path / copying.WEIGHTS_FILE
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(CheckpointError, match=r"training\.calibrate"):
        CopyWeights.load(tmp_path)


def test_weights_in_no_json_are_refused(tmp_path: Path) -> None:
    (tmp_path / copying.WEIGHTS_FILE).write_text("{")
    with pytest.raises(CheckpointError, match=r"training\.calibrate"):
        CopyWeights.load(tmp_path)


# Answers


LINE = "total_amount = self.price(shop, cart, discount) + self.tax(shop)"
BEFORE = f"class Cart:\n    def one(self):\n        {LINE}\n\n    def two(self):\n        "
BEFORE += LINE[:20]


def engine_of(model: Mamba2, tokenizer: Tokenizer, weights: CopyWeights | None) -> Engine:
    return Engine(model, tokenizer, clock=lambda: 0.0, copy_weights=weights)


def ask(engine: Engine, **changes: Any) -> tuple[CompletionRequest, Completion]:
    fields: dict[str, Any] = {
        "document": "a.py",
        "header": "# a.py\n",
        "prefix": BEFORE,
        "suffix": "\n",
        "explicit": True,
        "deadline_ms": None,
        "keep_logits": True,
        "max_tokens": 60,
    }
    request = CompletionRequest(**{**fields, **changes})
    answers: list[Completion] = []
    engine.submit(request, answers.append)
    while engine.step():
        pass
    return request, answers[0]


@pytest.fixture
def model(tiny_model: Callable[..., Mamba2], tokenizer: Tokenizer) -> Mamba2:
    return tiny_model(vocab_size=tokenizer.n_vocab)


@pytest.fixture
def n_drafts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tokens of every draft that is found."""
    found: list[int] = []
    draft = Copier.draft

    def counting(*args: Any) -> list[int]:
        run = draft(*args)
        found.append(len(run))
        return run

    monkeypatch.setattr(Copier, "draft", counting)
    return found


def n_reads(engine: Engine, completion: Completion) -> int:
    return len(list(engine.decoder.passes(0, completion.n_prompt)))


@pytest.mark.parametrize("cut", range(14, 30, 3))
def test_a_line_that_stands_above_is_copied_in_a_few_passes(
    model: Mamba2, tokenizer: Tokenizer, cut: int
) -> None:
    engine = engine_of(model, tokenizer, TRUSTING)
    prefix = BEFORE[: len(BEFORE) - 20 + cut] if cut <= 20 else BEFORE + LINE[20:cut]
    request, completion = ask(engine, prefix=prefix)
    assert (completion.text, completion.stop) == (LINE[cut:], "line")
    check_exact(model, completion)
    check_copied(model, tokenizer, request, completion, TRUSTING)
    n_tokens = len(completion.token_ids)
    assert n_tokens >= 16
    n_passes = completion.n_passes - n_reads(engine, completion) + completion.n_healing_passes
    # One for each run of 12 tokens, and one for each line's end that was left in between.
    assert n_passes <= math.ceil(n_tokens / MAX_DRAFT_TOKENS) + 1


def test_drafts_change_nothing_but_the_cost(
    model: Mamba2, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(model, tokenizer, TRUSTING)
    _, drafted = ask(engine)
    monkeypatch.setattr("engine.decode.MIN_DRAFT_MATCH_BYTES", MAX_MATCH_BYTES + 1)
    plain_engine = engine_of(model, tokenizer, TRUSTING)
    _, plain = ask(plain_engine)
    assert plain.token_ids == drafted.token_ids
    assert plain.log_probs == pytest.approx(drafted.log_probs, abs=1e-3)
    assert plain.n_passes > drafted.n_passes + 5
    # A draft that is wrong from its second token on: read in vain, and nothing else.
    monkeypatch.undo()
    draft = Copier.draft
    monkeypatch.setattr(Copier, "draft", lambda *args: [*draft(*args)[:1], 7, 7, 7])
    _, misled = ask(engine_of(model, tokenizer, TRUSTING))
    assert misled.token_ids == plain.token_ids
    assert misled.log_probs == pytest.approx(plain.log_probs, abs=1e-3)
    check_exact(model, misled)


@pytest.mark.parametrize("seed", range(4))
def test_the_mixture_is_exact_where_model_and_copying_disagree(
    tiny_model: Callable[..., Mamba2], tokenizer: Tokenizer, seed: int
) -> None:
    """Weights so small that now one wins and now the other."""
    model = tiny_model(seed=seed, vocab_size=tokenizer.n_vocab)
    weights = CopyWeights(
        bias=(1.0, 2.0, 1.0, 0.5, -0.5, 3.0, 2.0), slope=(-0.3, -0.1, 0.1, 0.0, 0.2, -0.1, 0.1)
    )
    engine = engine_of(model, tokenizer, weights)
    alone = engine_of(model, tokenizer, None)
    n_different = 0
    for cut in (60, 90, 120):
        fields = {"prefix": BEFORE[:cut], "sources": (LINE,), "max_tokens": 12, "multiline": True}
        request, completion = ask(engine, **fields)
        check_exact(model, completion)
        check_copied(model, tokenizer, request, completion, weights)
        n_different += completion.token_ids != ask(alone, **fields)[1].token_ids
    assert n_different


def test_lines_beside_those_at_the_cursor_are_copied(model: Mamba2, tokenizer: Tokenizer) -> None:
    weights = replace(TRUSTING, bias=(*TRUSTING.bias[:-2], 50.0, 50.0))
    engine = engine_of(model, tokenizer, weights)
    # Behind the longest match, which is nearest too, stands another line.
    prefix = "def g():\n    c = 1\ndef f():\n    c"
    above = ("def h():\n  chosen = 2\n\n  return all_of(it)\n",)
    below = ("  def f():\n\n  chosen = 2\n",)
    other = "\n    return none_of(it)\n"
    for sources, suffix, text in (
        (above, "\n    return all_of(it)\n", "hosen = 2"),
        (above, other, " = 1"),
        (below, other, "hosen = 2"),
        # It stands there already.
        (below, "\n    chosen = 2\n", " = 1"),
    ):
        request, completion = ask(engine, prefix=prefix, sources=sources, suffix=suffix)
        assert completion.text == text
        check_exact(model, completion)
        check_copied(model, tokenizer, request, completion, weights)


def test_sources_are_copied_from(model: Mamba2, tokenizer: Tokenizer) -> None:
    prefix = f"def f():\n    {LINE[:24]}"
    engine = engine_of(model, tokenizer, TRUSTING)
    assert ask(engine, prefix=prefix)[1].text != LINE[24:]
    assert ask(engine, prefix=prefix, sources=("", f"x\n{LINE}\n"))[1].text == LINE[24:]
    assert ask(engine, prefix=prefix, suffix=f"\n{LINE}\n")[1].text == LINE[24:]


@pytest.mark.parametrize("cut", range(7))
def test_raw_answers_are_the_models_own(model: Mamba2, tokenizer: Tokenizer, cut: int) -> None:
    """Held-back text is spelled without copying, too."""
    fields = {"prefix": BEFORE[: len(BEFORE) - cut], "raw": True, "max_tokens": 8}
    _, mixed = ask(engine_of(model, tokenizer, TRUSTING), **fields)
    _, alone = ask(engine_of(model, tokenizer, None), **fields)
    assert mixed.token_ids == alone.token_ids
    assert mixed.log_probs == pytest.approx(alone.log_probs, abs=1e-4)
    assert mixed.logits is not None
    expected = torch.log_softmax(mixed.logits, -1)[-mixed.n_generated :]
    ids = mixed.token_ids[-mixed.n_generated :]
    best = [float(row[i]) for row, i in zip(expected, ids, strict=True)]
    assert mixed.log_probs[-mixed.n_generated :] == pytest.approx(best, abs=1e-4)


# Confidence


def test_the_log_probability_is_that_of_the_whole_first_line(
    model: Mamba2, tokenizer: Tokenizer
) -> None:
    _, line = ask(engine_of(model, tokenizer, TRUSTING))
    assert line.stop == "line"
    assert len(line.log_probs) == len(line.token_ids)
    assert tokenizer.piece_bytes(line.token_ids[-1]) == b"\n"
    assert line.log_prob == pytest.approx(sum(line.log_probs))
    assert -1 < line.log_prob < 0
    _, block = ask(engine_of(model, tokenizer, TRUSTING), multiline=True, max_tokens=80)
    assert block.token_ids[: len(line.token_ids)] == line.token_ids
    assert len(block.token_ids) > len(line.token_ids)
    assert block.log_prob == pytest.approx(line.log_prob, abs=1e-3)


def test_held_back_text_takes_nothing_from_the_confidence(
    model: Mamba2, tokenizer: Tokenizer
) -> None:
    """What the model makes of text that was typed already says nothing of what comes next."""
    engine = engine_of(model, tokenizer, None)
    _, completion = ask(engine, prefix=BEFORE + "pri", max_tokens=1)
    n_held = len(engine.fim.split("# a.py\n" + BEFORE + "pri").held)
    n_covering = len(completion.token_ids) - 1
    assert n_held
    assert completion.logits is not None
    own = torch.log_softmax(completion.logits, -1)
    plain = sum(float(own[i][completion.token_ids[i]]) for i in range(n_covering))
    assert plain < -4, "the model did not expect it"
    left = engine.fim.split("# a.py\n" + BEFORE + "pri").held
    expected = 0.0
    for row, token_id in zip(own[:n_covering], completion.token_ids, strict=False):
        agreeing = [
            i
            for i, piece in enumerate(tokenizer.pieces)
            if piece and (piece.startswith(left) or left.startswith(piece))
        ]
        expected += float(row[token_id] - row[agreeing].logsumexp(0))
        left = left[len(tokenizer.piece_bytes(token_id)) :]
    assert sum(completion.log_probs[:n_covering]) == pytest.approx(expected, abs=1e-3)


def test_the_end_of_the_sequence_counts_to_the_line(model: Mamba2, tokenizer: Tokenizer) -> None:
    engine = engine_of(model, tokenizer, None)
    with torch.inference_mode():
        _, completion = ask(engine, prefix="x = 1\n", max_tokens=1)
        hidden, _ = model.prefill(torch.tensor([completion.prompt_ids]))
        assert isinstance(model.lm_head, torch.nn.Linear)
        model.lm_head.weight[tokenizer.eos_id] = 0.15 * hidden[0, -1]
    _, completion = ask(engine_of(model, tokenizer, None), prefix="x = 1\n")
    assert (completion.stop, completion.token_ids) == ("eos", ())
    assert -10 < completion.log_prob < 0


# Alternatives


def test_alternatives_branch_from_the_answer_and_read_nothing_again(
    model: Mamba2, tokenizer: Tokenizer
) -> None:
    engine = engine_of(model, tokenizer, TRUSTING)
    _, plain = ask(engine_of(model, tokenizer, TRUSTING), max_tokens=8)
    _, completion = ask(engine, n_alternatives=3, max_tokens=8)
    assert (completion.text, completion.token_ids) == (plain.text, plain.token_ids)
    assert (completion.n_passes, completion.n_recomputed) == (plain.n_passes, plain.n_recomputed)
    assert plain.n_alternative_passes == 0
    texts = [completion.text, *(other.text for other in completion.alternatives)]
    assert len(texts) == len(set(texts)) == 4
    # At most one pass a token, and no more attempts than twice what was asked for.
    assert 0 < completion.n_alternative_passes <= 2 * 3 * 8
    assert completion.n_recomputed == completion.n_prompt
    for other in completion.alternatives:
        assert other.stop in ("line", "eos", "limit")
        assert other.log_prob < 0


def test_an_alternative_is_the_best_continuation_of_its_branch(
    model: Mamba2, tokenizer: Tokenizer
) -> None:
    """Written out from scratch: the second best token at the least certain place, then greedily."""
    engine = engine_of(model, tokenizer, None)
    _, completion = ask(engine, prefix="x = 1\n", n_alternatives=1, max_tokens=5)
    assert completion.logits is not None
    own = completion.logits.clone()
    own[:, engine.decoder.banned] = -torch.inf
    seconds = torch.log_softmax(own, -1).topk(2)
    at = int(seconds.values[:, 1].argmax())
    ids = [*completion.token_ids[:at], int(seconds.indices[at, 1])]
    total = sum(completion.log_probs[:at]) + float(seconds.values[at, 1])
    other = completion.alternatives[0]
    while "\n" not in text_of_bytes(tokenizer, ids) and len(ids) - at <= 5:
        hidden, _ = model.prefill(torch.tensor([[*completion.prompt_ids, *ids]]))
        row = model.logits(hidden[0, -1])
        row[engine.decoder.banned] = -torch.inf
        log_probs = torch.log_softmax(row, -1)
        total += float(log_probs.max())
        if int(log_probs.argmax()) == tokenizer.eos_id:
            break
        ids.append(int(log_probs.argmax()))
    line, ended, _ = text_of_bytes(tokenizer, ids).partition("\n")
    rule = StopRule(multiline=False, line_before="")
    assert other.text == (line if ended else rule.unfinished(line))
    assert other.log_prob == pytest.approx(total, abs=1e-2)


def text_of_bytes(tokenizer: Tokenizer, ids: list[int]) -> str:
    return b"".join(map(tokenizer.piece_bytes, ids)).decode(errors="ignore")


def test_alternatives_stop_at_the_deadline(model: Mamba2, tokenizer: Tokenizer) -> None:
    now = [0.0]
    engine = Engine(model, tokenizer, clock=lambda: now[0], copy_weights=TRUSTING)
    answers: list[Completion] = []
    request = CompletionRequest(
        document="a.py",
        header="# a.py\n",
        prefix=BEFORE,
        suffix="",
        explicit=True,
        n_alternatives=4,
        deadline_ms=1000,
    )
    engine.submit(request, answers.append)
    n_steps = 0
    while engine.step():
        n_steps += 1
        now[0] += 0.02
    completion = answers[0]
    assert completion.stop == "line"
    assert completion.text == LINE[20:]
    assert n_steps <= 51
    assert len(completion.alternatives) < 4
    assert completion.n_alternative_passes > 0
