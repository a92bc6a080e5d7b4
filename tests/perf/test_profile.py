"""The profiler at servers that are not ours: good ones, and those that fail in every way."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from lsp_server.cli import main
from lsp_server.documents import Change, Position
from perf.client import Client, ServerGone
from perf.profile_run import Plan, profile
from perf.profile_speed import Speed
from perf.profile_summary import summary
from perf.trace_format import Event, Session, Trace, write_trace

if TYPE_CHECKING:
    from perf.profile_sample import Run

FOREIGN = Path(__file__).with_name("pygls_server.py")
SCRIPTED = Path(__file__).with_name("scripted_server.py")
TIMEOUT_S = 60
# To notice that a process has ended.
GONE_S = 20


def typed(text: str, *, gap_ms: int = 100) -> Trace:
    """A text that is typed key by key into an empty file."""
    events = []
    for n, key in enumerate(text):
        at, then = Position(0, n), Position(0, n + 1)
        change = Change(text=key, range=(at, at))
        events.append(
            Event(
                t_ms=(n + 1) * gap_ms,
                kind="type",
                changes=(change,),
                cursor=then,
                next=text[n + 1 :],
            )
        )
    return Trace(path="src/a.py", language_id="python", text="", events=tuple(events))


def measured(mode: str, *traces: Trace, speed: str = "max", timeout_s: float = 20.0) -> Run:
    plan = Plan(
        sessions=[Session.of("typed", *traces)],
        speed=Speed.parse(speed),
        speed_name=speed,
        command=(sys.executable, str(SCRIPTED), mode),
        options={},
        timeout_s=timeout_s,
        start_timeout_s=20.0,
    )
    return asyncio.run(asyncio.wait_for(profile(plan), TIMEOUT_S))


def outcomes(run: Run) -> list[str]:
    return [sample.outcome for sample in run.samples]


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["profile", *map(str, arguments)])


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the command says of a good server; the report and the trace are beside it."""
    folder = tmp_path_factory.mktemp("profile")
    write_trace(typed("x = pass"), folder / "typed.jsonl")
    result = command(
        folder / "typed.jsonl",
        *("--server", f"{sys.executable} {FOREIGN}", "--json"),
        *("--report", folder / "out.html", "--chrome-trace", folder / "out.json"),
    )
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return {**found, "folder": folder}


def test_the_summary_has_the_documented_keys(figures: dict[str, Any]) -> None:
    assert figures["requests"] == 8
    assert figures["errors"] == figures["cancelled"] == 0
    assert set(figures["latency_ms"]) == {"p50", "p95", "p99", "max"}
    assert figures["by_kind"].keys() == {"type"}
    assert figures["by_kind"]["type"].keys() == {"n", "p50", "p95"}
    assert figures["by_kind"]["type"]["n"] == 8
    # What only our own server tells.
    assert figures["stages_ms"] == {}
    for key in ("tokens_recomputed", "prompt_tokens", "model", "device"):
        assert figures[key] is None
    assert figures["server"] == "foreign 7"
    assert figures["rss_bytes"] > 2**20


def test_a_file_that_is_opened_again_keeps_what_was_shown_before() -> None:
    run = measured("always", typed("x = pass"), typed("y"))
    assert (run.n_completed_chars, run.n_typed_chars) == (4, 9)


def test_suggestions_are_held_against_what_was_typed(figures: dict[str, Any]) -> None:
    assert figures["suggested"] == 8
    # Once, behind the "= "; nothing is typed behind the last one.
    assert figures["first_line_match"] == 1 / 7
    assert figures["ratio_completed"] == 4 / 8
    by_place = [sample.get("first_line") for sample in figures["samples"]]
    assert by_place == [False, False, False, True, False, False, False, None]
    assert {sample["suggested_chars"] for sample in figures["samples"]} == {4}


def test_times_are_from_the_change_and_from_the_request(figures: dict[str, Any]) -> None:
    for sample in figures["samples"]:
        assert 0 < sample["latency_ms"] <= sample["change_ms"]
        assert sample["n_chars"] > 0


def test_the_report_and_the_trace_are_written(figures: dict[str, Any]) -> None:
    assert "foreign 7" in (figures["folder"] / "out.html").read_text()
    assert json.loads((figures["folder"] / "out.json").read_text())["traceEvents"]


def test_a_server_that_wants_whole_texts_gets_them() -> None:
    run = measured("whole", typed("x = "))
    assert outcomes(run) == ["items"] * 4
    assert run.problem is None


def test_errors_are_counted() -> None:
    # The first request is asked before anything is measured.
    run = measured("erring", typed("x = "))
    assert outcomes(run) == ["error", "items"] * 2
    assert summary(run)["error_messages"] == {"-32603: not today": 2}
    run = measured("odd", typed("x ="))
    assert outcomes(run) == ["error"] * 3
    assert summary(run)["errors"] == 3
    assert summary(run)["latency_ms"] is None


@pytest.mark.parametrize("mode", ["held", "late"])
def test_who_goes_on_before_the_answer_cancels(mode: str) -> None:
    # The server answers in time only once all is typed.
    run = measured(mode, typed("x = y", gap_ms=20), speed="recorded")
    *overtaken, last = outcomes(run)
    assert overtaken == ["cancelled"] * 4
    assert last == "items"
    found = summary(run)
    assert found["cancelled"] == 4
    assert found["by_kind"]["type"]["n"] == 1


def test_a_session_may_end_with_what_asks_nothing() -> None:
    trace = typed("x =", gap_ms=20)
    *events, last = trace.events
    unasked = replace(trace, events=(*events, replace(last, request=False)))
    # What it overtakes is answered afterwards.
    assert outcomes(measured("held", unasked, speed="recorded")) == ["cancelled"] * 2


def test_a_server_that_falls_silent_ends_the_run() -> None:
    run = measured("silent", typed("x = 12345"), timeout_s=0.05)
    # The rest would come to the same.
    assert outcomes(run) == ["timeout"] * 5
    assert run.problem is not None
    assert "5 requests in a row" in run.problem
    assert summary(run)["errors"] == summary(run)["timeouts"] == 5


def test_a_server_that_ends_has_its_last_words(tmp_path: Path) -> None:
    write_trace(typed("x = 1"), tmp_path / "a.jsonl")
    result = command(
        tmp_path / "a.jsonl", "--server", f"{sys.executable} {SCRIPTED} dying", "--json"
    )
    assert result.exit_code == 1
    assert "a last word" in result.stderr
    found = json.loads(result.stdout)
    assert found["requests"] == 2
    assert found["errors"] == 1


@pytest.mark.asyncio
async def test_nothing_is_awaited_of_a_server_that_is_gone() -> None:
    command = (sys.executable, str(SCRIPTED), "dying")
    async with (
        asyncio.timeout(GONE_S),
        await Client.start(command, stderr=asyncio.subprocess.DEVNULL) as client,
    ):
        await client.initialize()
        for _ in range(2):
            await client.ask("file:///a.py", 0, 0)
        for _ in range(2):
            with pytest.raises(ServerGone):
                await client.ask("file:///a.py", 0, 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--server", f"{sys.executable} {SCRIPTED} mute", "--start-timeout-s", 0.3), "in time"),
        (("--server", f"{sys.executable} -c raise(SystemExit('no_model'))"), "no_model"),
        (("--server", "/nonexistent/server"), "/nonexistent/server"),
        (("--speed", "fast"), "speed is 'fast', expected recorded, max"),
        (("--options", "[]"), "expected an object"),
        (("--options", '{"a":' * 99_999), "--options: it is nested too deep"),
        (("--options", '{"maxToken": 3}'), "--options: unknown setting maxToken"),
        (("--options", '{"maxTokens": 0}'), "--options: setting maxTokens: max_tokens is 0"),
        (("--server", "any", "--model", "m"), "for our own server"),
        (("--server", ""), "--server is '', expected a command line"),
        (("--server", "'open"), '--server is "\'open", expected a command line'),
    ],
    ids=[
        "mute",
        "failing",
        "missing",
        "speed",
        "options",
        "nested",
        "setting",
        "value",
        "model",
        "empty",
        "open",
    ],
)
def test_what_cannot_be_measured_is_one_line(
    tmp_path: Path, arguments: tuple[object, ...], said: str
) -> None:
    write_trace(typed("x"), tmp_path / "a.jsonl")
    result = command(tmp_path / "a.jsonl", *arguments)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert said in line


@pytest.mark.parametrize("option", ["--timeout-s", "--start-timeout-s", "--delay-ms", "--bound"])
@pytest.mark.parametrize("value", ["nan", "inf", "-1"])
def test_a_time_is_a_finite_number(tmp_path: Path, option: str, value: str) -> None:
    write_trace(typed("x"), tmp_path / "a.jsonl")
    result = command(tmp_path / "a.jsonl", "--server", "/nonexistent", option, value)
    assert result.exit_code == 2
    assert option in result.stderr
    assert value in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("mode", "text", "said"),
    [
        ("printing", "hello", "is not LSP: b'hello"),
        ("greeting", "{", "is not LSP: Expecting property name"),
        ("greeting", "[1]", "is not LSP: it is a list, expected an object"),
        ("greeting", "5", "is not LSP: it is 5, expected an object"),
        ("greeting", '{"id": 1}', "is not LSP: an answer has no result and no error"),
        ("greeting", '{"id": 1, "error": "no"}', "is not LSP: error is 'no', expected an object"),
        ("greeting", '{"id": 1, "error": {"message": "no"}}', "is not LSP: code is missing"),
        ("greeting", '{"id": [1], "result": {}}', "is not LSP: unhashable"),
        (
            *("greeting", '{"id": 1, "error": {"code": -1, "message": "no licence"}}'),
            "answers with an error: -1: no licence",
        ),
        ("greeting", '{"id": 1, "result": null}', "initialize is null, expected an object"),
        (
            *("greeting", '{"id": 1, "result": {"capabilities": null}}'),
            "capabilities is null, expected an object",
        ),
        (
            *("greeting", '{"id": 1, "result": {"capabilities": {}, "serverInfo": "x"}}'),
            "serverInfo is 'x', expected an object",
        ),
        ("showing", "[5]", "shape: an item is 5, expected an object"),
        ("showing", '[{"insertText": null}]', "shape: insertText is null, expected text"),
        ("showing", '[{"insertText": "x", "range": {}}]', "shape: start is missing"),
    ],
)
def test_a_server_that_writes_no_lsp_is_one_line_at_once(
    tmp_path: Path, mode: str, text: str, said: str
) -> None:
    write_trace(typed("x"), tmp_path / "a.jsonl")
    server = shlex.join((sys.executable, str(SCRIPTED), mode, text))
    result = command(tmp_path / "a.jsonl", "--server", server, "--start-timeout-s", TIMEOUT_S)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert said in line


def test_an_answer_may_have_a_null_error() -> None:
    text = '{"id": 1, "error": null, "result": {"capabilities": {}}}'

    async def handshake() -> dict[str, Any]:
        program = (sys.executable, str(SCRIPTED), "greeting", text)
        async with asyncio.timeout(GONE_S), await Client.start(program) as client:
            return await client.initialize()

    assert asyncio.run(handshake()) == {"capabilities": {}}


def test_files_that_cannot_be_are_refused() -> None:
    trace = typed("x")
    session = Session.of("a", replace(trace, path="a"), replace(trace, path="a/b.py"))
    plan = Plan(sessions=[session], speed=Speed.parse("max"), speed_name="max")
    with pytest.raises(ValueError, match=r"a: the path 'a/b.py' cannot be written"):
        asyncio.run(profile(plan))


def test_a_path_that_leads_elsewhere_is_refused() -> None:
    trace = typed("x")
    with pytest.raises(ValueError, match="leads elsewhere"):
        measured("whole", Trace(path="../a.py", language_id="c", text="", events=trace.events))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max", [0.0] * 4),
        ("recorded", [0.0, 0.1, 0.2, 0.3]),
        ("2x", [0.0, 0.05, 0.1, 0.15]),
        ("0.5", [0.0, 0.2, 0.4, 0.6]),
        ("20/s", [0.0, 0.05, 0.1, 0.15]),
    ],
)
def test_speeds(text: str, expected: list[float]) -> None:
    due_s = Speed.parse(text).due_s(Session.of("a", typed("abc")))
    assert due_s == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "0x", "-1x", "x", "10/m", "nan", "1e400x"])
def test_what_is_no_speed_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected recorded"):
        Speed.parse(text)
