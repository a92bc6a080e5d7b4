"""A whole tiny checkpoint, and a server that runs on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

import engine as engine_package
from engine.engine import Engine
from engine.tokenizer import Tokenizer
from lsp_server.settings import Settings
from lsp_server.suggestions import Suggester
from perf.client import SERVER_COMMAND, Client
from tests.lsp_server.desk import Desk
from tests.lsp_server.server_bench import Bench

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

TOKENIZER = Path(engine_package.__file__).parent / "embedded" / "tokenizer.model"
# Generous: a loaded machine must not turn an answer into a deadline.
OPTIONS = {
    "deadlineMs": 60_000,
    "invokedDeadlineMs": 60_000,
    "maxTokens": 8,
    "threads": 1,
    "saveStates": False,
}


@pytest.fixture(scope="session")
def suggester(model_directory: Path) -> Iterator[Suggester]:
    """What the server runs, in this process, on the same model."""
    suggester = Suggester.load(
        Settings(model=str(model_directory), max_tokens=8, save_states=False)
    )
    yield suggester
    suggester.close()


@pytest.fixture
def stepped(tiny_model: Callable[..., Any], model_directory: Path) -> Suggester:
    """A suggester whose engine does nothing by itself."""
    engine = Engine(tiny_model(vocab_size=8192), Tokenizer.load(model_directory))
    return Suggester(engine, Settings(max_tokens=8))


@pytest.fixture(scope="session")
def server_command(model_directory: Path) -> tuple[str, ...]:
    return (*SERVER_COMMAND, "--model", str(model_directory))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def client(server_command: tuple[str, ...]) -> AsyncIterator[Client]:
    """A client of one initialized server that many tests share."""
    async with await Client.start(server_command) as client:
        await client.initialize(Path("/workspace"), OPTIONS)
        yield client
        assert await client.shutdown() == 0


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


@pytest_asyncio.fixture
async def ready_bench(bench: Bench) -> Bench:
    await bench.initialized()
    await bench.load()
    return bench


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    # As in an editor that git itself has started.
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    desk = Desk(tmp_path / "work")
    yield desk
    desk.files.close()
