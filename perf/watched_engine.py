"""An engine, stepped by hand, that is held to its promises at every answer and after every pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from engine.budget import CPU_BYTES
from engine.engine import TRAIL_SHARE, Engine
from perf.pure_prompt import EpochLedger, PurePrompts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.mamba2 import Mamba2
    from engine.prompts import Prompt
    from engine.request import Completion, CompletionRequest
    from engine.ticket import Ticket
    from perf.tiny_world import World

Check = Callable[["Mamba2", "Completion"], None]
"""Sees an answer; raises AssertionError at a wrong one."""

TOLERANCE = 1e-4
MAX_STEPS = 2_000
# Longer runs go through the model in several passes, which others may come between.
CHUNK_TOKENS = 64


@dataclass
class Tally:
    """What was done and seen, over all examples of a run."""

    n_steps: int = 0
    n_tokens: int = 0
    # Tokens whose two best are so close that either may be called the best; where it was another.
    n_close: int = 0
    n_ties: int = 0
    n_passes: int = 0
    n_healing_passes: int = 0
    n_recomputed: int = 0
    max_distance: float = 0.0
    rules: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    stops: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    budgets: Counter[str] = field(default_factory=Counter)
    worlds: Counter[str] = field(default_factory=Counter)
    cache: Counter[str] = field(default_factory=Counter)
    # Asked again after all background work, and answered from the epoch.
    n_settled: int = 0

    @property
    def n_answers(self) -> int:
        """Give the number of answers."""
        return sum(self.stops.values())


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Room for states: slots of the first tier, of a second one; None is the engine's default."""

    n_slots: int | None
    n_host_slots: int = 0

    def __str__(self) -> str:
        first = "default" if self.n_slots is None else str(self.n_slots)
        return f"{first} + {self.n_host_slots}" if self.n_host_slots else first

    def n_bytes(self, state_bytes: int) -> tuple[int, int]:
        """Give the bytes of both tiers; trails take a fixed share of the first."""
        host_bytes = self.n_host_slots * state_bytes
        if self.n_slots is None:
            return CPU_BYTES, host_bytes
        # One byte more than it takes, or rounding may cost a slot.
        return int(self.n_slots * state_bytes / (1 - TRAIL_SHARE)) + (self.n_slots > 0), host_bytes


BUDGETS = (
    Budget(n_slots=3),
    Budget(n_slots=None),
    Budget(n_slots=1, n_host_slots=2),
    Budget(n_slots=12),
    Budget(n_slots=0),
    Budget(n_slots=1),
    Budget(n_slots=3, n_host_slots=2),
)


@dataclass(eq=False)
class Asked:
    """A request under way, what the ledger said when its work began, and its answers."""

    request: CompletionRequest
    ticket: Ticket | None = None
    answers: list[Completion] = field(default_factory=list)
    frozen: str | None = None
    is_checked: bool = False


class WatchedEngine:
    """An engine in a world, on a clock of its own. Raises AssertionError at a broken promise."""

    def __init__(
        self,
        world: World,
        budget: Budget,
        tally: Tally,
        checks: Iterable[Check] = (),
    ) -> None:
        """Start with nothing kept; `checks` see every answer that is one."""
        self.world, self.budget, self.tally = world, budget, tally
        self._checks = tuple(checks)
        tally.budgets[str(budget)] += 1
        tally.worlds[world.name] += 1
        self._now_s = 100.0
        budgets = budget.n_bytes(world.model.initial_state().n_bytes)
        self._max_bytes = sum(budgets)
        self.engine = Engine(
            world.model,
            world.tokenizer,
            clock=lambda: self._now_s,
            budget_bytes=budgets[0],
            host_budget_bytes=budgets[1],
        )
        assert budget.n_slots in (None, self.engine.cache.tiers[0].n_slots)
        self.engine.decoder.chunk_tokens = CHUNK_TOKENS
        self._pure = PurePrompts(world.processor)
        self._ledger = EpochLedger()
        self._asked: list[Asked] = []
        self._listen()

    def submit(self, request: CompletionRequest) -> Asked:
        """Ask."""
        asked = Asked(request)
        self._asked.append(asked)
        asked.ticket = self.engine.submit(request, asked.answers.append)
        return asked

    def forget(self, document: str) -> None:
        """Close a document."""
        self.engine.forget(document)
        self._ledger.forget(document)

    def evict(self, kept: int, *, trails: bool) -> None:
        """Lose cached states, but for some by the bits of `kept`, and all trails if told so."""
        cache = self.engine.cache
        entries = [entry for owned in cache._owned.values() for entry in owned]
        for i, entry in enumerate(entries):
            if not entry.n_leases and not kept >> i % 16 & 1:
                cache._drop(entry, "evicted")
        if trails:
            self.engine.decoder.trails.clear()

    def finish(self, asked: Asked, ms_per_step: float) -> Completion:
        """Step until a request is answered; give the answer, which has been checked."""
        for _ in range(MAX_STEPS):
            if asked.answers:
                break
            assert self._step(ms_per_step), "no answer, and nothing left to do"
        self._check_all()
        return asked.answers[0]

    def settle(self, request: CompletionRequest, ms_per_step: float) -> Completion:
        """Ask, and once no background work is left ask again: that is answered exactly."""
        asked = self.submit(request)
        self.run(MAX_STEPS, ms_per_step)
        assert asked.answers, "nothing left to do, and no answer"
        if self.budget.n_slots is not None:
            # Other documents' states may have taken the room: read this one's last.
            self.engine.prepare(request)
            self.run(MAX_STEPS, ms_per_step)
        completion = self.finish(self.submit(replace(request)), ms_per_step)
        if self.budget.n_slots != 0:
            assert completion.kind == "epoch", f"{completion.kind} once all work was done"
            self.tally.n_settled += 1
        return completion

    def run(self, n_steps: int, ms_per_step: float) -> None:
        """Take so many steps, or as many as there are; check what was answered."""
        for _ in range(n_steps):
            if not self._step(ms_per_step):
                break
        else:
            assert n_steps < MAX_STEPS, "the engine never comes to rest"
        self._check_all()

    def close(self) -> None:
        """Let all work end: every request has had one answer then."""
        self.run(MAX_STEPS, 0.0)
        for asked in self._asked:
            assert len(asked.answers) == 1, f"answered {len(asked.answers)} times"
        self.tally.cache.update(self.engine.cache.counts)
        self.engine.close()

    def _step(self, ms: float) -> bool:
        worked = self.engine.step()
        self._now_s += ms / 1e3
        n_bytes = self.engine.cache.n_bytes + self.engine.decoder.trail_bytes
        assert n_bytes <= self._max_bytes, (
            f"{n_bytes} bytes are kept, {self._max_bytes} are allowed"
        )
        return worked

    def _listen(self) -> None:
        """Note when work begins: a document's epochs are told apart in that order."""
        prompts = self.engine._completer.prompts
        choose = prompts.choose

        def listened(request: CompletionRequest, *, exact: bool) -> Prompt:
            frozen = self._ledger.suffix(request.document, request.header, request.suffix)
            for asked in self._asked:
                if asked.request is request and asked.frozen is None:
                    asked.frozen = frozen
            return choose(request, exact=exact)

        prompts.choose = listened  # type: ignore[method-assign]

    def _check_all(self) -> None:
        for asked in self._asked:
            if asked.answers and not asked.is_checked:
                asked.is_checked = True
                self._check(asked.request, asked.frozen, asked.answers[0])

    def _check(
        self, request: CompletionRequest, frozen: str | None, completion: Completion
    ) -> None:
        """Hold an answer to its promises: ids, kind, held-back text, logits, tokens."""
        tally = self.tally
        tally.stops[completion.stop] += 1
        assert completion.stop != "error", "the stop is error"
        if completion.stop in ("cancel", "superseded"):
            assert (completion.text, completion.token_ids) == ("", ())
            return
        assert frozen is not None, "answered without having begun"
        ids, held = self._pure(
            completion.kind,
            before_cursor=request.header + request.prefix,
            after_cursor=request.suffix,
            frozen=frozen,
        )
        assert completion.prompt_ids == ids, f"not the {completion.kind} prompt of this text"
        assert completion.kind == "epoch" or not (request.explicit or request.raw)
        assert completion.stop != "deadline" or request.deadline_ms is not None
        assert completion.n_generated <= request.max_tokens
        tally.kinds[completion.kind] += 1
        tally.sources[completion.source] += 1
        tally.n_passes += completion.n_passes
        tally.n_healing_passes += completion.n_healing_passes
        tally.n_recomputed += completion.n_recomputed
        if not completion.token_ids:
            assert completion.text == ""
            return
        written = self._pure.text_of(list(completion.token_ids))
        assert written.startswith(held), f"{written!r} does not cover {held!r}"
        assert written[len(held) :].decode(errors="ignore").startswith(completion.text)
        self._check_logits(request, completion)
        for check in self._checks:
            check(self.world.model, completion)

    def _check_logits(self, request: CompletionRequest, completion: Completion) -> None:
        """Read the answer's own ids from scratch."""
        model, tally = self.world.model, self.tally
        assert completion.logits is not None
        read = [*completion.prompt_ids, *completion.token_ids[:-1]]
        with torch.inference_mode():
            hidden = model.prefill(torch.tensor([read]))[0][0, completion.n_prompt - 1 :]
            expected = model.logits(hidden)
        assert completion.logits.shape == expected.shape
        # An answer with NaN must fail, so: not (distance > tolerance).
        distance = float((completion.logits - expected).abs().max())
        assert distance <= TOLERANCE, f"logits are {distance:.2g} away from those from scratch"
        best = expected.topk(2).values
        close = best[:, 0] - best[:, 1] < 2 * TOLERANCE
        differs = completion.logits.argmax(-1) != expected.argmax(-1)
        assert not bool((differs & ~close).any()), "another best token"
        tally.n_tokens += len(expected)
        tally.n_close += int(close.sum())
        tally.n_ties += int(differs.sum())
        tally.max_distance = max(tally.max_distance, distance)
        generated = expected[len(expected) - completion.n_generated :]
        if not request.raw:
            generated = generated.index_fill(1, self.engine.decoder.banned, -torch.inf)
        chosen = torch.tensor(completion.token_ids[len(expected) - completion.n_generated :])
        values = generated.gather(1, chosen.long()[:, None])[:, 0]
        assert bool((values >= generated.amax(1) - 2 * TOLERANCE).all()), "not the best token"
