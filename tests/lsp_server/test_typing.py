"""Typing into a long file, one character at a time: every answer exact, every keystroke cheap."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from engine.engine import Engine
from engine.tokenizer import Tokenizer
from lsp_server.documents import Change, Document, Position
from lsp_server.settings import Settings
from lsp_server.suggestions import Suggester, Suggestion
from tests.oracle import check_exact

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.mamba2 import Mamba2
    from engine.request import Completion, CompletionRequest
    from engine.state import RecurrentState
    from engine.ticket import OnDone, Ticket

ROOT = Path(__file__).parents[2]
N_LINES, N_TYPED = 3000, 300
TYPED = '''
    def transfer(self, other, amount, *, note=""):
        """Move money to another account; é, 漢字 and 🙂 may stand in the note."""
        if amount <= 0 or amount > self.balance:
            raise ValueError(f"cannot move {amount!r} of {self.balance}")
        for step, part in enumerate(self.split(amount, 1_024)):
            self.balance -= part
            other.deposit(part, note=note or "transfer", step=step)
        return self.balance
'''[:N_TYPED]


class KeepingEngine(Engine):
    """An engine whose answers all carry their logits."""

    def submit(self, request: CompletionRequest, on_done: OnDone) -> Ticket:
        return super().submit(replace(request, keep_logits=True), on_done)


def long_file() -> list[str]:
    """Give the lines of a file of 3,000 lines: this repository's own, over and over."""
    lines: list[str] = []
    sources = sorted((ROOT / "lsp_server").glob("*.py"))
    while len(lines) < N_LINES:
        for path in sources:
            lines += path.read_text(encoding="utf-8").splitlines(keepends=True)
    return lines[:N_LINES]


def type_in(
    engine: Engine, text: str, at_line: int, after: Callable[[Completion], None]
) -> list[Suggestion]:
    """Type `text` at the end of a line, asking after each character; `after` sees each answer."""
    lines = long_file()
    document = Document("file:///long.py", "python", 1, "".join(lines), path="pkg/long.py")
    suggester = Suggester(engine, Settings(max_tokens=8))
    offset = document.line_start(at_line) + len(document.lines[at_line].rstrip("\r\n"))

    async def run() -> list[Suggestion]:
        suggestions = []
        position = document.position_at(offset)
        end = offset
        for character in ["", *text]:
            document.apply(Change(text=character, range=(position, position)))
            end += len(character)
            position = document.position_at(end)
            suggestion = await suggester.suggest(
                document, Position(*position), explicit=False, deadline_ms=None
            )
            suggestions.append(suggestion)
            after(suggestion.completion)
        return suggestions

    engine.start()
    try:
        return asyncio.run(run())
    finally:
        suggester.close()


@pytest.fixture
def engine(tiny_model: Callable[..., Mamba2]) -> Engine:
    tokenizer = Tokenizer.load(ROOT / "engine" / "embedded")
    model = tiny_model(vocab_size=tokenizer.n_vocab)
    return KeepingEngine(model, tokenizer, n_threads=1)


@pytest.mark.parametrize("at_line", [N_LINES // 2, N_LINES - 1], ids=["middle", "end"])
def test_keystrokes_are_exact_and_recompute_what_they_insert(engine: Engine, at_line: int) -> None:
    suggestions = type_in(engine, TYPED, at_line, lambda c: check_exact(engine.model, c))
    assert len(suggestions) == N_TYPED + 1
    first, *rest = (suggestion.completion for suggestion in suggestions)
    assert first.n_recomputed == first.n_prompt > 200
    for character, completion in zip(TYPED, rest, strict=True):
        assert completion.kind == "epoch"
        assert completion.n_prompt > 200
        inserted = len(engine.tokenizer.encode(character))
        assert completion.n_recomputed <= inserted + 8, repr(character)
        assert completion.token_ids
    assert sum(completion.n_recomputed for completion in rest) > 60


def zeroed(engine: Engine, ids: list[int]) -> RecurrentState:
    return engine.model.initial_state()


def one_token_early(engine: Engine, ids: list[int]) -> RecurrentState:
    return from_scratch(engine, ids[:-1])


def of_another_suffix(engine: Engine, ids: list[int]) -> RecurrentState:
    cut = ids.index(engine.tokenizer.prefix_id)
    return from_scratch(engine, [*ids[:2], *engine.tokenizer.encode("\nother()\n"), *ids[cut:]])


def from_scratch(engine: Engine, ids: list[int]) -> RecurrentState:
    return engine.model.prefill(torch.tensor([ids]))[1]


@pytest.mark.parametrize("where", ["cache", "trail"])
@pytest.mark.parametrize("fault", [zeroed, one_token_early, of_another_suffix])
def test_a_wrong_state_is_seen(
    engine: Engine, fault: Callable[[Engine, list[int]], RecurrentState], where: str
) -> None:
    def spoil(completion: Completion) -> None:
        check_exact(engine.model, completion)
        ids = np.asarray(completion.prompt_ids, np.int32)
        state = fault(engine, ids.tolist())
        trail = next(iter(engine.decoder.trails.values()))
        if where == "trail":
            trail.cut(len(ids))
            trail.remember(len(ids), state)
        else:
            engine.decoder.trails.clear()
            engine.cache.replace(ids.tolist(), state)

    with pytest.raises(AssertionError, match="away from those from scratch"):
        type_in(engine, TYPED[:30], N_LINES // 2, spoil)
