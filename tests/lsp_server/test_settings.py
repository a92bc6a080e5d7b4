from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lsp_server.settings import FIELDS, START_ONLY, Settings, read_settings

ROOT = Path(__file__).parents[2]
VSCODE = ROOT / "editor-clients/vscode"


@pytest.mark.parametrize("nothing", [None, {}])
def test_defaults(nothing: object) -> None:
    assert read_settings(nothing, {}) == (Settings(), [])


def test_every_setting_is_taken() -> None:
    options = {
        "model": "/models/tiny",
        "device": "cpu",
        "quantize": "int8",
        "threads": 1,
        "shareEngine": "auto",
        "deadlineMs": 250,
        "invokedDeadlineMs": 2500.5,
        "maxTokens": 32,
        "minConfidence": 0.5,
        "saveStates": False,
        "enabled": False,
        "languages": {"markdown": False, "*": True},
        "exclude": ["**/gen/**", "*.min.js"],
        "readWorkspace": False,
        "maxFileChars": 10,
        "speculateOnBattery": True,
        "statistics": False,
    }
    assert options.keys() == FIELDS.keys()
    settings, problems = read_settings(options, {})
    assert problems == []
    assert settings == Settings(
        model="/models/tiny",
        device="cpu",
        quantize="int8",
        threads=1,
        share_engine="auto",
        deadline_ms=250.0,
        invoked_deadline_ms=2500.5,
        max_tokens=32,
        min_confidence=0.5,
        save_states=False,
        enabled=False,
        languages={"markdown": False, "*": True},
        exclude=("**/gen/**", "*.min.js"),
        read_workspace=False,
        max_file_chars=10,
        speculate_on_battery=True,
        statistics=False,
    )


def documented(page: Path, before: str) -> list[str]:
    """The names that stand in the first column of a table, after `before`."""
    return re.findall(rf"^\| `{re.escape(before)}(\w+)` \|", page.read_text(), re.MULTILINE)


def test_every_setting_is_documented() -> None:
    assert sorted(documented(ROOT / "README.md", "")) == sorted(FIELDS)
    assert FIELDS.keys() <= {*documented(VSCODE / "README.md", "keystate.")}


def test_vs_code_has_every_setting_and_sends_it() -> None:
    (sent,) = re.findall(
        r"SERVER_KEYS = \[([^]]*)\]", (VSCODE / "src/settings.ts").read_text(encoding="utf-8")
    )
    assert sorted(re.findall(r'"(\w+)"', sent)) == sorted(FIELDS)
    manifest = json.loads((VSCODE / "package.json").read_text(encoding="utf-8"))
    offered = {}
    for part in manifest["contributes"]["configuration"]:
        offered.update(part["properties"])
    for key, name in FIELDS.items():
        told = offered[f"keystate.{key}"]
        if name in START_ONLY:
            assert told["scope"] == "machine", key
        default = getattr(Settings(), name)
        if isinstance(default, bool):
            assert told["default"] is default, key


def test_unknown_keys_are_named() -> None:
    settings, problems = read_settings({"maxTokens": 8, "modle": "x", "debounce": 1}, {})
    assert settings == Settings(max_tokens=8)
    assert problems[0] == "unknown setting modle: did you mean model?"
    assert problems[1].startswith("unknown setting debounce: there are model, device, ")
    assert len(problems) == 2


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("max_tokens", "maxTokens"),
        ("MAXTOKENS", "maxTokens"),
        ("deadline", "deadlineMs"),
        ("language", "languages"),
        ("enable", "enabled"),
        ("minConfidance", "minConfidence"),
    ],
)
def test_the_nearest_name_is_told(key: str, nearest: str) -> None:
    _, problems = read_settings({key: 1}, {})
    assert problems == [f"unknown setting {key}: did you mean {nearest}?"]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("deadlineMs", "300", "'300' is not a float"),
        ("deadlineMs", 0, "deadline_ms is 0.0, expected 1 to 600000"),
        ("deadlineMs", True, "True is not a float"),
        ("deadlineMs", float("nan"), "deadline_ms is nan"),
        pytest.param("deadlineMs", 10**400, "int too large to convert to float", id="huge"),
        ("maxTokens", 8.5, "8.5 is not a int"),
        ("maxTokens", 0, "max_tokens is 0, expected 1"),
        ("maxTokens", None, "None is not a int"),
        ("minConfidence", 1.5, "min_confidence is 1.5, expected 0 to 1"),
        ("minConfidence", "high", "'high'"),
        ("threads", 0, "threads is 0, expected 1"),
        ("model", "", "model is empty"),
        ("shareEngine", "maybe", "share_engine is 'maybe', expected auto, always, never"),
        ("model", ["x"], "['x'] is not a str"),
        ("enabled", 1, "1 is not true or false"),
        ("languages", ["python"], "['python'] is not an object of languages"),
        ("languages", {"python": "on"}, "is not an object of languages"),
        ("exclude", "**/gen/**", "'**/gen/**' is not a list of globs"),
        ("exclude", [1], "[1] is not a list of globs"),
        ("maxFileChars", -1, "max_file_chars is -1, expected 0 to"),
    ],
)
def test_a_bad_value_is_told_and_the_default_kept(key: str, value: object, said: str) -> None:
    settings, problems = read_settings({key: value, "device": "cpu"}, {})
    assert settings == Settings(device="cpu")
    assert len(problems) == 1
    assert problems[0].startswith(f"setting {key}: ")
    assert said in problems[0]


def test_options_that_are_no_object() -> None:
    settings, problems = read_settings([1], {})
    assert settings == Settings()
    assert problems == ["initializationOptions is a list, expected an object"]


def test_the_command_line_wins() -> None:
    settings, problems = read_settings({"model": "theirs", "maxTokens": 8}, {"model": "ours"})
    assert settings == Settings(model="ours", max_tokens=8)
    assert problems == []
