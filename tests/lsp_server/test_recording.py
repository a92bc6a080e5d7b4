"""Recorded sessions are what was done, and hold nothing that they should not."""

from __future__ import annotations

import asyncio
import json
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lsp_server.documents import Position
from lsp_server.features.accepted import ACCEPTED
from lsp_server.recording import Recorder
from perf.client import Client
from perf.trace_format import Done, Opened, read_session

if TYPE_CHECKING:
    from perf.trace_format import Event

ROOT, URI = "file:///workspace", "file:///workspace/src/a.py"
LIMIT_S = 60
LEFT_BYTES = 4096


class Clock:
    """Half a second a look."""

    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        self.s += 0.5
        return self.s


class Editor:
    """Messages of an editor, through a recorder."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.recorder = Recorder(path, clock=Clock(), **options)
        self._bodies: list[bytes] = []
        self.tell("initialize", {"rootUri": ROOT})

    def tell(self, method: str, params: Any) -> None:
        self._bodies.append(json.dumps({"method": method, "params": params}).encode())

    def open(self, text: str, uri: str = URI) -> None:
        document = {"uri": uri, "languageId": "python", "version": 0, "text": text}
        self.tell("textDocument/didOpen", {"textDocument": document})

    def change(
        self, start: tuple[int, int], end: tuple[int, int], text: str, uri: str = URI
    ) -> None:
        first, last = ({"line": line, "character": column} for line, column in (start, end))
        change = {"range": {"start": first, "end": last}, "text": text}
        self.tell(
            "textDocument/didChange", {"textDocument": {"uri": uri}, "contentChanges": [change]}
        )

    def ask(self, line: int, character: int, uri: str = URI) -> None:
        position = {"line": line, "character": character}
        params = {"textDocument": {"uri": uri}, "position": position}
        self.tell("textDocument/inlineCompletion", params)

    def accept(self) -> None:
        self.tell("workspace/executeCommand", {"command": ACCEPTED, "arguments": ["id"]})

    def send(self, *more: bytes) -> None:
        """Send all, with what is no message of an editor's behind it."""
        bodies = [*self._bodies, *more]
        assert list(self.recorder.tap(bodies)) == bodies

    def events(self, *more: bytes) -> tuple[Event, ...]:
        self.send(*more)
        return read_session(self.recorder.path).events


@pytest.fixture
def editor(tmp_path: Path) -> Editor:
    return Editor(tmp_path / "a.jsonl")


def test_kinds_and_cursors(editor: Editor) -> None:
    editor.open("x\n")
    editor.change((0, 1), (0, 1), " ")
    editor.ask(0, 2)
    editor.change((0, 2), (0, 2), "()")
    editor.ask(0, 3)
    editor.change((0, 3), (0, 3), "\n    ")
    editor.change((1, 3), (1, 4), "")
    editor.ask(1, 3)
    # Asked twice in one place: nothing was done.
    editor.ask(1, 3)
    editor.ask(0, 0)
    editor.change((0, 0), (0, 0), "import os\n🎉\n")
    editor.change((3, 0), (3, 0), "pass it")
    editor.accept()
    editor.ask(3, 7)
    events = editor.events()
    assert [(event.kind, event.cursor, event.request) for event in events] == [
        ("type", (0, 2), True),
        ("type", (0, 3), True),
        ("type", (1, 4), False),
        ("delete", (1, 3), True),
        ("jump", (0, 0), True),
        ("paste", (2, 0), False),
        ("accept", (3, 7), True),
    ]
    assert events[0].changes[0].range == (Position(0, 1), Position(0, 1))
    assert events[0].next == "(\n    "
    times_ms = [event.t_ms for event in events]
    assert times_ms == sorted(times_ms)
    assert times_ms[0] == 500


def test_documents_are_told_apart(editor: Editor) -> None:
    other, elsewhere = f"{ROOT}/src/b.py", "file:///other/src/a.py"
    twin = "file:///third/a.py"
    for uri in (URI, other, elsewhere, twin):
        editor.open("x", uri)
    for uri in (URI, twin, URI):
        editor.change((0, 1), (0, 1), "y", uri)
        editor.ask(0, 2, uri)
    # Opened again, with another text.
    editor.tell("textDocument/didClose", {"textDocument": {"uri": URI}})
    editor.change((0, 0), (0, 0), "nobody has it open")
    editor.open("z")
    editor.send()
    steps = read_session(editor.recorder.path).steps
    opened = [(step.path, step.text) for step in steps if isinstance(step, Opened)]
    assert opened == [
        ("src/a.py", "x"),
        ("src/b.py", "x"),
        ("a.py", "x"),
        ("a-2.py", "x"),
        ("src/a.py", "z"),
    ]
    done = [step.path for step in steps if isinstance(step, Done)]
    assert done == ["src/a.py", "a-2.py", "src/a.py"]


def test_whole_texts_and_half_characters(editor: Editor) -> None:
    editor.open("x")
    whole = {"textDocument": {"uri": URI}, "contentChanges": [{"text": "whole \ud83c text"}]}
    editor.tell("textDocument/didChange", whole)
    editor.ask(0, 5)
    (event,) = editor.events()
    assert event.changes[0].range is None
    assert event.changes[0].text == "whole ? text"
    assert event.cursor == (0, 5)


@pytest.mark.parametrize("uri", [f"{ROOT}/.env", "file:///home/me/.aws/config"])
def test_secrets_are_not_recorded(editor: Editor, uri: str) -> None:
    editor.open("x")
    editor.open("TOKEN=hunter2", uri)
    editor.change((0, 0), (0, 0), "hunter3", uri)
    editor.ask(0, 1, uri)
    editor.send()
    assert "hunter" not in editor.recorder.path.read_text()


def test_the_file_is_its_own_and_nobody_elses(tmp_path: Path) -> None:
    names = [Recorder(tmp_path / "a.jsonl").path.name for _ in range(3)]
    assert names == ["a.jsonl", "a-2.jsonl", "a-3.jsonl"]
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    with pytest.raises(FileNotFoundError):
        Recorder(tmp_path / "missing" / "a.jsonl")


def test_the_file_stays_small(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    editor = Editor(tmp_path / "a.jsonl", max_bytes=1000)
    editor.open("x")
    for n in range(20):
        editor.change((0, n), (0, n), "y")
    assert 0 < len(editor.events()) < 20
    assert editor.recorder.path.stat().st_size <= 1000
    assert [record.message for record in caplog.records] == [
        f"the recording is full: {editor.recorder.path}"
    ]


@pytest.mark.parametrize("n_changes", [0, 1, 2])
def test_a_full_disk_ends_the_recording_with_a_whole_line(editor: Editor, n_changes: int) -> None:
    editor.open("x" * (LEFT_BYTES // 2))
    for n in range(n_changes):
        editor.change((0, n), (0, n), "y" * LEFT_BYTES)
    editor.change((0, 0), (0, 0), "y" * LEFT_BYTES)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LEFT_BYTES, before[1]))
    try:
        editor.send()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (opened,) = read_session(editor.recorder.path).steps
    assert isinstance(opened, Opened)


def test_bad_messages_are_passed_on_and_not_recorded(
    editor: Editor, caplog: pytest.LogCaptureFixture
) -> None:
    editor.open("x")
    editor.change((0, 1), (0, 1), "y")
    bad = (
        *(b"{", b"[]", b"17", b'"secret"', b"[" * 100_000),
        b'{"method": "textDocument/didChange", "params": {"secret": 1}}',
        b'{"method": "textDocument/didOpen", "params": []}',
        b'{"method": {"secret": 1}, "params": []}',
    )
    assert len(editor.events(*bad)) == 1
    assert caplog.records
    assert "secret" not in caplog.text


@pytest.mark.asyncio
async def test_serve_records_and_says_so(server_command: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "session.jsonl"
    log = tmp_path / "log.txt"
    with log.open("wb") as stderr:
        command = (*server_command, "--record", str(path))
        async with asyncio.timeout(LIMIT_S), await Client.start(command, stderr=stderr) as client:
            await client.initialize(Path("/workspace"))
            told = await client.notification("window/showMessage")
            client.open(URI, "python", "x = 1\n")
            client.insert(URI, 0, 5, "2")
            await client.ask(URI, 0, 6)
            assert await client.shutdown() == 0
    assert told["type"] == 2
    assert f"every key you press are being written to {path}" in told["message"]
    assert f"being written to {path}" in log.read_text()
    (event,) = read_session(path).events
    assert (event.kind, event.cursor, event.request) == ("type", (0, 6), True)
