from __future__ import annotations

import itertools
import string
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from queue import Queue
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.decode import Decoder
from engine.engine import Engine
from engine.fim import MAX_HELD_TOKENS, FimFormat, PrefixSplit, PromptOrder
from engine.prompts import bridge_suffix
from engine.request import Completion, CompletionRequest
from engine.slots import SlotPool
from engine.tokenizer import Tokenizer
from engine.trail import Trail
from engine.walk import Walk
from tests.oracle import check_exact, check_greedy

if TYPE_CHECKING:
    from pathlib import Path

    from engine.engine import Ticket
    from engine.mamba2 import Mamba2
    from engine.state import RecurrentState

N_PADDED = 6
HEADER = "# shop/cart.py\n"
TEXT = '''from dataclasses import dataclass


@dataclass
class Cart:
    """Süße Sachen 🍰 ▁."""

    items: list[str]

    def total(self, prices):
        amount = 0
        for item in self.items:
            amount += prices[item]
        return amount

    def add(self, item):
\t    self.items.append(item)
'''
CURSOR = TEXT.index("        return amount")


@dataclass
class Clock:
    """Seconds that pass when a test says so."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now

    def advance_ms(self, ms: float) -> None:
        self.now += ms / 1e3


@dataclass
class Session:
    """An engine stepped by hand; answers by ticket."""

    engine: Engine
    clock: Clock
    answers: dict[Ticket, list[Completion]] = field(default_factory=dict)

    def submit(self, request: CompletionRequest) -> Ticket:
        answers: list[Completion] = []
        ticket = self.engine.submit(request, answers.append)
        self.answers[ticket] = answers
        return ticket

    def answer(self, ticket: Ticket) -> Completion | None:
        answers = self.answers[ticket]
        assert len(answers) <= 1, "answered twice"
        return answers[0] if answers else None

    def run(self, ms_per_step: float = 0.0) -> int:
        """Step until nothing is left; give the number of steps."""
        for n_steps in range(10_000):
            if not self.engine.step():
                return n_steps
            self.clock.advance_ms(ms_per_step)
        raise AssertionError("the engine never comes to rest")

    def complete(self, request: CompletionRequest, ms_per_step: float = 0.0) -> Completion:
        ticket = self.submit(request)
        self.run(ms_per_step)
        completion = self.answer(ticket)
        assert completion is not None
        return completion


def ask(text: str = TEXT, cursor: int = CURSOR, **changes: Any) -> CompletionRequest:
    """Ask for a completion at a place in a text: a few tokens, with their logits."""
    fields = {
        "document": "cart.py",
        "header": HEADER,
        "prefix": text[:cursor],
        "suffix": text[cursor:],
        "max_tokens": 4,
        "deadline_ms": None,
        "keep_logits": True,
    }
    return CompletionRequest(**{**fields, **changes})


def endless(model: Any, tokenizer: Tokenizer) -> Mamba2:
    """Keep a model from ending a line or its answer: the best of 400 logits is well above 0."""
    model.lm_head.weight[[tokenizer.eos_id, *tokenizer.encode("\r\n")]] = 0
    return model


@pytest.fixture(scope="module")
def tokenizer(small_tokenizer_dir: Path) -> Tokenizer:
    return Tokenizer.load(small_tokenizer_dir)


@pytest.fixture(scope="module")
def new_session(tiny_model: Callable[..., Mamba2], tokenizer: Tokenizer) -> Callable[..., Session]:
    def make(model: Mamba2 | None = None, **options: Any) -> Session:
        clock = Clock()
        model = model or endless(tiny_model(vocab_size=tokenizer.n_vocab + N_PADDED), tokenizer)
        return Session(Engine(model, tokenizer, clock=clock, **options), clock)

    return make


@pytest.fixture
def session(new_session: Callable[..., Session]) -> Session:
    return new_session()


def prompt_ids(engine: Engine, request: CompletionRequest, kind: str) -> list[int]:
    """Give what the prompt of a request must be, from its text and its epoch alone."""
    ids = engine.fim.split(request.header + request.prefix).ids.tolist()
    if kind == "epoch":
        epoch = engine.epochs.at(
            request.document, header=request.header, after_cursor=request.suffix
        )
        return [*engine.fim.head(PromptOrder.SUFFIX_FIRST, epoch.suffix), *ids]
    tail = engine.fim.bridge(bridge_suffix(request.suffix))
    assert kind == ("bridge" if tail else "trunk")
    return [*engine.fim.trunk_head(), *ids, *tail]


def check_canonical(engine: Engine, text: str, split: PrefixSplit) -> None:
    """Hold that whatever is typed next, the committed pieces are those of the longer text."""
    if len(engine.tokenizer.encode(split.held.decode(errors="ignore"))) >= MAX_HELD_TOKENS:
        return
    # Lines are encoded one by one.
    start = text.rfind("\n") + 1
    above, committed = engine.fim.prefix_ids(text[:start]), split.ids.tolist()
    assert committed[: len(above)] == above[: len(committed)]
    of_line = committed[len(above) :]
    for following in ("", *string.printable, "ü", "🍰"):
        longer = engine.tokenizer.encode(text[start:] + following)
        same = longer[: len(of_line)] == of_line
        assert same, f"committed too early before {following!r}"


def check(session: Session, request: CompletionRequest, completion: Completion) -> None:
    """Hold an answer to what its request, its epoch and the model say, from scratch."""
    engine = session.engine
    assert completion.stop in ("line", "block", "eos", "limit")
    check_exact(engine.model, completion)
    check_greedy(engine.model, engine.tokenizer, completion)
    split = engine.fim.split(request.header + request.prefix)
    check_canonical(engine, request.header + request.prefix, split)
    assert list(completion.prompt_ids) == prompt_ids(engine, request, completion.kind)
    if request.explicit or request.raw:
        assert completion.kind == "epoch"
    written = b"".join(map(engine.tokenizer.piece_bytes, completion.token_ids))
    if completion.token_ids:
        assert written.startswith(split.held)
        text = written[len(split.held) :].decode(errors="ignore")
        assert text.startswith(completion.text)
    assert completion.n_prompt == len(completion.prompt_ids)
    assert completion.n_generated <= request.max_tokens


# Exactness

Edit = tuple[str, Any]

SCRIPT: list[Edit] = [
    *[("type", char) for char in "        if amount > lim"],
    ("pair", "()"),
    ("type", "x"),
    ("overtype", ")"),
    ("type", ":"),
    ("type", "\n            "),
    *[("type", char) for char in "Über🍰 = "],
    *[("delete", 1)] * 6,
    ("type", "s"),
    ("delete", 30),
    ("type", "for item in self"),
    ("jump", TEXT.index("items: list")),
    ("type", "it"),
    ("delete", 2),
    ("jump", CURSOR + 20),
    ("type", "."),
    ("delete_after", 5),
    ("type", "a"),
    ("jump", 0),
    ("type", "im"),
    ("jump", len(TEXT)),
    ("type", "\n\tpass"),
]


def edited(text: str, cursor: int, kind: str, value: Any) -> tuple[str, int]:
    """Give text and cursor after an edit."""
    before, after = text[:cursor], text[cursor:]
    match kind:
        case "type":
            return before + value + after, cursor + len(value)
        case "pair":
            return before + value + after, cursor + 1
        case "overtype":
            return text, cursor + len(value)
        case "delete":
            kept = before[: max(0, cursor - value)]
            return kept + after, len(kept)
        case "delete_after":
            return before + after[value:], cursor
        case "jump":
            return text, value % (len(text) + 1)
    raise ValueError(kind)


def play(
    session: Session, edits: list[Edit], text: str = TEXT, cursor: int = CURSOR
) -> list[tuple[Edit, Completion]]:
    """Edit and ask after every edit, and hold every answer to the oracle.

    The second time around, with its build done, a request is answered from its exact epoch.
    """
    completions = []
    for i, (kind, value) in enumerate(edits):
        text, cursor = edited(text, cursor, kind, value)
        request = ask(text, cursor, multiline=i % 3 == 0)
        completion = session.complete(request)
        check(session, request, completion)
        check_budget(session.engine)
        completions.append(((kind, value), completion))
        if completion.kind != "epoch":
            again = session.complete(request)
            check(session, request, again)
            assert again.kind == "epoch"
    return completions


def check_budget(engine: Engine) -> None:
    counters = engine.counters()
    assert counters["cache_bytes"] == engine.cache.n_bytes
    assert counters["trail_bytes"] == engine.decoder.trail_bytes
    assert engine.cache.n_bytes + engine.decoder.trail_bytes <= BUDGET_BYTES.get(engine, 2**29)


# Of engines that were made with a budget of their own.
BUDGET_BYTES: WeakKeyDictionary[Engine, int] = WeakKeyDictionary()


def test_every_answer_of_an_editing_session_is_exact(session: Session) -> None:
    session.complete(ask())
    completions = play(session, SCRIPT)
    assert sum(completion.n_generated for _, completion in completions) > 2 * len(SCRIPT)
    assert any(completion.n_healing_passes for _, completion in completions)
    sources = Counter(completion.source for _, completion in completions)
    assert sources["trail"] > len(SCRIPT) / 2
    encode = session.engine.tokenizer.encode
    for (kind, value), completion in completions[: SCRIPT.index(("delete", 1))]:
        n_inserted = len(encode(value)) if kind == "type" else 1
        assert completion.n_recomputed <= n_inserted + 8, (kind, value)


def test_every_kind_of_answer_is_exact(session: Session) -> None:
    text = "".join(TEXT.replace("Cart", f"Cart{i}") for i in range(4))
    jumps: list[Edit] = [("jump", cursor) for cursor in range(100, len(text), 300)]
    edits = [
        edit for jump in jumps for edit in (jump, ("type", "s"), ("type", "elf."), ("delete", 1))
    ]
    edits += [("jump", -1), ("jump", 310), ("jump", -30)]
    completions = play(session, edits, text, len(text))
    kinds = Counter(completion.kind for _, completion in completions)
    assert kinds["epoch"] > kinds["bridge"] > len(jumps) / 2
    assert kinds["trunk"] == 1
    for edit, completion in completions[1:]:
        if edit in jumps:
            # A trunk's states serve all places; the suffix laid on top is short.
            assert completion.n_recomputed < completion.n_prompt
            assert completion.kind == "bridge"
        elif edit[0] == "type":
            assert completion.kind == "epoch", "it was built meanwhile"
            assert completion.n_recomputed <= 8


@pytest.mark.parametrize("changes", [{"explicit": True}, {"raw": True}], ids=str)
def test_some_requests_are_always_answered_from_the_exact_epoch(
    session: Session, changes: dict[str, bool]
) -> None:
    text = TEXT * 4
    session.complete(ask(text, len(text)))
    assert session.complete(ask(text, 100)).kind == "bridge"
    session.engine.forget("cart.py")
    ticket = session.submit(ask(text, 110, **changes))
    session.run()
    completion = session.answer(ticket)
    assert completion is not None
    assert completion.kind == "epoch"
    if "raw" not in changes:
        check(session, ticket.request, completion)
    assert session.engine.counters()["background_tokens"] > 0


EDITS = st.one_of(
    st.tuples(st.just("type"), st.sampled_from(["s", " ", "\n", "self.", "é", "🍰", "x = 1\n\t"])),
    st.tuples(st.just("pair"), st.sampled_from(["()", "[]", '""'])),
    st.tuples(st.sampled_from(["delete", "delete_after"]), st.integers(1, 40)),
    st.tuples(st.just("jump"), st.integers(0, 1000)),
)


@given(
    edits=st.lists(EDITS, max_size=8),
    n_states=st.sampled_from([0, 1, 3, 12, 1000]),
    n_host=st.sampled_from([0, 3]),
)
@settings(max_examples=8, deadline=None)
def test_whatever_is_edited_and_evicted_answers_are_exact(
    new_session: Callable[..., Session], edits: list[Edit], n_states: int, n_host: int
) -> None:
    state_bytes = new_session(budget_bytes=0).engine.model.initial_state().n_bytes
    budget_bytes = int((n_states + 0.5) * state_bytes)
    session = new_session(budget_bytes=budget_bytes, host_budget_bytes=n_host * state_bytes)
    BUDGET_BYTES[session.engine] = budget_bytes + n_host * state_bytes
    play(session, edits)


def test_with_many_documents_the_budget_is_used_and_kept(
    new_session: Callable[..., Session],
) -> None:
    state_bytes = new_session(budget_bytes=0).engine.model.initial_state().n_bytes
    session = new_session(budget_bytes=20 * state_bytes)
    BUDGET_BYTES[session.engine] = 20 * state_bytes
    used = set()
    for i in range(8):
        request = ask(document=f"{i}", header=f"# {i}\n")
        check(session, request, session.complete(request))
        check_budget(session.engine)
        used.add(session.engine.counters()["cache_bytes"] // state_bytes)
    # A quarter is for trails.
    assert 13 < max(used) <= 15
    assert 2 * state_bytes < session.engine.counters()["trail_bytes"] <= 5 * state_bytes
    assert session.engine.counters()["cache_evicted"] > 0


def test_raw_is_the_models_own_greedy_continuation(session: Session) -> None:
    request = ask(raw=True, max_tokens=24)
    completion = session.complete(request)
    check_exact(session.engine.model, completion)
    assert completion.logits is not None
    n_covered = len(completion.token_ids) - completion.n_generated
    best = completion.logits.argmax(-1).tolist()
    assert list(completion.token_ids[n_covered:]) == best[n_covered:]
    assert (completion.stop, completion.n_generated) == ("limit", 24)


def as_it_was(engine: Engine, ids: list[int]) -> RecurrentState:
    return engine.model.prefill(torch.tensor([ids]))[1]


def zeroed(engine: Engine, ids: list[int]) -> RecurrentState:
    return engine.model.initial_state()


def shifted(engine: Engine, ids: list[int]) -> RecurrentState:
    return as_it_was(engine, ids[:-1])


def other_suffix(engine: Engine, ids: list[int]) -> RecurrentState:
    prefix_ids = ids[ids.index(engine.tokenizer.prefix_id) + 1 :]
    head = engine.fim.head(PromptOrder.SUFFIX_FIRST, "    return amount + 1\n")
    return as_it_was(engine, [*head, *prefix_ids])


Fault = Callable[[Engine, list[int]], "RecurrentState"]
PLACES = pytest.mark.parametrize("place", ["cache", "trail"])


def complete_on(session: Session, place: str, fault: Fault) -> Completion:
    """Complete after one more character, on a kept state that was exchanged."""
    engine = session.engine
    first = session.complete(ask())
    with torch.inference_mode():
        state = fault(engine, list(first.prompt_ids))
    [trail] = engine.decoder.trails.values()
    if place == "cache":
        engine.decoder.trails.clear()
        engine.cache.replace(first.prompt_ids, state)
    else:
        trail.remember(first.n_prompt, state)
    text, cursor = edited(TEXT, CURSOR, "type", "r")
    completion = session.complete(ask(text, cursor))
    assert completion.n_recomputed <= 9, "it went on from the exchanged state"
    assert completion.source == ("tier0" if place == "cache" else "trail")
    return completion


@PLACES
def test_the_same_state_computed_otherwise_changes_nothing(session: Session, place: str) -> None:
    check_exact(session.engine.model, complete_on(session, place, as_it_was))


@PLACES
@pytest.mark.parametrize("fault", [zeroed, shifted, other_suffix])
def test_a_wrong_state_is_seen(session: Session, place: str, fault: Fault) -> None:
    completion = complete_on(session, place, fault)
    with pytest.raises(AssertionError, match="away from those from scratch"):
        check_exact(session.engine.model, completion)


def test_a_piece_that_is_committed_too_early_is_seen(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ask(*edited(TEXT, CURSOR, "type", "        sel"))
    check(session, request, session.complete(request))

    def hasty(fim: FimFormat, text: str) -> PrefixSplit:
        return PrefixSplit(ids=np.array(fim.prefix_ids(text), np.int32), held=b"")

    monkeypatch.setattr(FimFormat, "split", hasty)
    completion = session.complete(request)
    with pytest.raises(AssertionError, match="committed too early"):
        check(session, request, completion)


def test_a_state_of_a_slot_that_was_given_up_is_refused(session: Session) -> None:
    session.complete(ask())
    session.engine.decoder.trails.clear()
    for tier in session.engine.cache.tiers:
        tier.clear()
    ticket = session.submit(ask())
    session.run()
    completion = session.answer(ticket)
    assert completion is not None
    assert completion.stop == "error"


def test_logits_are_kept_on_request_alone(session: Session) -> None:
    completion = session.complete(ask(keep_logits=False))
    assert completion.token_ids
    assert completion.logits is None
    with pytest.raises(AssertionError, match="keep_logits"):
        check_exact(session.engine.model, completion)


# Stopping

# The prefixes end where nothing is held back, with a token that the spoken text does not repeat.
LINE = "x\n"
BLOCK = "def f():\n\t"


@pytest.fixture
def speaking(
    tiny_model: Callable[..., Mamba2], tokenizer: Tokenizer, new_session: Callable[..., Session]
) -> Callable[..., Session]:
    """`speaking(prefix, text)`: a session whose model says `text` after `prefix`, then ends.

    The next token depends on the last one alone. So that no token comes twice, whatever the
    vocabulary, no character does, unless what follows is to be repeated.
    """

    def make(prefix: str, text: str) -> Session:
        n_vocab = tokenizer.n_vocab
        model: Any = tiny_model(vocab_size=n_vocab, n_layers=1, d_model=512, headdim=64)
        model.backbone.embeddings.weight.copy_(torch.eye(n_vocab, 512))
        model.backbone.norm_f.weight.fill_(1)
        model.backbone.layers[0].mixer.out_proj.weight.zero_()
        model.lm_head.weight.zero_()
        ids = [*tokenizer.encode(prefix)[-1:], *tokenizer.encode(text), tokenizer.eos_id]
        following: dict[int, int] = {}
        for token_id, next_id in itertools.pairwise(ids):
            if token_id not in following:
                following[token_id] = next_id
                model.lm_head.weight[next_id, token_id] = 1
        return new_session(model)

    return make


@pytest.mark.parametrize(
    ("prefix", "spoken", "changes", "text", "stop"),
    [
        pytest.param(LINE, "ab =cf\n", {}, "ab =cf", "line", id="line"),
        pytest.param(LINE, "ab =cf\r", {}, "ab =cf", "line", id="line, CR"),
        pytest.param(LINE, "\r", {}, "", "line", id="line ends at once"),
        pytest.param(LINE, "ab =cf", {}, "ab =cf", "eos", id="end of sequence"),
        pytest.param(LINE, "", {}, "", "eos", id="end of sequence at once"),
        pytest.param(LINE, "🍰", {}, "🍰", "eos", id="character in four tokens"),
        pytest.param(LINE, "🍰", {"max_tokens": 4}, "🍰", "limit", id="limit behind a character"),
        pytest.param(LINE, "🍰", {"max_tokens": 3}, "", "limit", id="limit in a character"),
        pytest.param(BLOCK, "ab =cf\nd", {"multiline": True}, "ab =cf", "block", id="block"),
        pytest.param(BLOCK, "ab =cf\nd", {}, "ab =cf", "line", id="one line of a block"),
        pytest.param(BLOCK, "ab\ncf", {"raw": True}, "ab\ncf", "eos", id="raw: no stop rule"),
    ],
)
def test_stops(
    speaking: Callable[..., Session],
    prefix: str,
    spoken: str,
    changes: dict[str, Any],
    text: str,
    stop: str,
) -> None:
    request = ask(header="", prefix=prefix, suffix="", **{"max_tokens": 32, **changes})
    session = speaking(prefix, spoken)
    completion = session.complete(request)
    assert (completion.text, completion.stop) == (text, stop)
    check_exact(session.engine.model, completion)
    assert session.engine.counters()[f"answers_{stop}"] == 1


@pytest.mark.parametrize(
    "changes", [{"max_tokens": 0}, {"deadline_ms": -1.0}], ids=["max_tokens", "deadline_ms"]
)
def test_a_request_that_cannot_be_meant_is_refused(changes: dict[str, Any]) -> None:
    name, value = next(iter(changes.items()))
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        ask(**changes)


# Deadlines


def test_a_deadline_while_writing_gives_complete_words(speaking: Callable[..., Session]) -> None:
    spoken = "abc.def =ghi(jkl)\n"
    line = spoken[:-1]
    shown = set()
    for deadline_ms in range(0, 400, 10):
        session = speaking(LINE, spoken)
        request = ask(
            header="", prefix=LINE, suffix="", max_tokens=64, deadline_ms=float(deadline_ms)
        )
        completion = session.complete(request, ms_per_step=10)
        text = completion.text
        if completion.stop == "line":
            break
        assert completion.stop == "deadline"
        assert line.startswith(text)
        assert not (text[-1:].isalnum() and line[len(text)].isalnum()), text
        assert 10 * (completion.n_passes + 1) >= deadline_ms, "it ended too early"
        shown.add(text)
    assert completion.text == line
    assert "" in shown
    assert len(shown) >= 3


def test_a_deadline_while_writing_gives_complete_lines(speaking: Callable[..., Session]) -> None:
    spoken = "ab =cf\n\t"  # and so on: what follows a tab is known
    request = ask(
        header="", prefix=BLOCK, suffix="", max_tokens=64, multiline=True, deadline_ms=150.0
    )
    completion = speaking(BLOCK, spoken).complete(request, ms_per_step=10)
    assert completion.stop == "deadline"
    assert set(completion.text.split("\n\t")) == {"ab =cf"}


def test_a_line_that_is_complete_at_the_deadline_is_complete(
    speaking: Callable[..., Session],
) -> None:
    request = ask(header="", prefix=LINE, suffix="", max_tokens=64)
    session = speaking(LINE, "ab =cf\n")
    session.submit(request)
    n_steps = session.run()
    # The last pass ends just at the deadline.
    request = replace(request, deadline_ms=10.0 * (n_steps - 1))
    completion = speaking(LINE, "ab =cf\n").complete(request, ms_per_step=10)
    assert (completion.stop, completion.text) == ("line", "ab =cf")


def test_raw_at_a_deadline_keeps_what_was_written(speaking: Callable[..., Session]) -> None:
    session = speaking(LINE, "abc.def")
    request = ask(header="", prefix=LINE, suffix="", raw=True, deadline_ms=30.0)
    completion = session.complete(request, ms_per_step=10)
    assert completion.stop == "deadline"
    tokenizer = session.engine.tokenizer
    assert completion.text == tokenizer.decode(completion.token_ids) != ""


@pytest.mark.parametrize("drained", [False, True], ids=["at once", "after the build"])
def test_a_deadline_while_reading_is_answered_empty_and_the_next_request_goes_on(
    session: Session, drained: bool
) -> None:
    session.engine.decoder.chunk_tokens = 16
    request = ask(deadline_ms=25.0)
    ticket = session.submit(request)
    while (late := session.answer(ticket)) is None:
        session.engine.step()
        session.clock.advance_ms(10)
    assert (late.text, late.stop, late.token_ids) == ("", "deadline", ())
    assert late.n_passes == 4, "the pass that ran into the deadline is the last"
    assert 0 < late.n_recomputed < late.n_prompt
    n_left = late.n_prompt - late.n_recomputed
    if not drained:
        completion = session.complete(ask())
        assert completion.n_recomputed == n_left
        assert session.engine.counters()["background_tokens"] == 0
    else:
        session.run()
        completion = session.complete(ask())
        assert completion.n_recomputed == 0
        assert session.engine.counters()["background_tokens"] == n_left
    check(session, request, completion)


def test_the_deadline_counts_from_submission(session: Session) -> None:
    ticket = session.submit(ask(deadline_ms=1000.0))
    session.clock.advance_ms(1001.0)
    session.engine.step()
    completion = session.answer(ticket)
    assert completion is not None
    assert (completion.stop, completion.n_passes) == ("deadline", 1)
    assert completion.timings_ms["queue"] == pytest.approx(1001.0)


def test_a_deadline_while_healing_keeps_what_was_read(session: Session) -> None:
    text, cursor = edited(TEXT, CURSOR, "type", "        return amo")
    session.engine.prepare(ask(text, cursor))
    session.run()
    late = session.complete(ask(text, cursor, deadline_ms=0.0))
    assert (late.text, late.stop, late.n_recomputed) == ("", "deadline", 0)
    assert late.n_healing_passes == 1
    completion = session.complete(ask(text, cursor))
    assert completion.n_recomputed == 0
    check(session, ask(text, cursor), completion)


def test_without_a_deadline_it_takes_its_time(session: Session) -> None:
    assert session.complete(ask(), ms_per_step=1e6).stop == "limit"


# Newest wins, turns

# In reading, healing and writing.
N_STEPS = [0, 1, 4, 6, 7, 9, 12, 16]


def ask_long() -> CompletionRequest:
    """Ask in the middle of a word, for more steps than N_STEPS has."""
    return ask(cursor=TEXT.index("mount\n\n"), max_tokens=30)


def check_cost(completion: Completion, n_steps: int) -> None:
    # The first token that is written needs no pass.
    n_passes = completion.n_passes + completion.n_healing_passes
    assert n_passes == n_steps - (completion.n_generated > 0)


@pytest.mark.parametrize("n_steps", N_STEPS)
def test_a_newer_request_supersedes_the_older_at_once(session: Session, n_steps: int) -> None:
    older = session.submit(ask_long())
    for _ in range(n_steps):
        session.engine.step()
    assert session.answer(older) is None
    newer = session.submit(ask(*edited(TEXT, CURSOR, "type", "s")))
    superseded = session.answer(older)
    assert superseded is not None
    assert (superseded.text, superseded.stop) == ("", "superseded")
    check_cost(superseded, n_steps)
    session.run()
    completion = session.answer(newer)
    assert completion is not None
    assert session.answer(older) is superseded
    check(session, newer.request, completion)
    assert session.engine.counters()["answers_superseded"] == 1


def test_an_answered_request_is_not_superseded(session: Session) -> None:
    older = session.submit(ask())
    session.run()
    session.submit(ask())
    session.run()
    completion = session.answer(older)
    assert completion is not None
    assert completion.stop == "limit"


@pytest.mark.parametrize("cached", [False, True], ids=["first pass", "last pass"])
def test_superseded_while_its_own_pass_runs(
    session: Session, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    """As when another thread submits while the engine computes."""
    if cached:
        session.complete(ask())
        session.engine.decoder.trails.clear()
    # Nothing is held back here, so with the prompt cached the only pass is for the second token.
    older = session.submit(ask(max_tokens=2))
    newer: list[Ticket] = []
    method = "forward" if cached else "prefill"
    working = getattr(session.engine.model, method)

    def submitting(*args: Any) -> Any:
        if not newer:
            newer.append(session.submit(ask(*edited(TEXT, CURSOR, "type", "s"))))
        return working(*args)

    monkeypatch.setattr(session.engine.model, method, submitting)
    session.run()
    first, second = session.answer(older), session.answer(newer[0])
    assert first is not None
    assert second is not None
    assert first.stop == "superseded"
    assert older.cost.n_passes == 1
    check(session, newer[0].request, second)


@pytest.mark.parametrize("n_steps", N_STEPS)
def test_cancel_is_answered_after_the_pass_that_runs(session: Session, n_steps: int) -> None:
    ticket = session.submit(ask_long())
    for _ in range(n_steps):
        session.engine.step()
    ticket.cancel()
    ticket.cancel()
    assert session.answer(ticket) is None
    session.engine.step()
    completion = session.answer(ticket)
    assert completion is not None
    assert (completion.text, completion.stop) == ("", "cancel")
    check_cost(completion, n_steps)
    assert not session.engine.step()
    again = session.complete(ask_long())
    assert again.n_recomputed == again.n_prompt - completion.n_recomputed
    check(session, ask_long(), again)


def test_cancel_of_an_answered_request_does_nothing(session: Session) -> None:
    ticket = session.submit(ask())
    session.run()
    ticket.cancel()
    session.run()
    completion = session.answer(ticket)
    assert completion is not None
    assert completion.stop == "limit"


def test_a_cancelled_request_that_is_superseded_was_cancelled(session: Session) -> None:
    ticket = session.submit(ask())
    ticket.cancel()
    session.submit(ask())
    completion = session.answer(ticket)
    assert completion is not None
    assert completion.stop == "cancel"


def test_documents_take_turns(session: Session) -> None:
    tickets = [session.submit(ask(document=name, header=f"# {name}\n")) for name in "abc"]
    n_turns = 0
    while all(session.answer(ticket) is None for ticket in tickets):
        session.engine.step()
        n_turns += 1
        n_passes = [ticket.cost.n_passes + ticket.cost.n_healing_passes for ticket in tickets]
        assert sum(n_passes) <= n_turns
        assert max(n_passes) - min(n_passes) <= 1
    session.run()
    for ticket in tickets:
        completion = session.answer(ticket)
        assert completion is not None
        check(session, ticket.request, completion)


def test_documents_share_states(session: Session) -> None:
    """The same text in another file with the same header is read already."""
    session.complete(ask(document="a"))
    completion = session.complete(ask(document="b"))
    assert completion.n_recomputed == 0
    check(session, ask(document="b"), completion)


# Preparing


def n_reads(session: Session, completion: Completion) -> int:
    """Give the number of passes that read the whole prompt of an answer."""
    return len(list(session.engine.decoder.cuts(0, completion.n_prompt)))


def test_a_prepared_prompt_costs_nothing(session: Session) -> None:
    session.engine.prepare(ask())
    n_steps = session.run()
    completion = session.complete(ask())
    assert completion.n_recomputed == 0
    assert n_steps == n_reads(session, completion) + 1, "it read, and did nothing else"
    check(session, ask(), completion)
    counters = session.engine.counters()
    assert counters["background_tokens"] == completion.n_prompt
    assert counters["answers_limit"] == 1


def test_a_request_goes_before_preparations_and_takes_over_its_own(session: Session) -> None:
    session.engine.prepare(ask(document="a"))
    session.engine.prepare(ask(document="b", header="# b\n"))
    session.engine.step()
    session.engine.step()
    n_read = session.engine.counters()["background_tokens"]
    assert n_read > 0
    ticket = session.submit(ask(document="a"))
    while session.answer(ticket) is None:
        assert session.engine.step()
    assert session.engine.counters()["background_tokens"] == n_read
    completion = session.answer(ticket)
    assert completion is not None
    assert completion.n_recomputed < completion.n_prompt
    session.run()
    other = session.complete(ask(document="b", header="# b\n"))
    assert other.n_recomputed == 0
    n_of_a = completion.n_prompt - completion.n_recomputed
    assert session.engine.counters()["background_tokens"] == n_of_a + other.n_prompt


def test_the_newest_preparation_of_a_document_counts(session: Session) -> None:
    newer = ask(*edited(TEXT, CURSOR, "type", "        retur"))
    session.engine.prepare(ask())
    session.engine.step()
    session.engine.prepare(newer)
    session.run()
    completion = session.complete(newer)
    assert completion.n_recomputed == 0
    assert session.engine.counters()["background_tokens"] == completion.n_prompt


def test_preparing_has_no_deadline(session: Session) -> None:
    session.engine.prepare(ask(deadline_ms=1.0))
    session.run(ms_per_step=100)
    assert session.complete(ask()).n_recomputed == 0


def test_a_document_that_was_closed_is_prepared_no_more(session: Session) -> None:
    session.engine.prepare(ask())
    session.engine.prepare(ask(cursor=40), key="cart.py, the next window")
    session.engine.prepare(ask(document="other", header="# other\n"))
    for _ in range(3):
        session.engine.step()
    session.engine.forget("cart.py")
    n_read = session.engine.counters()["background_passes"]
    other = session.run()
    assert session.engine.counters()["background_passes"] == n_read + other - 1
    assert session.complete(ask(document="other", header="# other\n")).n_recomputed == 0
    assert session.complete(ask(cursor=40)).n_recomputed > 0


# Turns


def turns_until_answered(session: Session, ticket: Ticket, ms_per_step: float) -> list[bool]:
    """Step until a request is answered; tell of each step whether it was background work."""
    turns = []
    while session.answer(ticket) is None:
        n_passes = session.engine.counters()["background_passes"]
        session.engine.step()
        session.clock.advance_ms(ms_per_step)
        turns.append(session.engine.counters()["background_passes"] > n_passes)
    return turns


def ask_other(n: int = 60) -> CompletionRequest:
    """Ask in another document, whose prompt takes many passes."""
    return ask(TEXT * 4, n, document="other", header="# other\n")


@pytest.mark.parametrize("n_replaced", [0, 1, 5])
def test_a_preparation_that_waits_300_ms_gets_every_second_pass(
    session: Session, n_replaced: int
) -> None:
    """Replaced again and again by steady typing, it has waited since the first."""
    session.engine.decoder.chunk_tokens = 16
    session.engine.prepare(ask_other())
    ticket = session.submit(ask(max_tokens=90))
    turns = []
    for i in range(n_replaced):
        for _ in range(5):
            assert session.engine.step()
            session.clock.advance_ms(10)
            turns.append(session.engine.counters()["background_passes"] > 0)
        session.engine.prepare(ask_other(61 + i))
    turns += turns_until_answered(session, ticket, 10.0)
    # From the 31st step on, until it is done.
    assert not any(turns[:30])
    n_passes = len(list(session.engine.decoder.cuts(0, 800)))
    assert turns[30:60] == [True, False] * 15
    assert sum(turns) > n_passes / 3
    completion = session.answer(ticket)
    assert completion is not None
    check(session, ticket.request, completion)


def test_once_done_a_preparation_has_waited_no_more(session: Session) -> None:
    session.engine.prepare(ask_other())
    session.clock.advance_ms(1000)
    session.run()
    session.engine.prepare(ask_other(300))
    ticket = session.submit(ask())
    assert not any(turns_until_answered(session, ticket, 1.0))


def test_a_build_that_waits_does_not_read_what_a_request_has_read(session: Session) -> None:
    """An explicit request while its epoch is being built: they take turns, not twice the time."""
    session.engine.decoder.chunk_tokens = 16
    session.engine.prepare(ask())
    session.engine.step()
    session.clock.advance_ms(400)
    ticket = session.submit(ask(explicit=True))
    turns = turns_until_answered(session, ticket, 1.0)
    completion = session.answer(ticket)
    assert completion is not None
    assert sum(turns) > 3
    check(session, ticket.request, completion)
    session.run()
    n_background = session.engine.counters()["background_tokens"]
    assert completion.n_recomputed + n_background == completion.n_prompt


def test_a_request_does_not_drop_what_is_prepared(session: Session) -> None:
    text = TEXT * 4
    session.complete(ask(text, len(text)))
    prepared = ask(text, 700)
    session.engine.prepare(prepared)
    session.engine.step()
    tickets = [session.submit(ask(text + char, len(text) + 1)) for char in "xy"]
    session.run()
    assert [ticket.request.prefix[-1] for ticket in tickets if session.answer(ticket)] == ["x", "y"]
    n_read = session.engine.counters()["background_tokens"]
    completion = session.complete(prepared)
    assert (completion.kind, completion.n_recomputed) == ("epoch", 0)
    assert n_read == completion.n_prompt


@pytest.mark.parametrize("older", [True, False], ids=["older", "newer"])
def test_the_build_of_a_request_replaces_what_was_prepared_before_it(
    session: Session, older: bool
) -> None:
    text = TEXT * 4
    prepared, jumped = ask(text, 700), ask(text, 60)
    if older:
        session.engine.prepare(prepared)
        session.engine.step()
    ticket = session.submit(jumped)
    if not older:
        session.engine.prepare(prepared)
    session.run()
    completion = session.answer(ticket)
    assert completion is not None
    assert completion.kind == "bridge"
    recomputed = [
        session.complete(replace(request, explicit=True)).n_recomputed
        for request in (prepared, jumped)
    ]
    assert [n > 0 for n in recomputed] == [older, not older]


@pytest.mark.parametrize("jump", [False, True], ids=["late", "bridge"])
def test_an_answer_without_its_epoch_leaves_a_build(session: Session, jump: bool) -> None:
    text = TEXT * 4
    request = ask(text, 60) if jump else ask(text, len(text), deadline_ms=0.0)
    session.complete(ask(text, len(text), document="other", header="# other\n"))
    ticket = session.submit(request)
    turns = turns_until_answered(session, ticket, 1.0)
    assert not any(turns)
    answer = session.answer(ticket)
    assert answer is not None
    assert (answer.kind, answer.stop) == (("bridge", "limit") if jump else ("epoch", "deadline"))
    n_steps = session.run()
    assert n_steps > 5
    again = session.complete(ask(text, 60 if jump else len(text)))
    check(session, request, again)
    assert (again.kind, again.n_recomputed) == ("epoch", 0)
    # Once is enough.
    assert session.engine.counters()["background_passes"] == n_steps - 1


def test_a_forgotten_document_starts_a_new_epoch(session: Session) -> None:
    paired = ask(*edited(TEXT, CURSOR, "pair", "()"))
    session.complete(ask())
    kept = session.complete(paired)
    session.engine.forget("cart.py")
    new = session.complete(paired)
    assert kept.n_recomputed <= 9 < new.n_recomputed
    check(session, paired, new)


# Faults


@pytest.mark.parametrize("method", ["prefill", "forward", "logits"])
@pytest.mark.parametrize("n_good", [0, 2])
def test_a_completion_that_fails_is_answered_and_the_next_one_is_right(
    session: Session, monkeypatch: pytest.MonkeyPatch, method: str, n_good: int
) -> None:
    calls = itertools.count()
    working = getattr(session.engine.model, method)

    def failing(*args: Any) -> Any:
        if next(calls) >= n_good:
            raise MemoryError("no room")
        return working(*args)

    with monkeypatch.context() as patch:
        patch.setattr(session.engine.model, method, failing)
        ticket = session.submit(ask())
        other = session.submit(ask(document="other", header=""))
        session.run()
        for failed in (ticket, other):
            completion = session.answer(failed)
            assert completion is not None
            assert (completion.text, completion.stop) == ("", "error")
    completion = session.complete(ask())
    check(session, ask(), completion)
    assert session.engine.counters()["answers_error"] == 2


def test_a_preparation_that_fails_is_dropped(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> Any:
        raise RuntimeError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(session.engine.model, "prefill", failing)
        patch.setattr(session.engine.model, "forward", failing)
        session.engine.prepare(ask())
        assert session.run() == 1
    check(session, ask(), session.complete(ask()))


SHORT_SCRIPT: list[Edit] = [
    *[("type", text) for text in ("        s", "e", "l")],
    ("type", "f.items = [amount for amount in self.items if amount > 1]"),
    *[("delete", 1)] * 2,
    ("jump", TEXT.index("items: list")),
    ("jump", CURSOR + 20),
    ("type", "s"),
    ("jump", TEXT.index("items: list") + 2),
]
POINTS = [
    (SlotPool, "write", 2),
    (SlotPool, "read", 1),
    (SlotPool, "read", 2),
    (Trail, "at", 2),
    (Trail, "extend", 2),
    (Trail, "cut", 2),
    (Trail, "_narrow", 2),
    (Trail, "move_up", 2),
    (Trail, "rest", 2),
    (Trail, "remember", 2),
    (Decoder, "_begin_trail", 2),
    (Walk, "run", 2),
]


@pytest.mark.parametrize(
    ("cls", "method", "every"), POINTS, ids=lambda value: getattr(value, "__name__", value)
)
def test_where_there_is_no_memory_to_keep_states_answers_are_right(
    new_session: Callable[..., Session],
    monkeypatch: pytest.MonkeyPatch,
    cls: type,
    method: str,
    every: int,
) -> None:
    """It fails when half is done: what was written in part must not be used."""
    session = new_session(budget_bytes=10 * 2**14, host_budget_bytes=10 * 2**14)
    working = getattr(cls, method)
    calls = itertools.count(1)

    def failing(*args: Any, **named: Any) -> Any:
        result = working(*args, **named)
        if next(calls) % every == 0:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return result

    monkeypatch.setattr(cls, method, failing)
    play(session, SHORT_SCRIPT)
    assert next(calls) > every, "it was never called"


def test_where_there_is_no_memory_for_slots_nothing_is_kept(
    new_session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = new_session().engine.model

    def failing(*_: Any, **__: Any) -> Any:
        raise RuntimeError(
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte"
        )

    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", failing)
        session = new_session(model, host_budget_bytes=2**20)
    play(session, SHORT_SCRIPT)
    assert session.engine.cache.n_bytes == 0
    assert session.engine.counters()["cache_refused"] > 0


def test_a_crash_of_the_engine_is_answered_and_the_next_request_is_right(
    started: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error outside of a completion: nothing that is kept can be trusted any more."""
    answers: Queue[Completion] = Queue()
    started.start()
    started.submit(ask(), answers.put)
    assert answers.get(timeout=60).stop == "limit"
    chunk_tokens, next_queue = started.decoder.chunk_tokens, started._next_queue
    crashed = threading.Event()

    def crashing() -> Any:
        if started._requests and not crashed.is_set():
            crashed.set()
            raise RuntimeError("broken")
        return next_queue()

    monkeypatch.setattr(started, "_next_queue", crashing)
    with started._wake:
        for name in "abc":
            started.submit(ask(document=name), answers.put)
        started.prepare(ask(document="d"))
    stops = [answers.get(timeout=60).stop for _ in range(3)]
    assert stops == ["error"] * 3
    started.submit(ask(), answers.put)
    completion = answers.get(timeout=60)
    assert completion.n_recomputed == completion.n_prompt, "nothing was kept"
    check_exact(started.model, completion)
    assert started.decoder.chunk_tokens == chunk_tokens
    started.submit(ask(), answers.put)
    assert answers.get(timeout=60).source == "trail"
    started.close()
    assert answers.empty()
    assert started.counters()["answers_error"] == 3
    assert (
        started.counters()["cache_bytes"] == len(started.cache) * started.cache.tiers[0].slot_bytes
    )


def test_a_document_that_cannot_be_forgotten_crashes_the_engine_once(
    started: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def failing(document: str) -> None:
        calls.append(document)
        raise RuntimeError("broken")

    monkeypatch.setattr(started.epochs, "forget", failing)
    answers: Queue[Completion] = Queue()
    started.start()
    started.forget("cart.py")
    while not calls:
        started.submit(ask(), answers.put)
        answers.get(timeout=60)
    started.submit(ask(), answers.put)
    assert answers.get(timeout=60).stop in ("limit", "error")
    started.submit(ask(), answers.put)
    completion = answers.get(timeout=60)
    check_exact(started.model, completion)
    assert completion.stop == "limit"
    assert calls == ["cart.py"]
    started.close()


@pytest.mark.parametrize("name", ["budget_bytes", "host_budget_bytes"])
def test_a_negative_budget_is_refused(new_session: Callable[..., Session], name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} .*-1"):
        new_session(**{name: -1})


def test_a_receiver_that_fails_harms_nobody_else(session: Session) -> None:
    called = []

    def failing(completion: Completion) -> None:
        called.append(completion.stop)
        raise RuntimeError("broken")

    session.engine.submit(ask(), failing)
    ticket = session.submit(ask(document="other"))
    session.run()
    assert called == ["limit"]
    completion = session.answer(ticket)
    assert completion is not None
    check(session, ticket.request, completion)
    session.engine.submit(ask(), failing)
    session.submit(ask())
    assert called == ["limit", "superseded"]


def test_a_tokenizer_of_another_model_is_refused(
    tiny_model: Callable[..., Mamba2], tokenizer: Tokenizer
) -> None:
    with pytest.raises(ValueError, match=f"{tokenizer.n_vocab} pieces .* {tokenizer.n_vocab - 1}"):
        Engine(tiny_model(vocab_size=tokenizer.n_vocab - 1), tokenizer)


# Closing, counting, timing


@pytest.mark.parametrize("n_steps", [0, 3])
def test_close_answers_what_waits(session: Session, n_steps: int) -> None:
    tickets = [session.submit(ask(document=name)) for name in "ab"]
    session.engine.prepare(ask(document="c"))
    for _ in range(n_steps):
        session.engine.step()
    session.engine.close()
    session.engine.close()
    for ticket in tickets:
        completion = session.answer(ticket)
        assert completion is not None
        assert (completion.text, completion.stop) == ("", "cancel")
    session.engine.prepare(ask())
    assert not session.engine.step()
    with pytest.raises(RuntimeError, match="closed"):
        session.submit(ask())


def test_counters(session: Session) -> None:
    nothing = {
        "cache_checkpoints": 0,
        "cache_bytes": 0,
        "trail_bytes": 0,
        "background_tokens": 0,
        "background_passes": 0,
    }
    assert session.engine.counters() == nothing
    first = session.complete(ask())
    session.submit(ask()).cancel()
    on_trail = session.complete(ask())
    session.engine.decoder.trails.clear()
    cached = session.complete(ask())
    assert [c.source for c in (first, on_trail, cached)] == ["none", "trail", "tier0"]
    other = ask(document="other", suffix="x")
    session.engine.prepare(other)
    session.run()
    cache, decoder = session.engine.cache, session.engine.decoder
    n_other = len(prompt_ids(session.engine, other, "epoch"))
    assert session.engine.counters() == {
        **nothing,
        "answers_cancel": 1,
        "answers_limit": 3,
        "cache_checkpoints": len(cache),
        "cache_bytes": cache.n_bytes,
        "cache_hits_tier0": 1,
        "cache_misses": 2,
        "cache_thinned": cache.counts["thinned"],
        "trail_bytes": decoder.trail_bytes,
        "background_tokens": n_other,
        "background_passes": len(list(decoder.cuts(0, n_other))),
    }
    assert n_reads(session, first) <= len(cache) + cache.counts["thinned"]
    assert cache.n_bytes == len(cache) * session.engine.model.initial_state().n_bytes


def test_an_idle_step_does_nothing(session: Session) -> None:
    assert not session.engine.step()


def test_times_are_those_of_the_own_passes(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passes of other documents count as waiting."""
    model = session.engine.model

    def taking(method: Callable[..., Any], ms: float) -> Callable[..., Any]:
        def timed(*args: Any) -> Any:
            session.clock.advance_ms(ms)
            return method(*args)

        return timed

    monkeypatch.setattr(model, "prefill", taking(model.prefill, 5.0))
    monkeypatch.setattr(model, "forward", taking(model.forward, 5.0))
    started = session.clock.now
    requests = [ask(document=name, header=name + "\n", cursor=CURSOR - 1) for name in "ab"]
    ended: dict[str, float] = {}
    answers: list[Completion] = []

    def receiver(name: str) -> Callable[[Completion], None]:
        def on_done(completion: Completion) -> None:
            ended[name] = 1e3 * (session.clock.now - started)
            answers.append(completion)

        return on_done

    for request in requests:
        session.engine.submit(request, receiver(request.document))
    session.run()
    for completion, request in zip(answers, requests, strict=True):
        times = completion.timings_ms
        n_decoded = completion.n_generated - 1
        assert times["decode"] == pytest.approx(5 * n_decoded)
        assert times["prefill"] == pytest.approx(5 * (completion.n_passes - n_decoded))
        assert times["heal"] == pytest.approx(5 * completion.n_healing_passes)
        assert sum(times.values()) == pytest.approx(ended[request.document])
        assert times["queue"] > 0


# A thread of its own


@pytest.fixture
def started(tiny_model: Callable[..., Mamba2], tokenizer: Tokenizer) -> Engine:
    model = endless(tiny_model(vocab_size=tokenizer.n_vocab + N_PADDED), tokenizer)
    return Engine(model, tokenizer, n_threads=1)


def test_requests_from_several_threads_are_answered_once_each(started: Engine) -> None:
    n_threads, n_rounds = 4, 5
    answers: Queue[tuple[tuple[int, int], Completion]] = Queue()
    requests: dict[tuple[int, int], CompletionRequest] = {}

    def receiver(key: tuple[int, int]) -> Callable[[Completion], None]:
        return lambda completion: answers.put((key, completion))

    def submit(thread: int) -> None:
        for i in range(n_rounds):
            key = (thread, i)
            text, cursor = edited(TEXT, CURSOR, "type", "self"[: 1 + i % 4])
            # Half of the threads share a document.
            requests[key] = ask(text, cursor, document=f"{max(thread, 1)}")
            started.prepare(requests[key])
            started.submit(requests[key], receiver(key))

    started.start()
    started.start()
    threads = [threading.Thread(target=submit, args=(i,)) for i in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    received = [answers.get(timeout=60) for _ in range(n_threads * n_rounds)]
    started.close()
    assert answers.empty()
    assert Counter(key for key, _ in received) == Counter(list(requests))
    done = [completion for _, completion in received if completion.stop != "superseded"]
    assert len(done) >= n_threads - 1
    for completion in done:
        assert completion.stop == "limit"
        check_exact(started.model, completion)


def test_close_while_the_thread_works(started: Engine) -> None:
    answers: Queue[Completion] = Queue()
    started.start()
    for i in range(6):
        started.submit(ask(document=str(i), max_tokens=500), answers.put)
    started.close()
    stops = [answers.get_nowait().stop for _ in range(6)]
    assert answers.empty()
    assert set(stops) <= {"cancel", "eos", "line", "limit"}
    assert "cancel" in stops
    assert not any(thread.name == "engine" for thread in threading.enumerate())


def test_a_thread_that_waits_wakes_up(started: Engine) -> None:
    answers: Queue[Completion] = Queue()
    started.start()
    for _ in range(3):
        started.submit(ask(), answers.put)
        assert answers.get(timeout=60).stop == "limit"
    started.close()


def test_a_warm_up_that_fails_does_not_end_the_thread(
    started: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing() -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(started, "warm_up", failing)
    answers: Queue[Completion] = Queue()
    started.start()
    started.submit(ask(), answers.put)
    assert answers.get(timeout=60).stop == "limit"
    started.close()


@pytest.mark.parametrize(
    ("ms_per_pass", "chunk_tokens"),
    [(1e-3, 2048), (10.0, 640), (1e4, 32)],
    ids=["fast", "usual", "slow"],
)
def test_warm_up_sizes_passes_to_25_ms(
    session: Session, monkeypatch: pytest.MonkeyPatch, ms_per_pass: float, chunk_tokens: int
) -> None:
    # 256 tokens a pass
    monkeypatch.setattr(time, "perf_counter", itertools.count(0, ms_per_pass / 1e3).__next__)
    session.engine.warm_up()
    monkeypatch.undo()
    assert session.engine.decoder.chunk_tokens == pytest.approx(chunk_tokens, abs=32)
    assert session.engine.decoder.chunk_tokens % 32 == 0
    assert len(session.engine.cache) == 0
    check(session, ask(), session.complete(ask()))
