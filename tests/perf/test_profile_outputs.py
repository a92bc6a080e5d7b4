"""What a profile is told as: figures, a page, a trace for Perfetto, and a comparison."""

from __future__ import annotations

import json
import random
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from rich.console import Console

from lsp_server.cli import main
from perf.chrome_trace import CLIENT, SERVER, chrome_trace
from perf.profile_charts import GROUPS, KINDS
from perf.profile_comparison import comparison, regressions
from perf.profile_page import page
from perf.profile_sample import Run, Sample
from perf.profile_summary import STAGES, summary
from perf.profile_table import tables

if TYPE_CHECKING:
    from pathlib import Path

N = 120
STAGE_MS = {"receive": 0.5, "queue": 1.0, "prefill": 2.0, "heal": 3.0, "decode": 4.0, "trim": 0.1}


def made_run(
    factor: float = 1.0, *, tokens: int = 2, seed: int = 0, has_stages: bool = True
) -> Run:
    """A run of made-up answers, some 10 ms times `factor` each, every tenth slow."""
    dice = random.Random(seed)
    run = Run(command="serve <&>", speed="max", server="keystate 9", model="m<i>", device="cpu")
    run.memory = [(0.25 * n, 2**20 * (100 + n)) for n in range(N // 10)]
    run.cpu_s, run.n_typed_chars, run.seconds = 2.0, 500, 30.0
    for n in range(N):
        ms = factor * dice.uniform(8, 12) * (10 if n % 10 == 0 else 1)
        sample = Sample(
            trace="a&b",
            kind=KINDS[n % len(KINDS)],
            n_chars=100 + n,
            start_ms=20.0 * n,
            id=n,
            outcome="items" if n % 2 else "empty",
            latency_ms=ms,
            change_ms=None if n % len(KINDS) == 2 else ms + 1,
            suggested_chars=n % 2,
            first_line=None if n % 3 else n % 2 == 0,
        )
        if has_stages:
            told = {name: ms * part / 20 for name, part in STAGE_MS.items()}
            tokens_ = {"prompt": 200, "recomputed": tokens * (n % 3), "generated": 3}
            answer = {"stop": "line", "tokens": tokens_, "passes": {"model": 2, "healing": 1}}
            sample.take({**answer, "timings_ms": {**told, "total": sum(told.values())}})
        run.samples.append(sample)
    return run


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    return json.loads(json.dumps(summary(made_run())))


def test_the_stages_sum_to_the_latency(figures: dict[str, Any]) -> None:
    for sample in figures["samples"]:
        assert sum(sample["stages_ms"].values()) == pytest.approx(sample["latency_ms"], abs=0.01)
        # What the server does not know of has a name.
        assert sample["stages_ms"]["transport"] > 0.4 * sample["latency_ms"]
    mean_ms = sum(sample["latency_ms"] for sample in figures["samples"]) / N
    means_ms = [stage["mean"] for stage in figures["stages_ms"].values()]
    assert sum(means_ms) == pytest.approx(mean_ms, 1e-5)
    names = list(figures["stages_ms"])
    assert names == [name for name in STAGES if name in names]
    assert {stage for group in GROUPS.values() for stage in group} == set(STAGES)


def test_figures(figures: dict[str, Any]) -> None:
    documented = (
        *("requests", "errors", "cancelled", "latency_ms", "by_kind", "stages_ms"),
        *("tokens_recomputed", "prompt_tokens", "suggested", "first_line_match"),
        *("ratio_completed", "rss_bytes", "model", "device"),
    )
    assert set(documented) < set(figures)
    latencies = sorted(sample["latency_ms"] for sample in figures["samples"])
    assert figures["latency_ms"]["p50"] == pytest.approx(latencies[N // 2 - 1], abs=1e-3)
    assert figures["latency_ms"]["max"] == pytest.approx(latencies[-1], abs=1e-3)
    assert figures["change_latency_ms"]["max"] == pytest.approx(latencies[-1] + 1, abs=1e-3)
    assert figures["tokens_recomputed"] == {"p50": 2, "p95": 4, "p99": 4, "mean": 2}
    assert figures["passes"]["p50"] == 3
    assert figures["prompt_tokens"] == {"p50": 200, "max": 200}
    assert figures["suggested"] == N // 2
    assert figures["first_line_match"] == 0.5
    assert figures["rss_bytes"] == 2**20 * (100 + N // 10 - 1)
    assert figures["cpu_s_per_1000_chars"] == 4.0
    assert {kind: found["n"] for kind, found in figures["by_kind"].items()} == dict.fromkeys(
        KINDS, N // len(KINDS)
    )


def test_an_answer_that_failed_inside_is_an_error() -> None:
    run = made_run()
    run.samples[0].take({"stop": "error", "timings_ms": {"total": 1.0}})
    assert summary(run)["errors"] == 1
    assert "1 times: it failed inside" in shown(summary(run))
    assert sum(found["n"] for found in summary(run)["by_kind"].values()) == N - 1


def test_nothing_measured_is_no_crash() -> None:
    run = Run(command="serve", speed="max", problem="it <ended>")
    found = summary(run)
    assert found["latency_ms"] is None
    assert "it &lt;ended&gt;" in page(found)
    assert chrome_trace(found)["traceEvents"]
    assert "0 requests" in shown(found)


def shown(figures: dict[str, Any]) -> str:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(tables(figures))
    return console.export_text()


def test_the_table(figures: dict[str, Any]) -> None:
    said = shown(figures)
    for part in ("keystate 9 with m<i> on cpu", "transport", "paste", "2 tokens p50", "111 MiB"):
        assert part in said


class Elements(HTMLParser):
    """Counts what is opened, and fails for what is closed in another order."""

    VOID = frozenset({"meta", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.addresses: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def close(self) -> None:
        super().close()
        assert not self._open


def test_the_page_needs_nothing_else(figures: dict[str, Any]) -> None:
    text = page(figures)
    elements = Elements()
    elements.feed(text)
    elements.close()
    assert elements.addresses == ["data:,"]
    assert "script" not in elements.names
    assert not re.search(r"https?:|url\(|@import", text)
    assert "prefers-color-scheme: dark" in text
    # Names are text, whatever is in them.
    assert "m&lt;i&gt;" in text
    assert "m<i>" not in text
    for title in ("Latency", "By kind", "document length", "slowest", "read again", "Memory"):
        assert re.search(rf"<h2>[^<]*{title}", text), title
    assert elements.names.count("table") == 2


def test_all_answers_are_in_the_charts(figures: dict[str, Any]) -> None:
    drawn = re.findall(r'<svg class="chart".*?</svg>', page(figures))
    charts = [ElementTree.fromstring(one) for one in drawn]
    latency, kinds, length, slowest, tokens, memory = charts
    bars = [bar.findtext("title") or "" for bar in latency.iter("rect")]
    assert sum(int(bar.split()[0]) for bar in bars) == N
    assert len(list(kinds.iter("circle"))) == 3 * len(KINDS)
    assert len(list(length.iter("circle"))) == len(list(tokens.iter("circle"))) == N
    first = next(bar.findtext("title") or "" for bar in slowest.iter("rect"))
    assert f"{figures['latency_ms']['max']:.1f} ms" in first
    assert any("M" in path.get("d", "") for path in memory.iter("path"))
    for chart in charts:
        for shape in chart.iter():
            for name in ("x", "y", "cx", "cy", "width", "height"):
                if name in shape.attrib:
                    assert -1 <= float(shape.attrib[name]) <= 730, (shape.tag, shape.attrib)


def check_trace_events(trace: dict[str, Any]) -> None:
    """The rules of the Trace Event Format that viewers rely on."""
    assert trace["displayTimeUnit"] in ("ms", "ns")
    spans: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for event in trace["traceEvents"]:
        assert isinstance(event["name"], str)
        assert isinstance(event["pid"], int)
        assert event["ts"] >= 0
        match event["ph"]:
            case "X":
                assert event["dur"] >= 0
                thread = (event["pid"], event["tid"])
                spans.setdefault(thread, []).append((event["ts"], event["ts"] + event["dur"]))
            case "i":
                assert event["s"] in ("g", "p", "t")
                assert isinstance(event["tid"], int)
            case "C":
                assert event["args"]
                assert all(isinstance(value, int | float) for value in event["args"].values())
            case "M":
                assert event["name"] in ("process_name", "thread_name")
                assert isinstance(event["args"]["name"], str)
            case _:
                raise AssertionError(event["ph"])
    for found in spans.values():
        # A thread's spans nest: sorted by start, none reaches over the end of one around it.
        around: list[float] = []
        for start, end in sorted(found, key=lambda span: (span[0], -span[1])):
            while around and around[-1] <= start + 0.01:
                around.pop()
            assert not around or end <= around[-1] + 0.01
            around.append(end)


@pytest.mark.parametrize("gap_ms", [200.0, 3.0], ids=["apart", "overlapping"])
def test_the_trace_is_one_that_perfetto_takes(gap_ms: float) -> None:
    run = made_run()
    for n, sample in enumerate(run.samples):
        sample.start_ms = gap_ms * n
    trace = chrome_trace(json.loads(json.dumps(summary(run))))
    check_trace_events(json.loads(json.dumps(trace)))
    events = trace["traceEvents"]
    assert sum(event["ph"] == "i" for event in events) == N
    assert sum(event["ph"] == "X" and event["pid"] == CLIENT for event in events) == N
    n_stages = sum(event["ph"] == "X" and event["pid"] == SERVER for event in events)
    assert n_stages == N * len(STAGE_MS)
    lanes = {event["tid"] for event in events if event["ph"] == "X"}
    assert (len(lanes) > 1) == (gap_ms < 10)


def test_equal_runs_are_no_regression() -> None:
    figures = summary(made_run())
    ratios = comparison(figures, figures)
    assert {ratio["ratio"] for ratio in ratios.values()} == {1.0}
    assert regressions(ratios, 1.01) == []


def test_intervals_hold_the_ratio() -> None:
    ratios = comparison(summary(made_run(seed=1)), summary(made_run(1.5, tokens=3, seed=2)))
    for name in ("latency p50", "latency p95"):
        ratio = ratios[name]
        assert ratio["low"] < 1.5 < ratio["high"], name
        assert ratio["high"] - ratio["low"] < 0.7
    # Work counts have no noise where the same was asked.
    tokens = ratios["tokens read again, mean"]
    for key in ("low", "ratio", "high"):
        assert tokens[key] == pytest.approx(1.5)
    assert regressions(ratios, 1.2) == ["latency p50", "latency p95", "tokens read again, mean"]
    assert regressions(ratios, 2.0) == []


def test_a_ratio_that_may_be_chance_is_no_regression() -> None:
    noisy = {"latency p50": {"a": 1.0, "b": 1.3, "ratio": 1.3, "low": 0.9, "high": 1.7}}
    assert regressions(noisy, 1.2) == []


def test_runs_of_other_requests_can_be_compared() -> None:
    a, b = made_run(), made_run(has_stages=False)
    b.samples = b.samples[: N // 2]
    ratios = comparison(summary(a), summary(b))
    assert ratios["latency p50"]["low"] < 1 < ratios["latency p50"]["high"]
    assert "passes, mean" not in ratios


@pytest.mark.parametrize(
    ("factor", "bound", "exit_code"), [(1.0, 1.2, 0), (1.5, 1.2, 1), (1.5, 1.8, 0)]
)
def test_the_command_compares(tmp_path: Path, factor: float, bound: float, exit_code: int) -> None:
    for name, run in (("a", made_run()), ("b", made_run(factor))):
        (tmp_path / f"{name}.json").write_text(json.dumps(summary(run)))
    arguments = ["profile", "--compare", *(str(tmp_path / f"{name}.json") for name in "ab")]
    result = CliRunner().invoke(main, [*arguments, "--bound", str(bound)])
    assert result.exit_code == exit_code, result.output
    assert f"{factor:.3f}" in result.output
    assert ("regression above 1.2: latency p50, latency p95" in result.output) == bool(exit_code)
    result = CliRunner().invoke(main, [*arguments, "--bound", str(bound), "--json"])
    assert bool(json.loads(result.output)["regressions"]) == bool(exit_code)


def test_what_is_no_profile_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"samples": []}')
    result = CliRunner().invoke(main, ["profile", "--compare", *[str(tmp_path / "a.json")] * 2])
    assert result.exit_code == 2
    assert "is not what keystate profile --json prints: machine is missing" in result.stderr


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"samples": 5}, "samples is 5, expected a list"),
        ({"samples": [5]}, "sample 1: it is 5, expected an object"),
        ({"samples": [{}]}, "sample 1: trace is missing, expected text"),
        ({"rss_bytes": "x"}, "rss_bytes is 'x', expected a number"),
    ],
)
def test_what_is_compared_is_looked_at(tmp_path: Path, changed: dict[str, Any], found: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(summary(made_run()) | changed))
    result = CliRunner().invoke(main, ["profile", "--compare", str(path), str(path)])
    assert result.exit_code == 2
    assert result.stderr == f"Error: {path} is not what keystate profile --json prints: {found}\n"


def test_a_sample_has_its_figures(tmp_path: Path) -> None:
    path, figures = tmp_path / "a.json", summary(made_run())
    figures["samples"][2]["latency_ms"] = "fast"
    path.write_text(json.dumps(figures))
    result = CliRunner().invoke(main, ["profile", "--compare", str(path), str(path)])
    assert result.exit_code == 2
    assert "sample 3: latency_ms is 'fast', expected a number" in result.stderr


def test_a_file_of_bytes_is_not_printed(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(bytes(range(256)) * 10)
    result = CliRunner().invoke(main, ["profile", "--compare", str(path), str(path)])
    assert result.exit_code == 2
    assert len(result.stderr) < len(str(path)) + 120
    assert "byte 129 is 0x80, expected JSON in UTF-8" in result.stderr
