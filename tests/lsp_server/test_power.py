"""Whether the machine runs on its battery, and what the server leaves undone then."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import pytest

from lsp_server import power
from lsp_server.power import Power, on_battery, supplies_say

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lsp_server.server_bench import Bench

BATTERY = {"type": "Battery", "status": "Discharging", "scope": "System"}
MOUSE = {"type": "Battery", "status": "Discharging", "scope": "Device"}
FULL = {"type": "Battery", "status": "Full"}


@pytest.mark.parametrize(
    ("supplies", "said"),
    [
        ([], False),
        ([BATTERY], True),
        ([BATTERY, {"type": "Mains", "online": "0"}], True),
        ([BATTERY, {"type": "Mains", "online": "1"}], False),
        ([{"type": "USB", "online": "1"}, BATTERY], False),
        ([{"type": "Mains", "online": "0"}, FULL], False),
        ([MOUSE], False),
        ([{}], False),
    ],
)
def test_what_linux_says(tmp_path: Path, supplies: list[dict[str, str]], said: bool) -> None:
    for n, supply in enumerate(supplies):
        (tmp_path / str(n)).mkdir()
        for name, value in supply.items():
            (tmp_path / str(n) / name).write_text(value + "\n")
    assert supplies_say(tmp_path) is said
    assert supplies_say(tmp_path / "not there") is False


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere other tools are asked")
def test_this_machine_gives_an_answer() -> None:
    assert on_battery() in (True, False)


def test_asked_off_the_loop_and_not_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    class Thread:
        def __init__(self, target: object, **_: object) -> None:
            threads.append(target)

        def start(self) -> None:
            pass

    monkeypatch.setattr(power.threading, "Thread", Thread)
    monkeypatch.setattr(power, "on_battery", lambda: True)
    at = [100.0]
    monkeypatch.setattr(power.time, "monotonic", lambda: at[0])
    asked = Power()
    assert [asked.is_on_battery() for _ in range(3)] == [False] * 3
    (look,) = threads
    look()  # type: ignore[operator]
    assert asked.is_on_battery()
    at[0] += power.FRESH_S + 1
    assert asked.is_on_battery()
    assert len(threads) == 2


@pytest.mark.parametrize("error", [OSError("no"), AttributeError("no"), ValueError("no")])
def test_a_system_that_does_not_say(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail() -> bool:
        raise error

    monkeypatch.setattr(power, "on_battery", fail)
    asked = Power()
    asked._look()
    assert not asked._is_on_battery


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("is_on_battery", "section", "n_read_ahead"),
    [(True, {}, 0), (True, {"speculateOnBattery": True}, 1), (False, {}, 1)],
)
async def test_nothing_is_read_ahead_on_battery_unless_asked(
    ready_bench: Bench, is_on_battery: bool, section: dict[str, bool], n_read_ahead: int
) -> None:
    bench = ready_bench
    bench.server._power._is_on_battery = is_on_battery
    bench.server._power._asked_s = asyncio.get_running_loop().time() + 1e6
    settings = {"settings": {"keystate": section}}
    bench.tell("workspace/didChangeConfiguration", settings)
    bench.insert("y", 1)
    await bench.settle()
    assert len(bench.suggester.prepared) == n_read_ahead
    bench.complete(trigger=1)
    await bench.settle()
    # What is asked for is worked on all the same.
    assert len(bench.suggester.asked) == 1
