"""The real server with the capabilities that editors send, spoken to by another LSP library.

That library also warns of what is against the specification for a client of these capabilities.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from lsprotocol import types
from pytest_lsp import LanguageClient, client_capabilities, make_test_lsp_client

from lsp_server.documents import Document, Position
from tests.lsp_server.conftest import OPTIONS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lsp_server.suggestions import Suggester

pytestmark = pytest.mark.asyncio

EDITORS = ("visual-studio-code", "neovim", "emacs")
URI = "file:///workspace/package/a.py"
TEXT = "names = ['🎉']\n\n\ndef total(items):\n    result = 0\n    for item in items:\n        #\n"
# Behind the party popper, which is two units of UTF-16, and of no other encoding.
EDITED = TEXT.replace("🎉", "🎉é").replace("#\n", "# s\n")
TIMEOUT_S = 60


@pytest_asyncio.fixture(params=EDITORS)
async def editor(
    request: pytest.FixtureRequest, server_command: tuple[str, ...]
) -> AsyncIterator[tuple[LanguageClient, types.InitializeResult]]:
    """A client of an initialized server, and what `initialize` was answered with."""
    client = make_test_lsp_client()
    client.set_configuration(OPTIONS, section="keystate")
    await client.start_io(*server_command)
    try:
        params = types.InitializeParams(
            capabilities=client_capabilities(request.param),
            root_uri="file:///workspace",
            initialization_options=OPTIONS,
        )
        result = await asyncio.wait_for(client.initialize_session(params), TIMEOUT_S)
        yield client, result
        await asyncio.wait_for(client.shutdown_session(), TIMEOUT_S)
        assert client.error is None
        assert client.messages == []
    finally:
        await client.stop()


async def complete(client: LanguageClient, line: int, character: int) -> Any:
    params = types.InlineCompletionParams(
        text_document=types.TextDocumentIdentifier(URI),
        position=types.Position(line, character),
        context=types.InlineCompletionContext(types.InlineCompletionTriggerKind.Automatic),
    )
    return await asyncio.wait_for(client.text_document_inline_completion_async(params), TIMEOUT_S)


def insert(line: int, character: int, text: str) -> types.TextDocumentContentChangePartial:
    at = types.Position(line, character)
    return types.TextDocumentContentChangePartial(range=types.Range(at, at), text=text)


async def expected(suggester: Suggester, text: str, at: Position) -> str:
    """What a server without a past answers."""
    document = Document(f"fresh:{hash(text)}", "python", 0, text, "package/a.py")
    answer = await suggester.suggest(document, at, explicit=False, deadline_ms=None)
    return answer.items[0].insert_text if answer.items else ""


@pytest.mark.filterwarnings("error::pytest_lsp.LspSpecificationWarning")
async def test_each_editor_is_answered(
    editor: tuple[LanguageClient, types.InitializeResult], suggester: Suggester
) -> None:
    client, result = editor
    offered = result.capabilities
    assert offered.inline_completion_provider
    # Some offer other encodings first.
    assert offered.position_encoding in (None, types.PositionEncodingKind.Utf16)

    client.text_document_did_open(
        types.DidOpenTextDocumentParams(types.TextDocumentItem(URI, "python", 0, TEXT))
    )
    opened = await complete(client, 6, 9)
    first = await expected(suggester, TEXT, Position(6, 9))
    assert first
    assert opened.items[0].insert_text == first
    at = types.Position(6, 9)
    assert opened.items[0].range == types.Range(at, at)

    client.text_document_did_change(
        types.DidChangeTextDocumentParams(
            types.VersionedTextDocumentIdentifier(uri=URI, version=1),
            [insert(0, 12, "é"), insert(6, 9, " s")],
        )
    )
    changed = await complete(client, 6, 11)
    second = await expected(suggester, EDITED, Position(6, 11))
    assert second
    assert second != first
    assert changed.items[0].insert_text == second
