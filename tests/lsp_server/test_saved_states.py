"""What a server leaves of what was saved on disk, by whether its user wants anything saved."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import pytest

from lsp_server.private_files import NO_STATES, STATES, states_folder
from lsp_server.settings import Settings
from lsp_server.suggestions import Suggester
from perf.client import Client, ServerGone
from tests.lsp_server.server_bench import Bench

if TYPE_CHECKING:
    from pathlib import Path

    from engine.engine import Engine

LIMIT_S = 60


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of states of a model that nobody runs here."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = states_folder() / f"{'0' * 16}-torch.float32" / f"{'0' * 32}.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"states")
    return path


async def load_model(save_states: bool) -> None:
    """Have a server load its model, and end."""
    bench = Bench()
    try:
        await bench.initialized({"saveStates": save_states})
        await asyncio.wait_for(bench.load(), LIMIT_S)
    finally:
        bench.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("save_states", [True, False])
async def test_a_server_that_saves_none_deletes_those_that_were(
    saved: Path, save_states: bool
) -> None:
    await load_model(save_states)
    assert saved.exists() == save_states
    assert (files := list(states_folder().iterdir())) == [saved.parent] * save_states, files


@pytest.mark.asyncio
@pytest.mark.parametrize("save_states", [True, False])
async def test_a_server_that_is_measured_leaves_them_alone(
    saved: Path, save_states: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STATES, NO_STATES)
    await load_model(save_states)
    assert saved.exists()


def test_a_server_that_is_measured_has_none_of_its_own(
    saved: Path, stepped: Suggester, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = []

    def load(*_: object, states_folder: Path | None, **__: object) -> Engine:
        folders.append(states_folder)
        return stepped.engine

    monkeypatch.setattr("lsp_server.suggestions.Engine.load", load)
    Suggester.load(Settings(device="cpu"))
    monkeypatch.setenv(STATES, NO_STATES)
    Suggester.load(Settings(device="cpu")).close()
    assert folders == [saved.parents[1], None]


@pytest.mark.asyncio
async def test_what_measures_a_server_says_so_to_it() -> None:
    program = f"import os, sys; sys.stdout.write(os.environ['{STATES}'])"
    async with (
        asyncio.timeout(LIMIT_S),
        await Client.start((sys.executable, "-S", "-c", program)) as client,
    ):
        with pytest.raises(ServerGone, match=NO_STATES):
            await client.initialize()


def test_a_command_that_saves_none_deletes_none(
    saved: Path, stepped: Suggester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `keystate complete` does, beside an editor that is open."""
    monkeypatch.setattr("lsp_server.suggestions.Engine.load", lambda *_, **__: stepped.engine)
    Suggester.load(Settings(device="cpu", save_states=False)).close()
    assert saved.exists()
