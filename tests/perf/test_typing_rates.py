"""What counts as stale, and that a server under typing of every rhythm answers nothing that is."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

import engine as engine_package
from engine.engine import Engine
from engine.tokenizer import Tokenizer
from lsp_server.settings import Settings
from lsp_server.suggestions import Suggester
from perf.typing_rates import BEFORE_LINE, N_KEYS, SAMPLE, TEXT, summary
from perf.typist import Asked, keys_of
from tests.lsp_server.server_bench import URI, Bench, suggestion

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

TIMEOUT_S = 120
SEEDS = range(3)
# In a comment, where whatever a random model writes may be shown.
TYPED = "# The names that are counted here are those of the\n# items\n"
N_TYPED = 50


def asked(outcome: str, **given: Any) -> Asked:
    one = Asked(id=1, version=3, changed_s=1.0)
    for name, value in {"outcome": outcome, "answered_s": 1.5, **given}.items():
        setattr(one, name, value)
    return one


@pytest.mark.parametrize(
    ("one", "staleness"),
    [
        (asked("items"), None),
        (asked("empty", typed_s=1.2, superseded_s=1.2), None),
        (asked("null", typed_s=1.2, superseded_s=1.2), None),
        (asked("items", typed_s=1.2), "unsent"),
        (asked("items", typed_s=1.2, superseded_s=1.3, answered_version=3), "crossed"),
        (asked("items", typed_s=1.2, superseded_s=1.3, answered_version=4), "late"),
        (asked("items", typed_s=1.2, superseded_s=1.3), "late"),
    ],
    ids=["current", "empty", "null", "unsent", "crossed", "known", "not said"],
)
def test_staleness(one: Asked, staleness: str | None) -> None:
    assert one.staleness == staleness


def test_the_summary_takes_versions_from_the_server() -> None:
    stale = asked("items", typed_s=1.2, superseded_s=1.2)
    dropped = asked("null", id=2, typed_s=1.4, superseded_s=1.49)
    current = asked("items", id=3)
    answers: list[dict[str, Any]] = [
        {"id": 1, "version": 4, "prompt_kind": "typed", "timings_ms": {}},
        {"id": 3, "version": 3, "passes": {"model": 4}, "timings_ms": {"decode": 80.0}},
    ]
    figures = summary([stale, dropped, current], answers)
    assert figures["answers_stale"] == {"unsent": 0, "crossed": 0, "late": 1}
    assert figures["stale_shown"] == 1
    assert figures["superseded"]["requests"] == 2
    assert (figures["superseded"]["items"], figures["superseded"]["null"]) == (1, 1)
    assert figures["superseded"]["ms_to_null_or_cancelled"]["p95"] == pytest.approx(10)
    assert figures["superseded"]["within_longest_pass"] == 1
    assert figures["pass_ms"]["p50"] == 20
    assert figures["ms_from_last_change"]["all"]["p95"] == 500
    assert figures["ms_from_last_change"]["typed_through"] is None
    answers[0]["version"] = 3
    assert summary([stale], answers)["answers_stale"]["crossed"] == 1
    stale.is_cancelled = True
    assert summary([stale], answers)["stale_shown"] == 0


def test_the_keys_type_the_text() -> None:
    keys = keys_of(TEXT, N_KEYS)
    assert len(keys) == N_KEYS
    assert TEXT.startswith("".join(keys))
    assert all(len(key) == 1 or key.startswith(("\n", " ")) for key in keys)
    assert SAMPLE.read_text(encoding="utf-8").count(BEFORE_LINE) == 1
    with pytest.raises(ValueError, match="2 keys"):
        keys_of("a\n", 3)


@pytest.fixture
def stepped(tiny_model: Callable[..., Any]) -> Suggester:
    """The tiny model, whose engine does nothing by itself."""
    tokenizer = Tokenizer.load(SAMPLE.parents[2] / engine_package.__name__ / "embedded")
    engine = Engine(tiny_model(vocab_size=8192), tokenizer)
    return Suggester(engine, Settings(max_tokens=8))


def line_of(typed: list[str]) -> int:
    """The cursor's line behind what was typed from the document's beginning on."""
    return "".join(typed).count("\n")


def column_of(typed: list[str]) -> int:
    return len("".join(typed).rpartition("\n")[2])


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", SEEDS)
async def test_a_superseded_request_is_null_before_the_next_pass(
    stepped: Suggester, seed: int
) -> None:
    """Between two keys, the engine runs any number of passes; no answer is for an older text."""
    dice = random.Random(seed)
    bench = Bench(stepped)
    requests: list[int] = []
    typed: list[str] = []
    n_null = n_answered = n_items = 0

    async def work() -> None:
        nonlocal n_null, n_answered, n_items
        # Whatever the model writes is shown.
        options = {"deadlineMs": 600_000, "maxTokens": 8, "minConfidence": 0}
        await bench.initialized(options)
        await bench.load()
        for version, key in enumerate(keys_of(TYPED, N_TYPED), start=1):
            open_ = [request for request in requests[-1:] if not bench.answers(request)]
            place = {"line": line_of(typed), "character": column_of(typed)}
            change = {"range": {"start": place, "end": place}, "text": key}
            document = {"uri": URI, "version": version}
            bench.tell(
                "textDocument/didChange", {"textDocument": document, "contentChanges": [change]}
            )
            typed.append(key)
            await bench.settle()
            # Not one pass has been run since the change.
            for request in open_:
                assert bench.result(request) is None
                n_null += 1
            here = (line_of(typed), column_of(typed))
            requests.append(bench.complete(*here))
            await bench.settle()
            n_passes = dice.choice((0, 1, 3, None))
            while not bench.answers(requests[-1]) and n_passes != 0:
                stepped.engine.step()
                await bench.settle()
                n_passes = None if n_passes is None else n_passes - 1
            for answer in bench.answers(requests[-1]):
                n_answered += 1
                n_items += len(answer["result"]["items"])
                (taken,) = bench.server.answers.take()
                assert (taken["id"], taken["version"]) == (requests[-1], version)
                for item in answer["result"]["items"]:
                    assert item["range"]["end"] == {"line": here[0], "character": here[1]}

    try:
        await asyncio.wait_for(work(), TIMEOUT_S)
        # Both happened, and nothing was answered twice.
        assert n_null > 5
        assert n_answered > 5
        assert n_items > 5
        assert all(len(bench.answers(request)) == 1 for request in requests[:-1])
    finally:
        bench.close()


@pytest_asyncio.fixture
async def ready_bench() -> AsyncIterator[Bench]:
    bench = Bench()
    await bench.initialized()
    await bench.load()
    yield bench
    bench.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("n_turns", range(6))
async def test_an_answer_that_is_made_after_a_change_came(ready_bench: Bench, n_turns: int) -> None:
    """However far the server has come with the change."""
    request = ready_bench.complete()
    await ready_bench.settle()
    ready_bench.insert("y", 1)
    for _ in range(n_turns):
        await asyncio.sleep(0)
    made = ready_bench.suggester.answers[0]
    if not made.done():
        made.set_result(suggestion("old"))
    await ready_bench.settle()
    assert ready_bench.result(request) is None
