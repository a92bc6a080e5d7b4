"""The replay's counts are the engine's own, and each is told apart and to the right event."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from engine.engine import Engine
from engine.tokenizer import Tokenizer
from lsp_server.documents import Change, Position
from lsp_server.settings import Settings
from lsp_server.suggestions import GRACE_MS, Suggester
from perf.percentiles import percentiles
from perf.replay import Pace, Row, replay, replay_sitting
from perf.replay_summary import compare, summary
from perf.trace_format import Event, Trace
from perf.typed_run import CAREFUL
from perf.typing_model import type_changes
from tests.oracle import check_exact, logits_from_scratch

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.mamba2 import Mamba2
    from engine.request import Completion
    from lsp_server.suggestions import Suggestion
    from perf.replay import MakeEngine

ROOT = Path(__file__).parents[2]
SETTINGS = Settings(max_tokens=3)
OLD = (ROOT / "lsp_server" / "scheduler.py").read_text(encoding="utf-8")[:1200]
MIDDLE = OLD.index("\n    async def")
NEW = OLD[:MIDDLE] + "\n    count = len(self.tasks)\n" + OLD[MIDDLE:]
# The same prompts, whatever was read before.
EXACT = Pace(explicit=True)
# Long enough that nothing of it is left to do when the next event comes.
UNHURRIED_MS = 5000


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(ROOT / "engine" / "embedded")


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer, tiny_model: Callable[..., Mamba2]) -> Mamba2:
    return tiny_model(vocab_size=tokenizer.n_vocab, tie_embeddings=True)


@pytest.fixture(scope="module")
def make_engine(model: Mamba2, tokenizer: Tokenizer) -> MakeEngine:
    return lambda clock: Engine(model, tokenizer, clock=clock)


@pytest.fixture(scope="module")
def forgetful(model: Mamba2, tokenizer: Tokenizer) -> MakeEngine:
    """Makes engines that keep no state from one request to the next."""
    return lambda clock: Engine(model, tokenizer, clock=clock, budget_bytes=0)


@pytest.fixture(scope="module")
def trace() -> Trace:
    return type_changes(
        OLD, NEW, random.Random(0), path="a.py", language_id="python", habits=CAREFUL
    )


@pytest.fixture(scope="module")
def rows(trace: Trace, make_engine: MakeEngine) -> list[Row]:
    return replay(trace, make_engine, settings=SETTINGS, pace=EXACT)


def hurried(trace: Trace, gap_ms: int) -> Trace:
    """The trace with its events at equal distances."""
    events = [replace(event, t_ms=gap_ms * n) for n, event in enumerate(trace.events, 1)]
    return replace(trace, events=tuple(events))


def test_each_event_has_its_row(trace: Trace, rows: list[Row]) -> None:
    assert [(row.t_ms, row.kind) for row in rows] == [(e.t_ms, e.kind) for e in trace.events]
    assert all(row.asked and row.was_answered for row in rows)
    assert {row.prompt_kind for row in rows} == {"epoch"}
    first, *typed = rows
    assert first.n_recomputed == first.n_prompt > 200
    assert all(row.n_recomputed <= 12 and row.n_prompt > 200 for row in typed)
    assert sum(row.n_recomputed for row in typed) > 0
    assert first.n_passes >= 1
    assert all(row.engine_ms > 0 for row in rows)
    assert all(row.n_background == row.background_ms == row.latency_ms == 0 for row in rows)


def test_counts_are_those_of_the_answers(
    trace: Trace, make_engine: MakeEngine, rows: list[Row], model: Mamba2
) -> None:
    seen: list[tuple[Event, Completion]] = []
    again = replay(
        trace, make_engine, settings=SETTINGS, pace=EXACT, observe=lambda *it: seen.append(it)
    )
    assert [event for event, _ in seen] == list(trace.events)
    for (_, completion), row in zip(seen, again, strict=True):
        assert row.n_recomputed == completion.n_recomputed
        assert row.n_prompt == completion.n_prompt
        assert row.n_generated == completion.n_generated
        assert row.n_passes == completion.n_passes
        assert row.n_healing_passes == completion.n_healing_passes
        assert row.stop == completion.stop
    for row, before in zip(again, rows, strict=True):
        assert replace(row, engine_ms=before.engine_ms) == before
    _, last = seen[-1]
    assert len(logits_from_scratch(model, last)) == len(last.token_ids) > 0


def test_a_sitting_goes_on_with_the_states_that_are_kept(
    trace: Trace, make_engine: MakeEngine, rows: list[Row]
) -> None:
    other = replace(trace, path="b.py", events=trace.events[:4])
    seen: list[str] = []
    sitting = replay_sitting(
        (trace, other, trace),
        make_engine,
        settings=SETTINGS,
        pace=EXACT,
        observe=lambda _, completion: seen.append(completion.source),
    )
    n = len(rows)
    once, elsewhere, again = sitting[:n], sitting[n : n + 4], sitting[n + 4 :]
    assert [replace(row, engine_ms=0.0) for row in once] == [
        replace(row, engine_ms=0.0) for row in rows
    ]
    # Another file is read from where its prompt differs, the same one not at all.
    assert [row.path for row in elsewhere] == ["b.py"] * 4
    assert 100 < elsewhere[0].n_recomputed < elsewhere[0].n_prompt
    assert elsewhere[0].source == "tier0"
    assert [row.t_ms for row in again] == [row.t_ms for row in rows]
    assert [row.answer_digest for row in again] == [row.answer_digest for row in rows]
    assert again[0].n_recomputed == 0
    assert again[0].source == "tier0"
    assert seen == [row.source for row in sitting]
    # Each file's clock starts when it is opened.
    assert all(row.latency_ms == 0 for row in sitting)


def test_the_document_is_asked_about_as_it_stands(
    trace: Trace, make_engine: MakeEngine, tokenizer: Tokenizer
) -> None:
    document, n_seen = trace.open(), 0

    def observe(event: Event, completion: Completion) -> None:
        nonlocal n_seen
        n_seen += 1
        for change in event.changes:
            document.apply(change)
        offset = document.offset_at(event.cursor)
        read = tokenizer.decode([*completion.prompt_ids, *completion.token_ids])
        assert document.slice(offset - 100, offset) in read
        assert document.slice(offset - 99, offset + 1) not in read
        assert OLD[MIDDLE : MIDDLE + 100] in read

    replay(trace, make_engine, settings=SETTINGS, pace=EXACT, observe=observe)
    assert n_seen == len(trace.events) > 20


def test_background_work_has_its_own_columns(trace: Trace, make_engine: MakeEngine) -> None:
    rows = replay(trace, make_engine, settings=SETTINGS, pace=Pace(prepare=True))
    _, *typed = rows
    assert sum(row.n_background for row in typed) > 0
    assert sum(row.background_ms for row in typed) > 0
    assert sum(row.n_recomputed for row in typed) < sum(row.n_background for row in typed)
    figures = summary(rows)
    assert figures["tokens"]["background"] == sum(row.n_background for row in rows)


def test_automatic_requests_leave_the_first_reading_to_the_background(
    trace: Trace, make_engine: MakeEngine, rows: list[Row]
) -> None:
    automatic = replay(trace, make_engine, settings=SETTINGS)
    first, *typed = automatic
    assert first.prompt_kind != "epoch"
    assert first.n_background > 200
    assert first.background_ms > 0
    assert [row.prompt_digest for row in typed] == [row.prompt_digest for row in rows[1:]]
    figures = summary(automatic)["by_prompt_kind"]
    assert figures[first.prompt_kind]["n"] == 1
    assert figures["epoch"]["n"] == len(typed)


def test_time_passes_with_the_steps(trace: Trace, make_engine: MakeEngine) -> None:
    pace = Pace(pass_ms=7.0)
    rows = replay(hurried(trace, UNHURRIED_MS), make_engine, settings=SETTINGS, pace=pace)
    assert all(row.was_answered for row in rows)
    assert all(row.latency_ms >= 7.0 * row.n_passes for row in rows)
    assert all(row.latency_ms % 7.0 == 0 for row in rows)


def test_newer_events_supersede_older_requests_and_their_work_is_counted(
    trace: Trace, make_engine: MakeEngine, rows: list[Row]
) -> None:
    in_haste = replay(
        hurried(trace, 10), make_engine, settings=SETTINGS, pace=replace(EXACT, pass_ms=15.0)
    )
    *overtaken, last = in_haste
    assert not any(row.was_answered for row in overtaken)
    assert last.was_answered
    assert last.prompt_digest == rows[-1].prompt_digest
    assert last.answer_digest == rows[-1].answer_digest
    assert sum(row.n_recomputed for row in in_haste) >= last.n_prompt > last.n_recomputed


def test_a_request_waits_and_is_not_sent_when_overtaken(
    trace: Trace, make_engine: MakeEngine
) -> None:
    pace = Pace(request_delay_ms=200.0)
    *overtaken, last = replay(hurried(trace, 150), make_engine, settings=SETTINGS, pace=pace)
    assert not any(row.asked for row in overtaken)
    assert last.asked
    rows = replay(hurried(trace, 250), make_engine, settings=SETTINGS, pace=pace)
    assert all(row.was_answered for row in rows)


def test_deadlines_go_by_the_clock_of_the_replay(trace: Trace, make_engine: MakeEngine) -> None:
    pace = Pace(pass_ms=100.0, deadline_ms=150.0)
    settings = Settings(max_tokens=16)
    rows = replay(hurried(trace, UNHURRIED_MS), make_engine, settings=settings, pace=pace)
    assert {"deadline"} <= {row.stop for row in rows}
    assert all(row.latency_ms <= 300.0 for row in rows)


def test_events_without_a_request_are_applied_and_not_asked_about(
    trace: Trace, make_engine: MakeEngine, rows: list[Row]
) -> None:
    silent = [replace(event, request=False) for event in trace.events[:-1]]
    quiet = replace(trace, events=(*silent, trace.events[-1]))
    *unasked, last = replay(quiet, make_engine, settings=SETTINGS, pace=EXACT)
    assert not any(row.asked or row.was_answered for row in unasked)
    assert last.prompt_digest == rows[-1].prompt_digest
    assert summary([*unasked, last])["requests"] == 1


def test_positions_are_in_utf_16(make_engine: MakeEngine, tokenizer: Tokenizer) -> None:
    at = Position(0, 7)
    event = Event(
        t_ms=1, kind="type", changes=(Change(text="ß", range=(at, at)),), cursor=Position(0, 8)
    )
    trace = Trace(path="a.py", language_id="python", text="x = '🍰'\n", events=(event,))
    prompts = []
    replay(
        trace,
        make_engine,
        settings=SETTINGS,
        observe=lambda _, completion: prompts.append(
            tokenizer.decode([*completion.prompt_ids, *completion.token_ids])
        ),
    )
    assert "x = '🍰ß" in prompts[0]


def test_answers_can_be_checked_against_those_from_scratch(
    trace: Trace, model: Mamba2, tokenizer: Tokenizer
) -> None:
    class KeepingEngine(Engine):
        def submit(self, request, on_done):  # type: ignore[no-untyped-def]
            return super().submit(replace(request, keep_logits=True), on_done)

    n_checked = 0

    def observe(_event: Event, completion: Completion) -> None:
        nonlocal n_checked
        check_exact(model, completion)
        n_checked += completion.logits is not None

    replay(
        replace(trace, events=trace.events[:5]),
        lambda clock: KeepingEngine(model, tokenizer, clock=clock),
        settings=SETTINGS,
        observe=observe,
    )
    assert n_checked == 5


def test_engines_are_compared_on_the_same_traces(
    trace: Trace, make_engine: MakeEngine, forgetful: MakeEngine
) -> None:
    short = replace(trace, events=trace.events[:8])
    report = compare(
        [[short], [short]],
        {"cache": make_engine, "no cache": forgetful},
        settings=SETTINGS,
        pace=EXACT,
    )
    assert list(report) == ["cache", "no cache"]
    for figures in report.values():
        assert figures["different_prompts"] == figures["different_answers"] == 0
        assert figures["answers"] == figures["requests"] == figures["events"] == 16
        assert set(figures["by_kind"]) == {"jump", "editing"}
        assert set(figures["by_prompt_kind"]) == {"epoch"}
    editing = {name: figures["by_kind"]["editing"] for name, figures in report.items()}
    assert editing["no cache"]["n_recomputed"] == editing["no cache"]["n_prompt"]
    assert editing["cache"]["n_recomputed"]["max"] <= 12
    assert report["no cache"]["prompt_over_all"] == 1.0
    # Each of the two traces is read once.
    assert 6 < report["cache"]["prompt_over_all"] < 8


def test_differing_prompts_are_seen(
    trace: Trace, make_engine: MakeEngine, forgetful: MakeEngine
) -> None:
    short = replace(trace, events=trace.events[:3])
    # Without kept states, the exact prompt of an automatic request is never read in advance.
    engines = {"cache": make_engine, "no cache": forgetful}
    report = compare([[short]], engines, settings=SETTINGS)
    assert report["cache"]["different_prompts"] == 0
    assert report["no cache"]["different_prompts"] == 2


def test_differing_answers_are_seen(
    trace: Trace, make_engine: MakeEngine, tokenizer: Tokenizer, tiny_model: Callable[..., Mamba2]
) -> None:
    other_model = tiny_model(seed=1, vocab_size=tokenizer.n_vocab, tie_embeddings=True)
    short = replace(trace, events=trace.events[:3])
    report = compare(
        [[short]],
        {"one": make_engine, "other": lambda clock: Engine(other_model, tokenizer, clock=clock)},
        settings=SETTINGS,
    )
    assert report["other"]["different_prompts"] == 0
    assert 1 <= report["other"]["different_answers"] <= 3


def test_summaries_tell_editing_from_jumps_and_answers_from_none() -> None:
    row = Row(
        path="a",
        t_ms=0,
        kind="type",
        asked=True,
        stop="line",
        prompt_kind="epoch",
        source="trail",
    )
    rows = [
        *(replace(row, n_recomputed=n, n_prompt=100) for n in range(1, 100)),
        replace(row, kind="delete", n_recomputed=100, n_prompt=100, n_background=7),
        replace(
            row, kind="jump", n_recomputed=500, n_prompt=500, prompt_kind="trunk", source="tier0"
        ),
        replace(row, stop="superseded", n_recomputed=1000),
        replace(row, asked=False, stop="", n_background=20),
    ]
    figures = summary(rows)
    assert figures["by_kind"]["editing"]["n"] == 100
    assert figures["by_kind"]["editing"]["n_recomputed"] == {
        "p50": 50,
        "p95": 95,
        "p99": 99,
        "mean": 50.5,
        "max": 100,
    }
    assert figures["by_kind"]["jump"]["n_recomputed"]["p50"] == 500
    assert figures["by_prompt_kind"]["trunk"]["n"] == 1
    assert figures["sources"] == {"tier0": 1, "trail": 100}
    assert figures["stops"] == {"line": 101, "superseded": 1}
    assert figures["tokens"] == {
        "prompt": 10_500,
        "recomputed": 6550,
        "background": 27,
        "generated": 0,
    }
    assert figures["prompt_over_all"] == 10_500 / 6577
    assert summary([])["by_kind"] == {}


def test_percentiles_are_values_that_were_there() -> None:
    assert percentiles([3.0]) == {"p50": 3, "p95": 3, "p99": 3, "mean": 3, "max": 3}
    assert percentiles([4, 1, 2, 3])["p50"] == 2
    with pytest.raises(ValueError, match="no values"):
        percentiles([])


def test_all_requests_of_an_event_are_counted(
    trace: Trace, make_engine: MakeEngine, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    suggest = Suggester.suggest

    async def suggest_twice(self: Suggester, *args: Any, **kwargs: Any) -> Suggestion:
        await suggest(self, *args, **kwargs)
        return await suggest(self, *args, **kwargs)

    monkeypatch.setattr(Suggester, "suggest", suggest_twice)
    short = replace(trace, events=trace.events[:2])
    twice = replay(short, make_engine, settings=SETTINGS, pace=EXACT)
    for row, once in zip(twice, rows, strict=False):
        assert row.n_recomputed >= once.n_recomputed
        assert row.n_generated == 2 * once.n_generated
        assert row.answer_digest == once.answer_digest


@pytest.fixture
def silent(model: Mamba2, tokenizer: Tokenizer) -> MakeEngine:
    """Makes engines that never do anything."""

    class SilentEngine(Engine):
        def step(self) -> bool:
            return False

    return lambda clock: SilentEngine(model, tokenizer, clock=clock)


def test_a_request_that_nothing_answers_is_an_error(trace: Trace, silent: MakeEngine) -> None:
    with pytest.raises(RuntimeError, match="no answer after"):
        replay(replace(trace, events=trace.events[:1]), silent)


def test_timeouts_go_by_the_clock_of_the_replay(trace: Trace, silent: MakeEngine) -> None:
    short = replace(trace, events=trace.events[:1])
    (row,) = replay(short, silent, pace=Pace(deadline_ms=1000.0))
    assert row.stop == "deadline"
    assert row.latency_ms == pytest.approx(1000.0 + GRACE_MS, abs=2.0)
    assert row.n_prompt == 0
