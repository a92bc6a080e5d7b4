"""Quantized models by the commands and settings: at load, stored, and shared between windows."""

from __future__ import annotations

import json
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest

from lsp_server.cli import main
from lsp_server.configuration import Configuration
from lsp_server.settings import Settings, read_settings
from lsp_server.shared_address import HostAddress
from lsp_server.shared_host import SharedHost
from lsp_server.shared_window import chosen_model, start_host
from lsp_server.suggestions import Suggester
from tests.lsp_server.test_cli import broken, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KINDS: dict[str | None, int | None] = {None: None, "int8": 8, "int4": 4}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.py"
    path.write_text("def total(items):\n    ")
    return path


def loaded(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int | None:
    """Run `complete`; gives the bits of the model that answered."""
    seen: list[Suggester] = []
    load = Suggester.load

    def watched(settings: Settings, on_progress: Callable[[str, float], None]) -> Suggester:
        shares: list[float] = []

        def progress(what: str, share: float) -> None:
            shares.append(share)
            on_progress(what, share)

        seen.append(load(settings, progress))
        assert shares[-1] == 1.0
        return seen[0]

    monkeypatch.setattr(Suggester, "load", watched)
    result = run("complete", "a.py", "--line", 1, "--character", 4, "--json", *arguments)
    monkeypatch.undo()
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["tokens"]["prompt"] > 0
    quantization = seen[0].engine.model.config.quantization
    return None if quantization is None else quantization.bits


def test_quantized_at_load(
    source: Path, model_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--model", model_directory, "--max-tokens", 2)
    assert loaded(monkeypatch, *options, "--quantize", "int8") == 8


def test_stored_and_loaded(
    source: Path, model_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run("quantize", model_directory, "small", "--to", "int8")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("small: ")
    assert loaded(monkeypatch, "--model", source.parent / "small", "--max-tokens", 2) == 8
    inspected = json.loads(run("inspect", source.parent / "small", "--json").stdout)
    assert inspected["config"]["quantization"]["bits"] == 8
    problem = broken(run("quantize", source.parent / "small", "smaller", "--to", "int4"))
    assert "int8 already" in problem
    # 64 wide.
    problem = broken(run("quantize", model_directory, "smaller", "--to", "int4"))
    assert "d_model is 64, expected a multiple of 128 for int4: quantize to int8" in problem
    assert not (source.parent / "smaller").exists()


@pytest.mark.parametrize("command", ["complete", "serve", "eval", "quantize"])
def test_other_kinds_are_refused(command: str, source: Path) -> None:
    option = "--to" if command == "quantize" else "--quantize"
    result = run(command, option, "int3", *(["a", "b"] if command == "quantize" else ["a.py"]))
    assert result.exit_code == 2
    assert "'int3' is not one of 'int8', 'int4'" in result.stderr


def test_a_setting_of_the_start_alone() -> None:
    settings, problems = read_settings({"quantize": "int4"}, {})
    assert (settings.quantize, problems) == ("int4", [])
    settings, problems = read_settings({"quantize": "int4"}, {"quantize": "int8"})
    assert (settings.quantize, problems) == ("int8", [])
    settings, problems = read_settings({"quantize": "int3"}, {})
    assert settings.quantize is None
    assert problems == ["setting quantize: quantize is 'int3', expected int8 or int4"]
    configuration = Configuration({})
    configuration.start({})
    configuration.change({"quantize": "int8"})
    assert configuration.settings.quantize is None


def test_the_suggester_loads_what_the_setting_says(
    model_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in (None, "int8"):
        settings = Settings(
            model=str(model_directory), device="cpu", quantize=kind, save_states=False
        )
        suggester = Suggester.load(settings)
        quantization = suggester.engine.model.config.quantization
        suggester.close()
        assert (quantization and quantization.bits) == KINDS[kind]


class TestShared:
    def test_windows_with_other_weights_have_another_host(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        addresses = {HostAddress.of(None, "auto", kind).name for kind in KINDS}
        assert len(addresses) == 3
        assert HostAddress.of(None, "auto").name in addresses

    @pytest.mark.parametrize(
        ("options", "forced", "expected"),
        [
            ({}, {}, None),
            ({"quantize": "int8"}, {}, "int8"),
            ({"quantize": "int8"}, {"quantize": "int4"}, "int4"),
            # The server would say so, and take the weights as they are.
            ({"quantize": "int3"}, {}, None),
            ({"quantize": ["int8"]}, {}, None),
            (None, {}, None),
        ],
    )
    def test_chosen_as_the_server_would(
        self, options: Any, forced: dict[str, str], expected: str | None
    ) -> None:
        assert chosen_model(options, forced)[2] == expected
        assert read_settings(options, forced)[0].quantize == expected

    @pytest.mark.parametrize("kind", [None, "int8"])
    def test_the_host_is_started_with_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str | None
    ) -> None:
        commands: list[list[str]] = []
        monkeypatch.setattr(
            "lsp_server.shared_window.subprocess.Popen",
            lambda command, **_options: commands.append(command),
        )
        start_host(HostAddress(folder=tmp_path, name="a"), None, "cpu", kind)
        ((_, *command),) = commands
        arguments = command[command.index("serve") :]
        # What the command line of a host makes of it.
        with main.make_context("keystate", arguments[:]) as context:
            serve = main.get_command(context, "serve")
            assert serve is not None
            assert serve.make_context("serve", arguments[1:]).params["quantize"] == kind

    @pytest.mark.asyncio
    async def test_the_host_loads_its_own(self, tmp_path: Path) -> None:
        """Whatever the first window's client sent."""
        seen: list[Settings] = []

        def load(settings: Settings, _on_progress: Callable[[str, float], None]) -> Suggester:
            seen.append(settings)
            raise ValueError("no model here")

        address = HostAddress(folder=tmp_path, name="a")
        for forced in ({"quantize": "int8"}, {}):
            load_of_window = SharedHost(address, forced, 1.0, lambda: load)._loader(1, Event())
            with pytest.raises(ValueError, match="no model here"):
                load_of_window(Settings(quantize="int4"), lambda _what, _share: None)
        assert [settings.quantize for settings in seen] == ["int8", None]
