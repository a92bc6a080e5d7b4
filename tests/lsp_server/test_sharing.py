"""Which windows share an engine, before anything heavy is imported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lsp_server import sharing
from lsp_server.sharing import LARGE_BYTES, choice_of, is_shared


@pytest.mark.parametrize(
    ("forced", "options", "choice"),
    [
        (None, None, "never"),
        (None, {}, "never"),
        (None, {"shareEngine": "auto"}, "auto"),
        (None, {"shareEngine": "sometimes"}, "never"),
        (None, {"shareEngine": ["always"]}, "never"),
        (None, [], "never"),
        ("always", {"shareEngine": "never"}, "always"),
    ],
)
def test_the_choice(forced: str | None, options: object, choice: str) -> None:
    assert choice_of(forced, options) == choice


@pytest.mark.parametrize("choice", ["always", "never"])
def test_said_in_so_many_words(choice: str) -> None:
    for model, device in ((None, "cpu"), ("owner/name", "cuda")):
        assert is_shared(choice, model, device) == (choice == "always")


@pytest.mark.parametrize(
    ("device", "has_cuda", "expected"),
    [
        ("cpu", True, False),
        ("auto", False, False),
        ("auto", True, True),
        ("cuda:1", False, True),
        ("mps", False, True),
    ],
)
def test_auto_goes_by_the_device(
    monkeypatch: pytest.MonkeyPatch, device: str, has_cuda: bool, expected: bool
) -> None:
    monkeypatch.setattr(sharing, "_has_cuda", lambda: has_cuda)
    assert is_shared("auto", None, device) == expected


def test_a_home_that_nobody_has_is_no_folder() -> None:
    assert is_shared("auto", "~nobody-has-this-name/model", "cpu")


def test_auto_goes_by_the_weight(tmp_path: Path) -> None:
    # Holes, which weigh nothing here.
    for name in ("model-1.safetensors", "model-2.safetensors", "optimizer.bin"):
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, LARGE_BYTES // 2)
    assert not is_shared("auto", str(tmp_path), "cpu")
    os.truncate(tmp_path / "model-2.safetensors", LARGE_BYTES // 2 + 1)
    assert is_shared("auto", str(tmp_path), "cpu")
    assert is_shared("auto", "owner/name", "cpu")


class Driver:
    """NVIDIA's, of a machine with so many devices; `fails` is the function that does."""

    def __init__(self, n_devices: int, fails: str = "") -> None:
        self._n_devices, self._fails = n_devices, fails

    def cuInit(self, flags: int) -> int:
        assert flags == 0
        return 100 if self._fails == "cuInit" else 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self._n_devices
        return 3 if self._fails == "cuDeviceGetCount" else 0


@pytest.mark.parametrize(
    ("driver", "expected"),
    [
        (None, False),
        (Driver(1), True),
        (Driver(0), False),
        (Driver(1, "cuInit"), False),
        (Driver(1, "cuDeviceGetCount"), False),
    ],
    ids=["no driver", "a device", "no device", "hidden", "broken"],
)
def test_devices_are_the_drivers(
    monkeypatch: pytest.MonkeyPatch, driver: Driver | None, expected: bool
) -> None:
    def load(_name: str) -> Driver:
        if driver is None:
            raise OSError("no such library")
        return driver

    monkeypatch.setattr(sharing.ctypes, "CDLL", load)
    assert sharing._has_cuda() == expected


@pytest.mark.gpu
@pytest.mark.skipif(not Path("/dev/nvidiactl").exists(), reason="no NVIDIA GPU")
def test_the_driver_of_a_real_gpu() -> None:
    assert sharing._has_cuda()
