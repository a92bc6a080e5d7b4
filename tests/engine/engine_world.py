"""What the engine's tests share: a text, a clock, an engine stepped by hand, what it must hold."""

from __future__ import annotations

import string
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from engine.fim import MAX_HELD_TOKENS, PromptOrder
from engine.prompts import bridge_suffix
from engine.request import Completion, CompletionRequest
from perf.sample_files import TEXTS
from tests.oracle import check_exact, check_greedy

if TYPE_CHECKING:
    from engine.engine import Engine
    from engine.fim import PrefixSplit
    from engine.mamba2 import Mamba2
    from engine.ticket import Ticket
    from engine.tokenizer import Tokenizer

Edit = tuple[str, Any]

HEADER = "# shop/cart.py\n"
# The class as far as its first short methods go.
TEXT, _, _ = TEXTS["shop/cart.py"].partition("\n    def remove")
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


def n_reads(session: Session, completion: Completion) -> int:
    """Give the number of passes that read the whole prompt of an answer."""
    return len(list(session.engine.decoder.passes(0, completion.n_prompt)))


def turns_until_answered(session: Session, ticket: Ticket, ms_per_step: float) -> list[bool]:
    """Step until a request is answered; tell of each step whether it was background work."""
    turns = []
    while session.answer(ticket) is None:
        n_passes = session.engine.counters()["background_passes"]
        session.engine.step()
        session.clock.advance_ms(ms_per_step)
        turns.append(session.engine.counters()["background_passes"] > n_passes)
    return turns
