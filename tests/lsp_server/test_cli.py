from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import click
import pytest
from click.testing import CliRunner, Result

from lsp_server.cli import COMMANDS, main
from lsp_server.commands import doctor
from lsp_server.commands.complete import checked_position, read_document
from lsp_server.documents import Document, Position

if TYPE_CHECKING:
    from pathlib import Path

    from lsp_server.suggestions import Suggester

TEXT = "import os\n\n\ndef total(items):\n    result = 0\n    for item in items:\n        # \n"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def broken(result: Result) -> str:
    """The one line of an error that ends a command with exit code 2."""
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line.removeprefix("Error: ")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.py"
    path.write_bytes(TEXT.encode())
    return path


class TestComplete:
    def test_json(self, source: Path, model_directory: Path) -> None:
        result = run(
            *("complete", source, "--line", 6, "--character", 10, "--json"),
            *("--model", model_directory, "--max-tokens", 8),
        )
        assert result.exit_code == 0, result.output
        answer = json.loads(result.stdout)
        (item,) = answer["items"]
        at = {"line": 6, "character": 10}
        assert item["range"] == {"start": at, "end": at}
        assert item["insertText"]
        assert answer["model"] == model_directory.name
        assert answer["device"] == "cpu"
        assert set(answer["tokens"]) == {"prompt", "recomputed", "generated"}
        assert 0 < answer["tokens"]["generated"] <= 8
        assert answer["prompt_kind"] == "epoch"
        assert answer["stop"] in ("line", "eos", "limit")
        stages = ("parse", "context", "queue", "trim", "total")
        assert set(stages) < set(answer["timings_ms"])

    def test_raw_has_all_the_tokens(
        self, source: Path, model_directory: Path, suggester: Suggester
    ) -> None:
        result = run(
            *("complete", source, "--line", 4, "--character", 0, "--json"),
            *("--model", model_directory, "--raw", "--max-tokens", 40),
        )
        answer = json.loads(result.stdout)
        assert answer["tokens"]["generated"] == 40
        assert answer["stop"] == "limit"

    def test_text_alone(self, source: Path, model_directory: Path) -> None:
        arguments = (
            *("complete", source, "--line", 6, "--character", 10),
            *("--model", model_directory, "--max-tokens", 8),
        )
        plain, as_json = run(*arguments), run(*arguments, "--json")
        (item,) = json.loads(as_json.stdout)["items"]
        assert plain.stdout == item["insertText"] + "\n"

    @pytest.mark.parametrize(
        ("line", "character", "said"),
        [
            (8, 0, "line 8 is past the end: the last line is 7"),
            (0, 10, "character 10 is past the end of line 0: it has 9"),
            (2, 1, "character 1 is past the end of line 2: it has 0"),
        ],
    )
    def test_a_position_past_the_end(
        self, source: Path, line: int, character: int, said: str
    ) -> None:
        result = run("complete", source, "--line", line, "--character", character)
        assert broken(result) == said

    def test_bytes_that_are_not_utf8(self, source: Path, model_directory: Path) -> None:
        source.write_bytes(b"# \xff\xfe caf\xe9 \xf0\x9f\x8e\x89\nvalue = \n")
        document = read_document(source)
        assert document.lines[0] == "# \ufffd\ufffd caf\ufffd 🎉\n"
        result = run(
            *("complete", source, "--line", 0, "--character", 12, "--json"),
            *("--model", model_directory, "--max-tokens", 4),
        )
        assert result.exit_code == 0
        assert result.stderr.splitlines()[0] == (
            f"{source}: not UTF-8 (first at byte 2); 3 replaced by U+FFFD"
        )
        answer = json.loads(result.stdout)
        assert all(item["range"]["start"]["character"] == 12 for item in answer["items"])

    def test_a_file_with_nul_bytes(self, source: Path, model_directory: Path) -> None:
        source.write_bytes(b"x = \0\0\n")
        result = run(
            *("complete", source, "--line", 0, "--character", 6, "--json"),
            *("--model", model_directory, "--max-tokens", 4),
        )
        assert result.exit_code == 0
        assert "items" in json.loads(result.stdout)

    @pytest.mark.parametrize(
        ("missing", "said"),
        [
            ("tokenizer.model", "has no tokenizer"),
            ("model.safetensors", "model*.safetensors"),
            ("config.json", "config.json"),
        ],
    )
    def test_a_model_that_is_not_whole(
        self, source: Path, model_directory: Path, tmp_path: Path, missing: str, said: str
    ) -> None:
        copy = shutil.copytree(model_directory, tmp_path / "model")
        (copy / missing).unlink()
        result = run("complete", source, "--line", 0, "--character", 0, "--model", copy)
        assert said in broken(result)
        assert str(copy) in broken(result)

    def test_a_device_that_is_not_there(self, source: Path, model_directory: Path) -> None:
        result = run(
            *("complete", source, "--line", 0, "--character", 0),
            *("--model", model_directory, "--device", "toaster"),
        )
        assert broken(result).startswith("device is 'toaster', expected one that works here")

    def test_a_path_outside_is_its_name_alone(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert read_document(source).path == "a.py"
        monkeypatch.chdir(tmp_path.parent)
        assert read_document(source).path == f"{tmp_path.name}/a.py"
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert read_document(source).path == "a.py"


@pytest.mark.parametrize(
    ("line", "character", "fits"),
    [(0, 0, True), (0, 4, True), (0, 5, False), (1, 0, True), (1, 1, False), (2, 0, False)],
)
def test_checked_position(line: int, character: int, fits: bool) -> None:
    document = Document("a", "plaintext", 0, "🎉ab\r\n")
    if fits:
        assert checked_position(document, line, character) == Position(line, character)
    else:
        with pytest.raises(ValueError, match="past the end"):
            checked_position(document, line, character)


class TestInspect:
    def test_json(self, model_directory: Path) -> None:
        answer = json.loads(run("inspect", model_directory, "--json").stdout)
        assert answer["family"] == "mamba2"
        assert answer["layout"] == "huggingface"
        assert answer["parameters"] > 1_000_000
        assert answer["config"]["d_model"] == 64
        assert answer["state_bytes"]["total"] > 0

    def test_text(self, model_directory: Path) -> None:
        result = run("inspect", model_directory)
        assert result.exit_code == 0
        assert "parameters   1,109,360 (float32)" in result.stdout
        assert "d_model            64" in result.stdout

    def test_no_such_model(self) -> None:
        assert "'no such model'" in broken(run("inspect", "no such model"))


class TestDoctor:
    def test_all_is_well(self, model_directory: Path) -> None:
        result = run("doctor", "--model", model_directory, "--json")
        assert result.exit_code == 0, result.output
        checks = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
        assert all(check["ok"] for check in checks.values())
        assert {"python", "torch", "grammars", "device", "model", "completion"} < set(checks)
        assert "golden text" not in checks
        assert re.match(r"\d+ ms for \d+ tokens after \d+: ", checks["completion"]["detail"])

    def test_a_broken_model(self, tmp_path: Path) -> None:
        result = run("doctor", "--model", tmp_path, "--json")
        assert result.exit_code == 1
        checks = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
        assert not checks["model"]["ok"]
        assert str(tmp_path) in checks["model"]["detail"]
        assert "completion" not in checks
        assert checks["torch"]["ok"]

    def test_weights_that_are_no_numbers(
        self, suggester: Suggester, model_directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from engine.checkpoint import load_model

        doctor.check_numbers(suggester.engine)
        damaged = load_model(model_directory)
        damaged.backbone.norm_f.weight[0] = math.nan
        monkeypatch.setattr(suggester.engine, "model", damaged)
        with pytest.raises(ValueError, match="its weights are damaged"):
            doctor.check_numbers(suggester.engine)

    def test_in_words(self, tmp_path: Path) -> None:
        result = run("doctor", "--model", tmp_path, "--device", "toaster")
        assert result.exit_code == 1
        assert result.stdout.splitlines()[-1] == "broken: device"
        assert "Traceback" not in result.output

    def test_a_package_that_is_missing(self) -> None:
        with pytest.raises(ValueError, match="pip install no-such-package"):
            doctor.version_of("no-such-package")

    def test_the_golden_prompt_is_mistrals(self) -> None:
        pytest.importorskip("mistral_common")
        from pathlib import Path

        import mistral_common
        from sentencepiece import SentencePieceProcessor

        from engine.tokenizer import Tokenizer

        data = Path(mistral_common.__file__).parent / "data"
        file = data / "mistral_instruct_tokenizer_240323.model.v3"
        processor = SentencePieceProcessor(model_file=str(file))
        tokenizer = Tokenizer(processor, str(file))
        pieces = processor.id_to_piece(doctor.golden_prompt(tokenizer))
        assert pieces[:3] == ["<s>", "[INST]", "▁Write"]
        assert pieces[-2:] == [".", "[/INST]"]
        engine = SimpleNamespace(tokenizer=tokenizer, model=SimpleNamespace(parameters=list))
        assert not doctor.is_codestral(engine)  # type: ignore[arg-type]

    def test_greedy_is_the_models_own_continuation(self, suggester: Suggester) -> None:
        engine = suggester.engine
        prompt = engine.tokenizer.encode("def main():\n")
        ids = doctor.greedy(engine, prompt, 6)
        for n in range(6):
            hidden, _ = engine.model.prefill(_tensor([*prompt, *ids[:n]]))
            assert ids[n] == int(engine.model.logits(hidden[0, -1]).argmax())

    def test_golden_text_of_other_weights(
        self, suggester: Suggester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(ValueError, match=r"the weights answer .* expected ' Sure, here"):
            doctor._golden(suggester.engine)
        tokenizer = suggester.engine.tokenizer
        golden = tokenizer.encode(doctor.GOLDEN_ANSWER)
        monkeypatch.setattr(doctor, "greedy", lambda *_: golden)
        assert doctor._golden(suggester.engine) == doctor.GOLDEN_ANSWER.strip()


def _tensor(ids: list[int]) -> Any:
    import torch

    return torch.tensor([ids])


class TestMain:
    def test_help_lists_every_command(self) -> None:
        result = run("--help")
        assert result.exit_code == 0
        for name in COMMANDS:
            assert re.search(rf"^  {name} ", result.stdout, re.MULTILINE)

    @pytest.mark.parametrize("value", ["nan", "inf", "-1"])
    def test_a_time_is_a_finite_number(self, value: str) -> None:
        result = run("serve", "--idle-s", value)
        assert result.exit_code == 2
        assert value in result.stderr.splitlines()[-1]

    def test_an_unknown_command(self) -> None:
        result = run("complet")
        assert result.exit_code == 2
        assert "complet" in result.stderr

    @pytest.mark.parametrize("raised", [ValueError("a\n  b"), OSError("a b"), ImportError("a b")])
    def test_an_error_is_one_line(self, monkeypatch: pytest.MonkeyPatch, raised: Exception) -> None:
        def fail() -> None:
            raise raised

        command = click.command("fail")(fail)
        monkeypatch.setitem(sys.modules, "failing", SimpleNamespace(command=command))
        monkeypatch.setitem(COMMANDS, "fail", "failing")
        assert broken(run("fail")) == "a b"

    def test_threads_wait_without_spinning(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
        run("inspect", "no such model")
        assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
        monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
        run("inspect", "no such model")
        assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"

    def test_help_does_not_import_torch(self) -> None:
        program = (
            "import sys\nfrom lsp_server.cli import main\n"
            "main(['--help'], standalone_mode=False)\nassert 'torch' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


class TestDemo:
    def test_into_a_pipe(self, model_directory: Path, source: Path) -> None:
        functions = (f"def f{n}():\n    return os.getcwd()\n\n" for n in range(9))
        source.write_text("import os\n\n" + "".join(functions) + "print(f0())\n")
        result = run("demo", source, "--fast", "--model", model_directory)
        assert result.exit_code == 0, result.output
        assert re.search(r"first suggestion +\d+\.\d+ s after the server started", result.stdout)
        assert re.search(r"latency +p50 \d+ ms, p95 \d+ ms", result.stdout)
        answers = re.findall(r"^line +\d+ +[\d.]+ ms  ", result.stdout, re.MULTILINE)
        assert len(answers) > 20
        assert source.read_text().endswith("print(f0())\n")

    def test_a_model_that_does_not_load(self, tmp_path: Path) -> None:
        result = run("demo", "--fast", "--model", tmp_path)
        assert result.exit_code == 2
        assert str(tmp_path) in result.stderr
        assert "Traceback" not in result.output

    def test_a_file_too_short(self, source: Path) -> None:
        source.write_text("x = 1\n")
        said = broken(run("demo", source))
        assert said == "a.py has 1 lines with text, expected 3 or more"


@pytest.fixture(autouse=True)
def _keep_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command sets this for its own process; tests share one."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
