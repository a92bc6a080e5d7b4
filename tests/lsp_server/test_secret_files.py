"""Of files whose names say that they hold secrets, nothing outlasts the process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from engine.engine import Engine
from engine.tokenizer import Tokenizer
from engine.warm_restart import SavedStates
from lsp_server.documents import Document
from lsp_server.settings import Settings
from lsp_server.suggestions import Suggester

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.asyncio

TIMEOUT_S = 60
SECRET_PATHS = (
    ".env",
    "deploy/.env.production",
    "keys/Server.PEM",
    "id_rsa",
    "home/id_ed25519.pub",
    "app/secrets.py",
    "credentials.json",
)
LINE = "SESSION_TOKEN_{n} = 'hunter2 {n}'\n"
# Long enough for a window that is nearly full, so that the next one is read as well.
SECRET_TEXT = "def session_token(user, salt='hunter2'):\n    return user + salt\n\n\n" + "".join(
    LINE.format(n=n) for n in range(200)
)
PLAIN_TEXT = "def total(prices):\n    return discounted(prices), session_token(prices.user)\n"
OTHER_TEXT = "def discounted(prices, part=0.25):\n    return sum(prices) * part\n"


@pytest.fixture
def new_suggester(
    tiny_model: Callable[..., Any], model_directory: Path, tmp_path: Path
) -> Callable[[], Suggester]:
    """A suggester whose engine is stepped by hand, and saves its states when it is closed."""

    def make() -> Suggester:
        model = tiny_model(vocab_size=8192)
        tokenizer = Tokenizer.load(model_directory)
        engine = Engine(model, tokenizer, saved=SavedStates(tmp_path / "states", "tiny"))
        return Suggester(engine, Settings(max_tokens=2))

    return make


def opened(path: str, text: str) -> Document:
    return Document(f"file:///workspace/{path}", "python", 0, text, path)


async def work_on(suggester: Suggester, document: Document) -> None:
    """Read ahead and ask at several places, until nothing is left to do."""
    for offset in (2_800, len(document.text), 40, 2_810):
        at = document.position_at(offset)
        suggester.prepare(document, document.offset_at(at))
        asked = asyncio.ensure_future(
            suggester.suggest(document, at, explicit=False, deadline_ms=None)
        )

        async def step(asked: asyncio.Future[Any] = asked) -> None:
            while suggester.engine.step() or not asked.done():
                await asyncio.sleep(0)

        await asyncio.wait_for(step(), TIMEOUT_S)
        assert asked.result().completion.n_prompt > 0


def saved_texts(suggester: Suggester) -> list[str]:
    """What the saved states were made from."""
    saved = suggester.engine._saving.states
    assert saved is not None
    decode = suggester.engine.tokenizer.decode
    return [decode(found.ids.tolist()) for found in saved.load(suggester.engine.model)]


@pytest.mark.parametrize("path", SECRET_PATHS)
async def test_nothing_of_a_secret_file_is_saved(
    new_suggester: Callable[[], Suggester], tmp_path: Path, path: str
) -> None:
    suggester = new_suggester()
    await work_on(suggester, opened(path, SECRET_TEXT))
    assert len(suggester.engine.cache) > 10
    suggester.close()
    assert not [file for file in (tmp_path / "states").rglob("*") if file.is_file()]


async def test_the_same_text_in_another_file_is_saved(
    new_suggester: Callable[[], Suggester],
) -> None:
    """Else the test above would prove nothing."""
    suggester = new_suggester()
    await work_on(suggester, opened("app/settings.py", SECRET_TEXT))
    suggester.close()
    assert any("hunter2" in text for text in saved_texts(suggester))


@pytest.mark.parametrize("secret_first", [True, False], ids=["opened before", "opened after"])
async def test_beside_a_secret_file_others_are_saved_alone(
    new_suggester: Callable[[], Suggester], monkeypatch: pytest.MonkeyPatch, secret_first: bool
) -> None:
    """The other file uses names that the secret one and a third define."""
    # Git is asked on a thread, and until it answers nothing is read of other files.
    monkeypatch.setattr("lsp_server.ignored_files.IgnoredFiles.is_ignored", lambda *_: False)
    suggester = new_suggester()
    documents = [opened("app/secrets.py", SECRET_TEXT), opened("app/shop.py", PLAIN_TEXT)]
    suggester.documents = [*documents, opened("app/prices.py", OTHER_TEXT)]
    for document in documents if secret_first else documents[::-1]:
        await work_on(suggester, document)
    suggester.forget(documents[0].uri)
    suggester.close()
    texts = saved_texts(suggester)
    assert any("part=0.25" in text for text in texts), "others are not read at all"
    assert not any("hunter2" in text for text in texts)


async def test_of_files_that_are_excluded_later_nothing_stays_known(
    new_suggester: Callable[[], Suggester], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lsp_server.ignored_files.IgnoredFiles.is_ignored", lambda *_: False)
    suggester = new_suggester()
    shop, prices = opened("app/shop.py", PLAIN_TEXT), opened("app/prices.py", OTHER_TEXT)
    suggester.documents = documents = [shop, prices]
    suggester.prepare(shop, shop.n_chars)
    assert "part=0.25" in suggester._windows[shop.uri][-1].header
    documents.remove(prices)
    suggester.configure(Settings(max_tokens=3))
    assert "part=0.25" in suggester._windows[shop.uri][-1].header
    suggester.configure(Settings(exclude=("prices.py",)))
    suggester.prepare(shop, shop.n_chars)
    assert "part=0.25" not in suggester._windows[shop.uri][-1].header
    suggester.close()
