from __future__ import annotations

import pytest

from lsp_server.settings import Settings, read_settings


@pytest.mark.parametrize("nothing", [None, {}])
def test_defaults(nothing: object) -> None:
    assert read_settings(nothing, {}) == (Settings(), [])


def test_every_setting_is_taken() -> None:
    options = {
        "model": "/models/tiny",
        "device": "cpu",
        "threads": 1,
        "deadlineMs": 250,
        "invokedDeadlineMs": 2500.5,
        "maxTokens": 32,
    }
    settings, problems = read_settings(options, {})
    assert problems == []
    assert settings == Settings(
        model="/models/tiny",
        device="cpu",
        threads=1,
        deadline_ms=250.0,
        invoked_deadline_ms=2500.5,
        max_tokens=32,
    )


def test_unknown_keys_are_named() -> None:
    settings, problems = read_settings({"maxTokens": 8, "modle": "x", "debounce": 1}, {})
    assert settings == Settings(max_tokens=8)
    assert len(problems) == 1
    assert problems[0].startswith("unknown settings: debounce, modle ")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("deadlineMs", "300", "'300' is not a float"),
        ("deadlineMs", 0, "deadline_ms is 0.0, expected 1 to 600000"),
        ("deadlineMs", True, "True is not a float"),
        ("deadlineMs", float("nan"), "deadline_ms is nan"),
        ("maxTokens", 8.5, "8.5 is not a int"),
        ("maxTokens", 0, "max_tokens is 0, expected 1"),
        ("maxTokens", None, "None is not a int"),
        ("threads", 0, "threads is 0, expected 1"),
        ("model", "", "model is empty"),
        ("model", ["x"], "['x'] is not a str"),
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
