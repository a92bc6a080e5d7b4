"""`keystate eval` on a tiny model: that rows, prompts and figures are what was asked for."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
from click.testing import CliRunner, Result

from engine.copying import FEATURES, CopyWeights
from engine.request import Completion
from lsp_server.cli import main
from lsp_server.features.inline_completion import N_ALTERNATIVES
from lsp_server.settings import Settings
from lsp_server.suggestions import Item, Suggester, Suggestion
from perf.case_answers import (
    SOURCES,
    Way,
    answer_from,
    completed_in,
    confidence_of,
    evaluate,
    shown_text,
    suggester_that_shows_all,
)
from perf.cases import Case, uniform_cases, write_cases
from perf.evaluate import command
from perf.open_files import OpenFiles
from perf.quality import copied
from perf.source_files import SourceFile, read_sources
from perf.trace_format import write_trace
from tests.perf.test_completed_code import letters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.request import CompletionRequest
    from lsp_server.documents import Document, Position

ROOT = Path(__file__).parents[2]
SOURCES_READ = read_sources(ROOT / "lsp_server" / "scheduler.py")
CASES = uniform_cases(SOURCES_READ, 4, seed=1)


@pytest.fixture(scope="module")
def suggester(model_directory: Path) -> Iterator[Suggester]:
    settings = Settings(
        model=str(model_directory), max_tokens=4, min_confidence=0.99, save_states=False
    )
    suggester = suggester_that_shows_all(settings)
    yield suggester
    suggester.close()


class Scripted:
    """A suggester whose answers are given: for what is judged, and what is asked."""

    def __init__(self, suggester: Suggester, texts: dict[str, str], stop: str = "line") -> None:
        self.engine = suggester.engine
        self.name = suggester.name
        self.texts, self.stop = texts, stop
        self.documents: list[Document] = []
        self.asked: list[tuple[str, Position, bool, float | None, list[str], int]] = []
        self.forgotten: list[str] = []

    async def suggest(
        self,
        document: Document,
        position: Position,
        *,
        explicit: bool,
        deadline_ms: float | None,
        n_alternatives: int = 0,
    ) -> Suggestion:
        others = [other.path for other in self.documents]
        asked = document.path, position, explicit, deadline_ms, others, n_alternatives
        self.asked.append(asked)
        text = self.texts[document.path]
        completion = Completion(text=text, stop=self.stop, log_prob=math.log(0.5))
        item = Item(insert_text=text, start=position, end=position, log_prob=completion.log_prob)
        return Suggestion(
            items=(item,) if text else (), completion=completion, timings_ms={"total": 7.0}
        )

    def forget(self, uri: str) -> None:
        self.forgotten.append(uri)


def case_of(path: str, prefix: str, truth: str) -> Case:
    return Case(path=path, language_id="python", prefix=prefix, suffix="\n", truth=truth)


def rows_of(scripted: Scripted, cases: list[Case], *args: Any) -> list[Any]:
    return asyncio.run(evaluate(cases, scripted, *args))  # type: ignore[arg-type]


class TestRows:
    CASES = (
        case_of("a.py", "x = 1\ny", " = 2"),
        case_of("b.py", "x = 1\nx = 1\nx =", " 1"),
        case_of("c.py", "z", " = 4"),
    )
    TEXTS = {"a.py": " = 2", "b.py": " 3", "c.py": ""}  # noqa: RUF012

    def test_model_and_copy_are_judged_at_the_cursor(self, suggester: Suggester) -> None:
        scripted = Scripted(suggester, self.TEXTS)
        rows = rows_of(scripted, list(self.CASES))
        assert [row.model.exact for row in rows] == [True, False, False]
        assert [row.model.has_text for row in rows] == [True, True, False]
        assert [row.copy.exact for row in rows] == [False, True, False]
        assert {row.confidence for row in rows} == {0.5}
        assert {row.latency_ms for row in rows} == {7.0}
        positions = [position for _, position, *_ in scripted.asked]
        assert positions == [(1, 1), (2, 3), (0, 1)]

    def test_each_case_is_forgotten(self, suggester: Suggester) -> None:
        scripted = Scripted(suggester, self.TEXTS)
        rows_of(scripted, [self.CASES[0], self.CASES[0]])
        assert len(set(scripted.forgotten)) == 2

    def test_how_it_is_asked(self, suggester: Suggester) -> None:
        scripted = Scripted(suggester, self.TEXTS)
        rows_of(scripted, [self.CASES[0]])
        rows_of(scripted, [self.CASES[0]], Way(explicit=False, deadline_ms=30.0))
        assert [asked[2:4] for asked in scripted.asked] == [(True, None), (False, 30.0)]
        # As the server asks for who does.
        assert [asked[5] for asked in scripted.asked] == [N_ALTERNATIVES, 0]

    def test_files_beside_it_are_open_but_for_its_own(self, suggester: Suggester) -> None:
        scripted = Scripted(suggester, self.TEXTS)
        open_files = OpenFiles([SourceFile(path=name, text="x\n") for name in self.TEXTS])
        rows_of(scripted, [self.CASES[0]], None, open_files)
        rows_of(scripted, [self.CASES[0]])
        assert [asked[4] for asked in scripted.asked] == [["a.py", "c.py", "b.py"], ["a.py"]]

    def test_a_failed_answer_is_no_row(self, suggester: Suggester) -> None:
        with pytest.raises(ValueError, match="case 1 failed"):
            rows_of(Scripted(suggester, self.TEXTS, stop="error"), [self.CASES[0]])


def test_nothing_is_hidden_for_lack_of_confidence(suggester: Suggester) -> None:
    rows = asyncio.run(evaluate(CASES, suggester, Way(explicit=False)))
    assert "confidence" not in {row.hidden for row in rows}
    assert any(row.model.has_text for row in rows)
    assert max(row.confidence for row in rows) < 0.99


def test_confidence_decides_what_is_shown() -> None:
    item = Item(insert_text="x", start=(0, 0), end=(0, 0), log_prob=math.log(0.3))  # type: ignore[arg-type]
    # The answer that it was an alternative to was less probable.
    suggestion = Suggestion(
        items=(item,), completion=Completion(text="y", stop="line", log_prob=math.log(0.2))
    )
    assert confidence_of(suggestion) == pytest.approx(0.3)
    assert shown_text(suggestion) == shown_text(suggestion, 0.29) == "x"
    assert shown_text(suggestion, 0.31) == ""
    assert shown_text(replace(suggestion, items=())) == ""


class TestPrompts:
    def asked(
        self, suggester: Suggester, monkeypatch: pytest.MonkeyPatch, way: Way
    ) -> tuple[list[Completion], list[CompletionRequest]]:
        """Answers and requests of the engine for the cases."""
        requests: list[CompletionRequest] = []
        answers: list[Completion] = []
        submit, choose = suggester.engine.submit, suggester.engine._completer.prompts.choose

        def listened(request: Any, on_done: Any) -> Any:
            def done(answer: Completion) -> None:
                answers.append(answer)
                on_done(answer)

            requests.append(request)
            return submit(request, done)

        monkeypatch.setattr(suggester.engine, "submit", listened)
        # Put back afterwards.
        monkeypatch.setattr(suggester.engine._completer.prompts, "choose", choose)
        rows = asyncio.run(evaluate(CASES, suggester, way))
        assert len(rows) == len(answers) == len(CASES)
        assert [row.copy.has_text for row in rows] == [bool(copied(c.prefix)) for c in CASES]
        return answers, requests

    def test_epochs_are_what_the_server_answers(
        self, suggester: Suggester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for explicit in (True, False):
            answers, requests = self.asked(suggester, monkeypatch, Way(explicit=explicit))
            for answer, request in zip(answers, requests, strict=True):
                fim = suggester.engine.fim
                split = fim.split(request.header + request.prefix)
                tokens = suggester.engine.tokenizer
                head = [tokens.bos_id, tokens.suffix_id, *tokens.encode(request.suffix)]
                assert answer.kind == "epoch"
                assert answer.prompt_ids == (*head, tokens.prefix_id, *split.ids.tolist())

    def test_trunks_know_nothing_of_the_suffix(
        self, suggester: Suggester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answers, _ = self.asked(suggester, monkeypatch, Way(prompt_kind="trunk"))
        tokens = suggester.engine.tokenizer
        for answer in answers:
            assert answer.kind == "trunk"
            assert tokens.suffix_id not in answer.prompt_ids

    def test_bridges_end_with_the_first_of_it(
        self, suggester: Suggester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answers, requests = self.asked(suggester, monkeypatch, Way(prompt_kind="bridge"))
        tokens = suggester.engine.tokenizer
        for answer, request in zip(answers, requests, strict=True):
            assert answer.kind == "bridge"
            assert answer.prompt_ids[-1] == tokens.middle_id
            start = answer.prompt_ids.index(tokens.suffix_id)
            laid = tokens.decode(list(answer.prompt_ids[start + 1 : -1]))
            assert laid
            assert request.suffix.startswith(laid)

    def test_unknown_kinds_are_refused(self, suggester: Suggester) -> None:
        with pytest.raises(ValueError, match="prompt kind is 'branch', expected epoch, bridge"):
            answer_from(suggester, "branch")


class TestContext:
    def test_all_sources_unless_left_out(
        self, model_directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = SourceFile(path="a/b.py", text="def helper_of_all(one, two):\n    return one\n")
        prefix = "import os\n\n\ndef first():\n" + "    x = 1\n" * 400 + "\n\nhelper_of_all("
        case = case_of("a/c.py", prefix, "1)")
        settings = Settings(model=str(model_directory), max_tokens=2, save_states=False)
        seen = {}
        for without in ((), *((source,) for source in SOURCES)):
            asking = suggester_that_shows_all(settings, without)
            listened = Mock(side_effect=asking.engine.submit)
            monkeypatch.setattr(asking.engine, "submit", listened)
            asyncio.run(evaluate([case], asking, None, OpenFiles([source])))
            (seen["".join(without)], _) = listened.call_args.args
            asking.close()
        assert "helper_of_all(one, two)" in seen[""].header
        assert "import os" in seen[""].header
        assert "helper_of_all(one, two)" not in seen["snippets"].header
        assert "import os" not in seen["outline"].header
        assert any("import os" in text for text in seen[""].sources)
        assert seen["distant-text"].sources == seen["copying"].sources == ()

    def test_what_a_model_gains_nothing_from_is_used_on_demand_alone(
        self, model_directory: Path, tmp_path: Path
    ) -> None:
        plain = shutil.copytree(model_directory, tmp_path / "plain")
        (plain / "keystate.json").write_text('{"header": false}')
        settings = Settings(model=str(plain), save_states=False)
        prefix = "import os\n\n\ndef first():\n" + "    x = 1\n" * 400 + "\n\nos."
        document = case_of("a/c.py", prefix, "name").open("file:///a/c.py")
        for also, has_outline in ((), False), (("outline",), True):
            suggester = suggester_that_shows_all(settings, (), also)
            window = suggester._touched(document, len(prefix))
            asked = suggester._request_on(window, document, len(prefix))
            assert ("import os" in asked.header) == has_outline
            suggester.close()

    def test_copying_can_be_off(self, model_directory: Path, tmp_path: Path) -> None:
        copying = shutil.copytree(model_directory, tmp_path / "copying")
        CopyWeights(bias=(0.0,) * len(FEATURES), slope=(0.0,) * len(FEATURES)).save(copying)
        settings = Settings(model=str(copying), save_states=False)
        for without, is_off in (([], False), (["distant-text"], False), (["copying"], True)):
            suggester = suggester_that_shows_all(settings, without)
            assert (suggester.engine.decoder.copy_weights is None) == is_off
            suggester.close()

    def test_there_is_no_other_source(self) -> None:
        with pytest.raises(ValueError, match=r"\['windows'\] to leave out, expected some of outl"):
            suggester_that_shows_all(Settings(), ["windows"])


def test_replayed_typing(suggester: Suggester) -> None:
    scripted = Scripted(suggester, {"a.py": "cd"})
    total = [
        asyncio.run(completed_in([letters("abcd")], scripted, Way(), threshold))  # type: ignore
        for threshold in (0.4, 0.6)
    ]
    assert [each.n_completed_chars for each in total] == [2, 0]
    assert total[0].n_typed_chars == 4
    assert scripted.forgotten == ["file:///a.py"] * 2


class TestCommand:
    @pytest.fixture
    def cases(self, tmp_path: Path) -> Path:
        write_cases(CASES, tmp_path / "cases.jsonl")
        return tmp_path / "cases.jsonl"

    def run(self, *arguments: object) -> Result:
        return CliRunner().invoke(main, ["eval", *map(str, arguments)])

    def test_json(self, cases: Path, model_directory: Path, tmp_path: Path) -> None:
        write_trace(letters("abcd"), tmp_path / "trace.jsonl")
        done = self.run(
            *(cases, "--json", "--model", model_directory, "--limit", 3, "--automatic"),
            *("--report", tmp_path / "results" / "quality", "--trace", tmp_path / "trace.jsonl"),
            *("--options", '{"maxTokens": 3, "minConfidence": 0.25}', "--prompt-kind", "trunk"),
            *("--workspace", ROOT / "lsp_server", "--without", "outline"),
        )
        assert done.exit_code == 0, done.output
        result = json.loads(done.stdout)
        assert result["n"] == 3
        assert {"exact_match", "edit_similarity", "first_line_match"} < set(result)
        assert set(result["latency_ms"]) == {"p50", "p95"}
        assert set(result["baselines"]) == {"copy", "nothing"}
        expected = sum(copied(case.prefix) == case.truth for case in CASES[:3]) / 3
        assert result["baselines"]["copy"]["exact_match"] == pytest.approx(expected)
        assert result["at_threshold"]["threshold"] == 0.25
        assert result["traces"]["typed_chars"] == 4
        assert result["run"]["model"] == model_directory.name
        assert result["run"]["prompt_kind"] == "trunk"
        assert result["run"]["ms_per_case"] > 0
        report = tmp_path / "results" / "quality"
        assert json.loads(report.with_suffix(".json").read_text()) == result
        assert "answers from the trunk" in report.with_suffix(".md").read_text()
        assert report.with_suffix(".svg").read_text().startswith("<svg")

    def test_files_that_are_not_open_can_be_left_out(
        self, model_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        copying = shutil.copytree(model_directory, tmp_path / "copying")
        CopyWeights(bias=(0.0,) * len(FEATURES), slope=(0.0,) * len(FEATURES)).save(copying)
        project = tmp_path / "sources" / "shop"
        project.mkdir(parents=True)
        for n in range(10):
            (project / f"m{n}.py").write_text(f"name_{n} = {n}\n")
        # The farthest from the case's own: eight are open.
        (project / "z.py").write_text("    total = price(of_all, of_none)\n")
        case = case_of("shop/a.py", "def f():\n    total = price(", "items)")
        write_cases([case], tmp_path / "cases.jsonl")
        asked: list[CompletionRequest] = []

        def listened(*args: Any) -> Suggester:
            suggester = suggester_that_shows_all(*args)
            submit = suggester.engine.submit

            def submitted(request: Any, on_done: Any) -> Any:
                asked.append(request)
                return submit(request, on_done)

            monkeypatch.setattr(suggester.engine, "submit", submitted)
            return suggester

        monkeypatch.setattr("perf.evaluate.suggester_that_shows_all", listened)
        arguments = [tmp_path / "cases.jsonl", "--json", "--options", '{"maxTokens": 2}']
        arguments += ["--model", copying, "--workspace", project.parent]
        for without in ((), ("project",), ("copying",)):
            done = self.run(*arguments, *(f"--without={source}" for source in without))
            assert done.exit_code == 0, done.output
            assert json.loads(done.stdout)["run"]["without"] == list(without)
        given = [any("of_all, of_none" in text for text in request.sources) for request in asked]
        assert given == [True, False, False]
        assert any("name_7" in text for text in asked[1].sources), "others are open all the same"

    def test_table(self, cases: Path, model_directory: Path) -> None:
        done = self.run(cases, "--model", model_directory, "--limit", 1, "--deadline", "60000")
        assert done.exit_code == 0, done.output
        assert "exact match" in done.stdout
        assert "nothing" in done.stdout

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--deadline", "soon"], "'soon' is neither milliseconds nor none"),
            (["--deadline", "nan"], "'nan', expected 0 milliseconds or more"),
            (["--deadline", "inf"], "'inf', expected 0 milliseconds or more"),
            (["--deadline", "-5"], "'-5', expected 0 milliseconds or more"),
            (["--options", "[]"], "it is a list, expected an object"),
            (["--options", "{"], "expected an object in JSON"),
            (["--options", '{"a":' * 99_999], "it is nested too deep"),
            (["--options", '{"maxToken": 3}'], "unknown setting maxToken"),
            (["--without", "everything"], "'everything' is not one of"),
        ],
    )
    def test_what_cannot_be_meant(self, cases: Path, arguments: list[str], message: str) -> None:
        done = self.run(cases, *arguments)
        assert done.exit_code == 2
        assert message in done.stderr
        assert done.stdout == ""

    def test_what_are_no_cases(self, tmp_path: Path) -> None:
        (tmp_path / "cases.jsonl").write_text('{"path": "a.py"}\n')
        done = self.run(tmp_path / "cases.jsonl", "--json")
        assert done.exit_code == 2
        assert "cases.jsonl:1: not a case" in done.stderr
        assert command.name == "eval"
