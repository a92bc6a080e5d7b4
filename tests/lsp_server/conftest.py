"""A whole tiny checkpoint, and a server that runs on it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

import engine
from lsp_server.settings import Settings
from lsp_server.suggestions import Suggester
from perf.client import SERVER_COMMAND, Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

TOKENIZER = Path(engine.__file__).parent / "embedded" / "tokenizer.model"
# Generous: a loaded machine must not turn an answer into a deadline.
OPTIONS = {
    "deadlineMs": 60_000,
    "invokedDeadlineMs": 60_000,
    "maxTokens": 8,
    "threads": 1,
    "saveStates": False,
}


@pytest.fixture(scope="session")
def model_directory(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Callable[..., Any],
    save_checkpoint: Callable[[Any, Path], Path],
) -> Path:
    """A random model in Hugging Face's layout beside the embedded model's tokenizer."""
    directory = tmp_path_factory.mktemp("models") / "tiny"
    save_checkpoint(tiny_model(vocab_size=8192), directory)
    shutil.copy(TOKENIZER, directory)
    return directory


@pytest.fixture(scope="session")
def suggester(model_directory: Path) -> Iterator[Suggester]:
    """What the server runs, in this process, on the same model."""
    suggester = Suggester.load(
        Settings(model=str(model_directory), max_tokens=8, save_states=False)
    )
    yield suggester
    suggester.close()


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
