"""Random editing sessions: every answer is exact, and faults in the engine do not go unseen."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from engine import engine as engine_module
from engine.cache import Checkpoint, StateCache
from engine.decode import Decoder
from engine.epochs import Epoch
from engine.mamba2 import InputLog, Pass
from engine.request import STOPS, CompletionRequest
from engine.slots import Slot, SlotPool
from engine.state import RecurrentState
from engine.tokenizer import Tokenizer
from engine.trail import Trail
from perf.editing_machine import machine
from perf.sample_files import TEXTS
from perf.tiny_world import World, memory_of, suffix_and_prefix_first, suffix_first
from perf.watched_engine import BUDGETS, MAX_STEPS, Budget, Tally, WatchedEngine
from tests.oracle import check_exact

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.mamba2 import Mamba2
    from perf.watched_engine import Check

N_STEPS = 2_000
TEXT = TEXTS["shop/cart.py"]
# Where an example fails, it is shown as it is: shrinking takes minutes.
REPEATABLE = settings(
    max_examples=4,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, ...]:
    """A family of models that knows a bridge and one that does not; their memory is long."""
    found = tuple(
        make(tmp_path_factory.mktemp("tokenizer"))
        for make in (suffix_and_prefix_first, suffix_first)
    )
    for world in found:
        # A thousand times what an answer may be off.
        assert memory_of(world.model, n_tokens=200) > 0.1, "a lost state would go unseen"
    return found


def run(worlds: tuple[World, ...], tally: Tally, *checks: Check) -> None:
    """Edit in every world with every budget."""
    for i, (budget, world) in enumerate(product(BUDGETS, worlds)):
        run_state_machine_as_test(
            seed(i)(machine(world, budget, tally, *checks)), settings=REPEATABLE
        )


@pytest.mark.slow
def test_every_answer_of_random_editing_is_exact(worlds: tuple[World, ...]) -> None:
    tally = Tally()
    run(worlds, tally, check_exact)
    print(f"{tally.n_steps} steps, {tally.n_answers} answers, {tally.n_tokens} tokens:", tally)
    assert tally.n_steps >= N_STEPS
    assert tally.n_ties < tally.n_tokens / 1000
    assert tally.n_settled > 50
    # It went everywhere.
    assert len(tally.rules) == 23
    assert set(tally.kinds) == {"epoch", "trunk", "bridge"}
    assert set(tally.stops) == {*STOPS} - {"error"}
    assert set(tally.sources) == {"none", "trail", "tier0", "tier1"}
    assert {"hits_tier1", "spilled", "evicted", "thinned", "refused"} <= set(tally.cache)


# What it has found, in short


def ask(text: str) -> CompletionRequest:
    """Ask where much less stands before the cursor than after it."""
    before, line, after = text.partition("    def total")
    return CompletionRequest(
        document="cart.py",
        header="# cart.py\n",
        prefix=before,
        suffix=line + after,
        max_tokens=2,
        deadline_ms=None,
        keep_logits=True,
    )


def test_the_newest_text_is_read_though_an_older_one_waits(worlds: tuple[World, ...]) -> None:
    watched = WatchedEngine(worlds[0], Budget(n_slots=None), Tally())
    watched.engine.prepare(ask(TEXT))
    assert watched.settle(ask(TEXT.replace("first", "one")), ms_per_step=0.0).kind == "epoch"


def test_a_state_gives_its_slot_to_what_comes_of_it(worlds: tuple[World, ...]) -> None:
    watched = WatchedEngine(worlds[0], Budget(n_slots=1), Tally())
    begun = replace(ask(TEXT), explicit=True, deadline_ms=0.0)
    assert watched.finish(watched.submit(begun), ms_per_step=0.0).stop == "deadline"
    # Its first pass has left a state, which reading on begins from.
    watched.engine.prepare(ask(TEXT))
    watched.run(MAX_STEPS, ms_per_step=0.0)
    assert watched.finish(watched.submit(ask(TEXT)), ms_per_step=0.0).kind == "epoch"


# Seeded faults: each is put into the engine, and must be seen for what it is.

INEXACT = "away from those from scratch|another best token"
WRONG_IDS = "not the .* prompt of this text"


def zeros_in_slots(patch: pytest.MonkeyPatch) -> None:
    read = SlotPool.read
    patch.setattr(SlotPool, "read", lambda self, *args: zeroed(read(self, *args)))


def zeros_on_trails(patch: pytest.MonkeyPatch) -> None:
    at = Trail.at

    def without_state(self: Trail, n: int) -> Checkpoint:
        found = at(self, n)
        return Checkpoint(found.ids, zeroed(found.state), found.hidden, found.row)

    patch.setattr(Trail, "at", without_state)


def zeroed(state: RecurrentState) -> RecurrentState:
    return RecurrentState(state.conv_state, torch.zeros_like(state.ssm_state))


def one_token_less_committed(patch: pytest.MonkeyPatch) -> None:
    commit = Pass.commit
    patch.setattr(Pass, "commit", lambda self, n: commit(self, max(1, n - 1)))


def one_token_less_on_trails(patch: pytest.MonkeyPatch) -> None:
    replay = InputLog.replay
    patch.setattr(InputLog, "replay", lambda self, base, A, n: replay(self, base, A, max(1, n - 1)))


def one_token_less_in_the_cache(patch: pytest.MonkeyPatch) -> None:
    add = StateCache.add
    patch.setattr(
        StateCache,
        "add",
        lambda self, at, owner: add(self, Checkpoint(at.ids[:-1], at.state, at.hidden), owner),
    )


def state_of_another_suffix(patch: pytest.MonkeyPatch) -> None:
    """What is kept after the prefix was read behind an empty suffix."""
    read = Decoder.read

    def misread(self, ids, *args):  # type: ignore[no-untyped-def]
        bos, suffix, prefix = (
            getattr(self.tokenizer, name) for name in ("bos_id", "suffix_id", "prefix_id")
        )
        found = yield from read(self, ids, *args)
        if list(ids[:2]) != [bos, suffix]:
            return found
        rest = ids[list(ids).index(prefix) :].tolist()
        return Checkpoint(ids, read_from_scratch(self.model, [bos, suffix, *rest]), found.hidden)

    patch.setattr(Decoder, "read", misread)


def read_from_scratch(model: Mamba2, ids: list[int]) -> RecurrentState:
    return model.prefill(torch.tensor([ids]))[1]


def epochs_that_never_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Epoch, "holds", lambda self, after_cursor: True)


def closers_without_limit(patch: pytest.MonkeyPatch) -> None:
    """Whatever is written before the frozen suffix is taken for what an editor puts there."""
    patch.setattr(Epoch, "holds", lambda self, after_cursor: after_cursor.endswith(self.suffix))


def epochs_not_revived(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Epoch, "holds", lambda self, after_cursor: after_cursor == self.suffix)


def slots_given_out_twice(patch: pytest.MonkeyPatch) -> None:
    acquire = SlotPool.acquire

    def steal(self: SlotPool) -> Slot | None:
        return acquire(self) or (Slot(0, self._generation[0]) if self.n_slots else None)

    patch.setattr(SlotPool, "acquire", steal)


def stale_slots(patch: pytest.MonkeyPatch) -> None:
    """The same, and nobody looks at generations."""
    slots_given_out_twice(patch)
    patch.setattr(SlotPool, "_check", lambda self, slot: None)


def pieces_committed_too_early(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Tokenizer, "last_boundary", lambda self, text: len(text))


def held_text_forgotten(patch: pytest.MonkeyPatch) -> None:
    cover = Decoder.cover
    patch.setattr(Decoder, "cover", lambda self, held, *args, **kw: cover(self, b"", *args, **kw))


def builds_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine_module, "_wants_build", lambda ticket, completion: False)


def rows_of_other_places(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Trail, "rows", lambda self, n: self._rows[1])


def trails_without_budget(patch: pytest.MonkeyPatch) -> None:
    begin = Decoder.__init__

    def unbounded(self, *args, **kw):  # type: ignore[no-untyped-def]
        begin(self, *args, **{**kw, "trail_budget_bytes": 2**40})

    patch.setattr(Decoder, "__init__", unbounded)


def trails_laid_over_others(patch: pytest.MonkeyPatch) -> None:
    """A pass goes on with its owner's trail, though another request has moved it meanwhile."""
    patch.setattr(Trail, "passes", lambda self, ids: len(self.ids) >= len(ids))


FAULTS = {
    zeros_in_slots: INEXACT,
    zeros_on_trails: INEXACT,
    one_token_less_committed: INEXACT,
    one_token_less_on_trails: INEXACT,
    one_token_less_in_the_cache: INEXACT,
    state_of_another_suffix: INEXACT,
    epochs_that_never_end: WRONG_IDS,
    closers_without_limit: WRONG_IDS,
    epochs_not_revived: WRONG_IDS,
    stale_slots: INEXACT,
    slots_given_out_twice: f"{INEXACT}|the stop is error",
    pieces_committed_too_early: WRONG_IDS,
    held_text_forgotten: "does not cover",
    builds_forgotten: "once all work was done",
    rows_of_other_places: INEXACT,
    trails_without_budget: "bytes are kept",
    trails_laid_over_others: INEXACT,
}


@pytest.mark.parametrize(
    ("fault", "seen"), FAULTS.items(), ids=lambda x: getattr(x, "__name__", "")
)
def test_a_fault_turns_it_red(
    worlds: tuple[World, ...],
    fault: Callable[[pytest.MonkeyPatch], None],
    seen: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fault(monkeypatch)
    tally = Tally()
    with pytest.raises(AssertionError, match=seen):
        run(worlds, tally)
    print(tally.n_steps, "steps")
