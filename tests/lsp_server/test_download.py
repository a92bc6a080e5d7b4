"""A model from a hub: what the client sees while it is downloaded and loaded."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from lsp_server import status as status_module
from lsp_server.status import STATUS
from lsp_server.suggestions import Suggester
from tests.loopback_hub import serve_folder
from tests.lsp_server.conftest import OPTIONS
from tests.lsp_server.server_bench import Bench

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lsp_server.settings import Settings

HUB_ID = "owner/tiny"
LIMIT_S = 60


class HubBench(Bench):
    """Loads what the settings name, as soon as it may."""

    def __init__(self) -> None:
        self.may_load = threading.Event()
        super().__init__()

    def _load(self, settings: Settings, on_progress: Callable[[str, float], None]) -> Any:
        assert self.may_load.wait(LIMIT_S)
        return Suggester.load(settings, on_progress)


@pytest.mark.asyncio
async def test_the_client_is_told(
    model_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_module, "PROGRESS_S", 0.0)
    with serve_folder(model_directory, HUB_ID, tmp_path, monkeypatch) as downloaded:
        bench = HubBench()
        capabilities = {
            "window": {"workDoneProgress": True},
            "experimental": {"keystateStatus": True},
        }
        await bench.initialized({**OPTIONS, "model": HUB_ID}, capabilities)
        await bench.answer("window/workDoneProgress/create", None)
        bench.may_load.set()
        loaded = await asyncio.wait_for(bench.server.suggester(None), LIMIT_S)
        await bench.settle()
    assert loaded is not None, bench.told(STATUS)[-1]
    loaded.close()
    assert "model.safetensors" in downloaded

    messages = [told["message"] for told in bench.told(STATUS)]
    assert (messages[0], messages[-1]) == ("loading the model", "ready")
    whats = list(dict.fromkeys(message.rpartition(":")[0] for message in messages[1:-1]))
    assert whats == [f"downloading {HUB_ID}", "loading the model"]
    begin, *reports, end = (told["value"] for told in bench.told("$/progress"))
    assert begin["message"] == f"loading {HUB_ID}"
    shares = [one["percentage"] for one in reports if one["message"] == whats[0]]
    assert len(set(shares)) > 3
    assert shares[-1] == 100
    assert [one["message"] for one in reports][-1] == whats[1]
    assert end["kind"] == "end"
