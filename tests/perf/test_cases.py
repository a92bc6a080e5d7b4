"""Cases cut from sources: they are the file, wherever the cursor is, and the same each time."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from perf.case_kinds import KINDS
from perf.cases import (
    Case,
    kind_cases,
    main,
    read_cases,
    uniform_cases,
    without_seen,
    write_cases,
)
from perf.source_files import SourceFile, read_sources
from training.corpus import calibration_half, pack

ROOT = Path(__file__).parents[2]
SOURCES = read_sources(ROOT / "engine")
TEXTS = {source.path: source.text for source in SOURCES}


def is_of_its_file(case: Case) -> bool:
    """Whether prefix, truth and suffix are the file but for blanks at the truth's end."""
    text = TEXTS[case.path]
    if not text.startswith(case.prefix + case.truth) or not text.endswith(case.suffix):
        return False
    return not text[len(case.prefix + case.truth) : len(text) - len(case.suffix)].strip()


def test_uniform_cases_are_the_rest_of_a_line() -> None:
    cases = uniform_cases(SOURCES, 200, seed=1)
    assert len(cases) == 200
    for case in cases:
        assert is_of_its_file(case)
        assert case.truth
        assert "\n" not in case.truth
        assert case.suffix[:1] in ("\n", "")
        assert not case.multiline
        assert case.language_id == "python"
    # Long files have more of them.
    by_path = Counter(case.path for case in cases)
    longest = max(TEXTS, key=lambda path: len(TEXTS[path]))
    assert by_path[longest] > 200 * len(TEXTS[longest]) / sum(map(len, TEXTS.values())) / 2


def test_cursors_are_uniform_over_characters() -> None:
    source = SourceFile(path="a.py", text="x = 1\n" + "y" * 94 + "\n\n   \n")
    cases = uniform_cases([source], 1000, seed=3)
    # Every character with something behind it, and none twice.
    assert len(cases) == 99
    assert {len(case.prefix) for case in cases} == {*range(5), *range(6, 100)}


def test_the_seed_makes_the_cases() -> None:
    assert uniform_cases(SOURCES, 30, seed=1) == uniform_cases(SOURCES, 30, seed=1)
    assert uniform_cases(SOURCES, 30, seed=1) != uniform_cases(SOURCES, 30, seed=2)
    assert kind_cases(SOURCES, 3, seed=1) == kind_cases(SOURCES, 3, seed=1)


def test_each_kind_has_its_number() -> None:
    cases = kind_cases(SOURCES, 12, seed=1)
    assert Counter(case.kind for case in cases) == dict.fromkeys(KINDS, 12)
    assert all(map(is_of_its_file, cases))
    by_kind = {kind: [case for case in cases if case.kind == kind] for kind in KINDS}
    assert all(case.prefix.endswith(".") for case in by_kind["after-dot"])
    for case in by_kind["mid-line"]:
        assert case.suffix.partition("\n")[0].strip()
    for case in by_kind["empty-body"]:
        assert case.multiline
        assert not case.prefix.rpartition("\n")[2].strip()


def test_one_kind_does_not_depend_on_the_others() -> None:
    alone = kind_cases(SOURCES, 5, seed=1, kinds=["comment"])
    assert alone == [case for case in kind_cases(SOURCES, 5, seed=1) if case.kind == "comment"]


def test_few_places_make_few_cases() -> None:
    assert kind_cases([SourceFile(path="a.py", text="x = 1\n")], 3, seed=1, kinds=["comment"]) == []
    assert uniform_cases([], 3, seed=1) == []
    assert len(uniform_cases([SourceFile(path="a.py", text="ab\n")], 9, seed=1)) == 2


class TestSeen:
    LINES = tuple(f"value_number_{n} = compute_something({n})" for n in range(9))

    def case(self, line: int, column: int) -> Case:
        before, after = self.LINES[line][:column], self.LINES[line][column:]
        prefix = "\n".join([*self.LINES[:line], before])
        suffix = "\n".join(["", *self.LINES[line + 1 :]])
        return Case(path="a.py", language_id="python", prefix=prefix, suffix=suffix, truth=after)

    def kept(self, case: Case, *texts: str) -> bool:
        seen = [SourceFile(path="b.py", text=text) for text in texts]
        return without_seen([case], seen) == [case]

    def test_a_line_with_the_two_below_it(self) -> None:
        case = self.case(3, 5)
        assert not self.kept(case, "import os\n    " + "\n    ".join(self.LINES[3:6]) + "\nx\n")
        assert self.kept(case, "\n".join(self.LINES[3:5]))
        assert self.kept(case, "\n".join([*self.LINES[3:5], self.LINES[6]]))
        assert self.kept(case, self.LINES[3], "\n".join(self.LINES[4:6]))
        assert self.kept(case)

    def test_short_lines_tell_nothing(self) -> None:
        case = self.case(3, 5)
        below = "\n".join([self.LINES[3], "", "else:", self.LINES[4], "}", self.LINES[5]])
        assert not self.kept(case, below)
        # The cursor's own line counts however short it is.
        short = replace(case, prefix=case.prefix[:-5] + "i", truth="f x:")
        assert not self.kept(short, "\n".join(["if x:", *self.LINES[4:6]]))
        assert self.kept(short, "\n".join(["if y:", *self.LINES[4:6]]))

    def test_what_is_seen_twice_goes_twice(self) -> None:
        cases = [self.case(3, 5), self.case(3, 8), self.case(5, 5)]
        text = "\n".join(self.LINES[3:6])
        assert without_seen(cases, [SourceFile(path="b.py", text=text)]) == cases[2:]


class TestFiles:
    def test_round_trip(self, tmp_path: Path) -> None:
        cases = kind_cases(SOURCES, 2, seed=1)
        # Line separators that are none in JSON.
        odd = replace(cases[0], prefix="a\u2028b\x0c", truth="ü🍰")
        write_cases([odd, *cases], tmp_path / "cases.jsonl")
        assert read_cases(tmp_path / "cases.jsonl") == [odd, *cases]
        assert read_cases(tmp_path / "cases.jsonl", limit=2) == [odd, cases[0]]

    def test_what_is_left_out_is_told_from_the_rest(self, tmp_path: Path) -> None:
        path = tmp_path / "cases.jsonl"
        fields = {"path": "a.go", "prefix": "x ", "suffix": "\n", "truth": ":= 1 \n y  "}
        path.write_text(json.dumps(fields) + "\n\n")
        (case,) = read_cases(path)
        assert (case.language_id, case.kind, case.multiline) == ("go", "any", True)
        assert case.truth == ":= 1 \n y"

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ('{"path": "a.py", "prefix": "", "suffix": ""}', "truth"),
            ('{"path": "a.py", "prefix": "", "suffix": "", "truth": " "}', "truth is blank"),
            ('{"path": "a.py", "prefix": 1, "suffix": "", "truth": "x"}', "prefix is 1"),
            (
                '{"path": "a", "prefix": "", "suffix": "", "truth": "x", "kind": []}',
                "kind is a list",
            ),
            (
                '{"path": "a", "prefix": "", "suffix": "", "truth": "x", "languageId": ["c"]}',
                "languageId is a list, expected text",
            ),
            ("[1]", "not a case: it is a list, expected an object"),
            ("[" * 100_000, "nested too deep"),
            ("{", "not a case"),
        ],
    )
    def test_what_is_no_case_is_named(self, tmp_path: Path, line: str, message: str) -> None:
        path = tmp_path / "cases.jsonl"
        good = json.dumps({"path": "a.py", "prefix": "", "suffix": "", "truth": "x"})
        path.write_text(f"{good}\n{line}\n")
        with pytest.raises(ValueError, match=rf"cases.jsonl:2: .*{message}"):
            read_cases(path)

    def test_no_cases_are_no_cases(self, tmp_path: Path) -> None:
        (tmp_path / "cases.jsonl").write_text("\n")
        with pytest.raises(ValueError, match="has no cases"):
            read_cases(tmp_path / "cases.jsonl")


class TestSources:
    def test_a_folder_without_what_nobody_typed(self, tmp_path: Path) -> None:
        for name, content in [
            ("a.py", b"x = 1\r\n"),
            ("sub/b.go", b"package b\n"),
            ("notes.txt", b"hello\n"),
            ("nul.py", b"\0\n"),
            ("latin.py", b"# \xe9\n"),
            ("empty.py", b"\n"),
            ("node_modules/c.js", b"x\n"),
            (".hidden/d.py", b"x\n"),
            ("large.py", b"x = 1\n" * 60_000),
        ]:
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        assert read_sources(tmp_path) == [
            SourceFile(path="a.py", text="x = 1\n"),
            SourceFile(path="sub/b.go", text="package b\n"),
        ]
        assert [each.path for each in read_sources(tmp_path / "a.py")] == ["a.py"]

    def test_a_corpus(self, tmp_path: Path) -> None:
        pack([("a/x.py", "x = 'ü'\n"), ("a/y.py", "y\n")]).save(tmp_path / "corpus.npz")
        assert read_sources(tmp_path / "corpus.npz") == [
            SourceFile(path="a/x.py", text="x = 'ü'\n"),
            SourceFile(path="a/y.py", text="y\n"),
        ]


class TestCommand:
    def run(self, *arguments: object) -> str:
        result = CliRunner().invoke(main, [str(each) for each in arguments])
        assert result.exit_code == 0, result.output
        return result.output

    def test_uniform_or_by_kind(self, tmp_path: Path) -> None:
        out = tmp_path / "cases.jsonl"
        assert "7 cases" in self.run(ROOT / "engine", out, "--n", 7)
        assert read_cases(out) == uniform_cases(SOURCES, 7, seed=1)
        self.run(ROOT / "engine", out, "--n", 2, "--kinds", "--seed", 4)
        assert read_cases(out) == kind_cases(SOURCES, 2, seed=4)

    def test_what_a_model_has_seen_is_left_out(self, tmp_path: Path) -> None:
        texts = [("a.py", "\n".join(TestSeen.LINES)), ("b.py", "one = 1\ntwo = 2\n")]
        pack(texts).save(tmp_path / "all.npz")
        pack(texts[:1]).save(tmp_path / "train.npz")
        out = tmp_path / "cases.jsonl"
        told = self.run(tmp_path / "all.npz", out, "--n", 40, "--unlike", tmp_path / "train.npz")
        cases = read_cases(out)
        assert {case.path for case in cases} == {"b.py"}
        assert f"{len(cases)} cases in" in told
        assert "61 were left out" in told

    def test_results_come_from_files_that_nothing_was_fitted_on(self, tmp_path: Path) -> None:
        paths = {}
        for half in ("calibration", "results"):
            out = tmp_path / f"{half}.jsonl"
            self.run(ROOT / "engine", out, "--n", 200, "--half", half)
            paths[half] = {case.path for case in read_cases(out)}
            assert len(paths[half]) > 3
        assert all(map(calibration_half, paths["calibration"]))
        assert not any(map(calibration_half, paths["results"]))

    def test_nothing_to_cut_from(self, tmp_path: Path) -> None:
        result = CliRunner().invoke(main, [str(tmp_path), str(tmp_path / "cases.jsonl")])
        assert result.exit_code == 1
        assert "expected source files" in result.output
