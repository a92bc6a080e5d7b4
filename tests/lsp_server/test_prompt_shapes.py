"""Prompts of both families with an outline and snippets in front, id by id."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import Mock

import mistral_common
import pytest
from mistral_common.protocol.fim.request import FIMRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from engine.engine import Engine
from engine.epochs import Epochs
from engine.prompts import Prompts
from engine.tokenizer import Tokenizer
from lsp_server.context import WindowLimits
from lsp_server.documents import Change, Document
from lsp_server.settings import Settings
from lsp_server.suggestions import Suggester
from lsp_server.surroundings import ContextSources, Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np

    from engine.decode import Decoder
    from engine.request import Completion, CompletionRequest

pytestmark = pytest.mark.asyncio

ABOVE = '''\
import os


class Cart:
    """Keeps the items that somebody means to buy, and what they cost altogether."""

    def __init__(self, items):
        self.items = items
        self.path = os.curdir
'''
WINDOW = '''\

    def total(self):
        """The price of everything."""
        rate = tax_rate(self.items)
'''
BELOW = """\
        return rate

    def clear(self):
        self.items.clear()
"""
SNIPPET = "# shop/tax.py\ndef tax_rate(items):\n"
PATH = "# shop/cart.py\n"
OUTLINE = "import os\nclass Cart:\n    def __init__(self, items):\n...\n"

# <s>, [SUFFIX], what is below, [PREFIX], and then snippet, path, outline and window as one text.
EXACT_IDS = [
    1, 13, 6158, 1372, 5106, 781, 781, 3055, 1569, 3849, 29500, 1712, 2097, 781, 6158, 1776,
    29491, 7717, 29491, 6974, 1238, 781, 11, 1190, 5894, 29516, 16787, 29491, 3602, 781, 2038,
    4715, 29498, 6804, 29500, 7717, 2097, 781, 29539, 5894, 29516, 14808, 29491, 3602, 781,
    8609, 4265, 781, 2657, 14638, 29515, 781, 3055, 1569, 2616, 2551, 7511, 1712, 29493, 5675,
    2097, 781, 1869, 781, 3055, 1569, 3870, 29500, 1712, 2097, 781, 6158, 4272, 1782, 4912,
    1070, 3673, 17266, 781, 6158, 5106, 1095, 4715, 29498, 6804, 29500, 1712, 29491, 7717,
    29499, 781,
]  # fmt: skip


@pytest.fixture(scope="module")
def mistral_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Codestral's tokenizer, as a checkpoint has it."""
    folder = tmp_path_factory.mktemp("mistral-tokenizer")
    package = Path(next(iter(mistral_common.__path__)))
    model = package / "data" / "mistral_instruct_tokenizer_240323.model.v3"
    shutil.copy(model, folder / "tokenizer.model.v3")
    return folder


@pytest.fixture(scope="module")
def oracle(mistral_folder: Path) -> MistralTokenizer:
    return MistralTokenizer.from_file(str(mistral_folder / "tokenizer.model.v3"))


@pytest.fixture
def codestral(tiny_model: Callable[..., Any], mistral_folder: Path) -> Iterator[Suggester]:
    suggester = suggester_of(Engine(tiny_model(vocab_size=32768), Tokenizer.load(mistral_folder)))
    yield suggester
    suggester.close()


@pytest.fixture
def own(tiny_model: Callable[..., Any], model_directory: Path) -> Iterator[Suggester]:
    engine = Engine(tiny_model(vocab_size=8192), Tokenizer.load(model_directory))
    suggester = suggester_of(engine)
    yield suggester
    suggester.close()


def suggester_of(engine: Engine, sources: ContextSources | None = None) -> Suggester:
    """A suggester whose engine is stepped by hand, and to which git has nothing to say."""
    suggester = Suggester(engine, Settings(max_tokens=2), sources)
    suggester.surroundings = Surroundings(sources or ContextSources(), lambda _uri: False)
    return suggester


def document_of(path: str, text: str) -> Document:
    return Document(f"file:///w/{path}", "python", 1, text, path=path)


def open_files(suggester: Suggester) -> Document:
    cart = document_of("shop/cart.py", ABOVE + WINDOW + BELOW)
    tax = document_of("shop/tax.py", "import json\n\n\ndef tax_rate(items):\n    return 0.19\n")
    suggester.documents = [cart, tax]
    return cart


async def ask(suggester: Suggester, document: Document, offset: int) -> Completion:
    """The answer at an offset, asked for."""
    work = asyncio.ensure_future(
        suggester.suggest(document, document.position_at(offset), explicit=True, deadline_ms=None)
    )

    async def step() -> Completion:
        while not work.done():
            suggester.engine.step()
            await asyncio.sleep(0)
        return work.result().completion

    return await asyncio.wait_for(step(), 60)


def request_at(suggester: Suggester, document: Document, offset: int) -> CompletionRequest:
    return suggester._request_on(suggester._touched(document, offset), document, offset)


async def test_codestrals_prompt_with_snippets(
    codestral: Suggester, oracle: MistralTokenizer
) -> None:
    document = open_files(codestral)
    prefix = ABOVE + WINDOW
    completion = await ask(codestral, document, len(prefix))
    assert completion.kind == "epoch"
    whole = FIMRequest(prompt=SNIPPET + PATH + prefix, suffix=BELOW)
    # At a line's start nothing is held back.
    assert list(completion.prompt_ids) == oracle.encode_fim(whole).tokens


async def test_codestrals_prompt_with_snippets_and_an_outline(
    codestral: Suggester, oracle: MistralTokenizer
) -> None:
    codestral._limits = WindowLimits(prefix_max_chars=2 * len(WINDOW) - 2, suffix_max_chars=None)
    document = open_files(codestral)
    completion = await ask(codestral, document, len(ABOVE + WINDOW))
    text = SNIPPET + PATH + OUTLINE + WINDOW.removeprefix("\n")
    ids = list(completion.prompt_ids)
    assert ids == oracle.encode_fim(FIMRequest(prompt=text, suffix=BELOW)).tokens
    assert ids == EXACT_IDS


async def test_codestrals_trunk_has_the_path_alone(
    codestral: Suggester, oracle: MistralTokenizer
) -> None:
    document = open_files(codestral)
    request = request_at(codestral, document, len(ABOVE + WINDOW))
    assert request.header == SNIPPET + PATH

    class NothingRead:
        def n_missing(self, ids: np.ndarray, owner: tuple[str, object]) -> int:
            return 0 if owner[1] == "trunk" else 10_000

    prompts = Prompts(codestral.engine.fim, Epochs(), cast("Decoder", NothingRead()))
    trunk = prompts.choose(request, exact=False)
    whole = FIMRequest(prompt=PATH + ABOVE + WINDOW, suffix=None)
    assert trunk.kind == "trunk"
    assert trunk.whole.tolist() == oracle.encode_fim(whole).tokens
    # Without a header of its own, a trunk has the epoch's.
    trunk = prompts.choose(replace(request, trunk_header=None), exact=False)
    whole = FIMRequest(prompt=SNIPPET + PATH + ABOVE + WINDOW, suffix=None)
    assert trunk.whole.tolist() == oracle.encode_fim(whole).tokens


async def test_the_embedded_models_prompt(own: Suggester) -> None:
    own._limits = WindowLimits(prefix_max_chars=2 * len(WINDOW) - 2, suffix_max_chars=200)
    document = open_files(own)
    completion = await ask(own, document, len(ABOVE + WINDOW))
    tokenizer = own.engine.tokenizer
    text = SNIPPET + PATH + OUTLINE + WINDOW.removeprefix("\n")
    expected = [
        *(tokenizer.bos_id, tokenizer.suffix_id),
        *tokenizer.encode(BELOW),
        *(tokenizer.prefix_id, *tokenizer.encode_start(text)),
    ]
    assert list(completion.prompt_ids) == expected


def functions(n: int) -> str:
    return "import os\n\n\n" + "".join(
        f"def function_{i}(x):\n    y = x + {i}\n    return y\n\n\n" for i in range(n)
    )


async def test_typing_never_changes_the_header(own: Suggester) -> None:
    document = document_of("long.py", functions(300))
    other = document_of("other.py", "def helper(a):\n    return a\n\n\nclass Thing:\n    pass\n")
    own.documents = [document, other]
    headers, edges = [], []
    offset = document.line_start(700)
    typed = "    z = helper(Thing)\n" * 15
    for n, character in enumerate(typed[:300]):
        at = document.position_at(offset)
        document.apply(Change(text=character, range=(at, at)))
        offset += 1
        own.prepare(document, offset)
        headers.append(request_at(own, document, offset).header)
        edges.append(own._windows[document.uri][-1].prefix_start)
        if n % 50 == 49:
            # Off to another file, something new in there, and back.
            start = other.position_at(0)
            other.apply(Change(text=f"def helper_{n}(b):\n    pass\n", range=(start, start)))
            own.prepare(other, 0)
            assert request_at(own, other, 5).header.endswith("# other.py\n")
    assert len(headers) == 300
    assert set(edges) == {edges[0]}
    assert set(headers) == {headers[0]}
    assert "def function_" in headers[0]


async def test_the_next_window_is_read_with_the_header_it_will_have(
    own: Suggester, monkeypatch: pytest.MonkeyPatch
) -> None:
    own._limits = WindowLimits(prefix_max_chars=400, suffix_max_chars=200)
    document = document_of("long.py", functions(100))
    helpers = "".join(f"def helper_{n}(a, b): ...\n" for n in range(100))
    own.documents = [document, document_of("helpers.py", helpers)]
    ahead: list[CompletionRequest] = []
    prepare = own.engine.prepare

    def seen(request: CompletionRequest, **options: Any) -> None:
        if request.document != document.uri:
            ahead.append(request)
        prepare(request, **options)

    monkeypatch.setattr(own.engine, "prepare", seen)
    offset = document.line_start(250)
    headers: list[str] = []
    # Names that are defined elsewhere come and go.
    typed = "".join(f"    x = helper_{n}(y, z)\n" for n in range(100))[:600]
    for character in typed:
        at = document.position_at(offset)
        document.apply(Change(text=character, range=(at, at)))
        offset += 1
        own.prepare(document, offset)
        header = request_at(own, document, offset).header
        if headers and header != headers[-1]:
            assert header == ahead[-1].header
            assert {request.header for request in ahead} == {header}
            ahead.clear()
        if not headers or header != headers[-1]:
            headers.append(header)
    assert len(headers) in (3, 4)


async def test_a_header_that_the_code_has_outgrown_is_replaced_at_rest(own: Suggester) -> None:
    document = document_of("a.py", "x = helper(")
    own.documents = [document]
    end = document.n_chars
    assert request_at(own, document, end).header == "# a.py\n"
    assert not own.refresh(document, end)
    other = document_of("b.py", "def helper(a): ...\n")
    own.documents = [document, other]
    new = "# b.py\ndef helper(a): ...\n# a.py\n"
    assert own.refresh(document, end)
    # Read, while the old one answers.
    assert request_at(own, document, end).header == "# a.py\n"
    while own.engine.step():
        pass
    assert not own.refresh(document, end)
    assert request_at(own, document, end).header == new
    completion = await ask(own, document, end)
    assert completion.n_recomputed == 0
    assert not own.refresh(document, end)
    # Undone before it was used.
    for text, is_new in (("def helper(b): ...\n", True), (other.text, False)):
        other.apply(Change(text=text))
        assert own.refresh(document, end) is is_new
    assert not own.refresh(document, end)
    assert request_at(own, document, end).header == new


async def test_text_to_copy_is_looked_for_only_where_there_is_an_answer(
    own: Suggester, monkeypatch: pytest.MonkeyPatch
) -> None:
    own._limits = WindowLimits(prefix_max_chars=400, suffix_max_chars=200)
    document = document_of("long.py", functions(40))
    own.documents = [document]
    looked = Mock(side_effect=own.surroundings.sources)
    monkeypatch.setattr(own.surroundings, "sources", looked)
    offset = document.line_start(50)
    typed = "    x = function_11(y, z)\n" * 8
    for character in typed:
        at = document.position_at(offset)
        document.apply(Change(text=character, range=(at, at)))
        offset += 1
        own.prepare(document, offset)
    assert own._next, "the next window was not read ahead"
    window = request_at(own, document, offset)
    own.documents = [document, document_of("b.py", "def function_11(x, y): ...\n" * 3)]
    assert own.refresh(document, offset)
    looked.assert_not_called()
    await ask(own, document, offset)
    looked.assert_called_once()
    assert request_at(own, document, offset).header == window.header
