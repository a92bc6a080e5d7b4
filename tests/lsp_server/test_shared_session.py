"""What a window remembers, so that another host can go on and its editor waits for nothing."""

from __future__ import annotations

from typing import Any

import pytest

from lsp_server.shared_session import Session

URI = "file:///workspace/a.py"
OPTIONS = {"maxTokens": 8}


def request(request_id: int | str, method: str, params: Any = None) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}


def notification(method: str, params: Any = None) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params}


def opened(uri: str = URI, text: str = "x = 1\n", version: int = 0) -> dict[str, Any]:
    document = {"uri": uri, "languageId": "python", "version": version, "text": text}
    return notification("textDocument/didOpen", {"textDocument": document})


def changed(version: int, *changes: Any, uri: str = URI) -> dict[str, Any]:
    document = {"uri": uri, "version": version}
    params = {"textDocument": document, "contentChanges": list(changes)}
    return notification("textDocument/didChange", params)


def cell(uri: str) -> dict[str, Any]:
    return {"kind": 2, "document": uri}


def item(uri: str, text: str, version: int = 0) -> dict[str, Any]:
    return {"uri": uri, "languageId": "python", "version": version, "text": text}


def notebook_opened(uri: str, *texts: str) -> dict[str, Any]:
    uris = [f"{uri}#{n}" for n in range(len(texts))]
    notebook = {"uri": uri, "notebookType": "jupyter", "version": 0}
    notebook |= {"metadata": {"k": 1}, "cells": list(map(cell, uris))}
    params = {"notebookDocument": notebook, "cellTextDocuments": list(map(item, uris, texts))}
    return notification("notebookDocument/didOpen", params)


def notebook_changed(uri: str, version: int = 1, **cells: Any) -> dict[str, Any]:
    params = {"notebookDocument": {"uri": uri, "version": version}, "change": {"cells": cells}}
    return notification("notebookDocument/didChange", params)


def replaced(line: int, start: int, end: int, text: str) -> dict[str, Any]:
    between = {
        "start": {"line": line, "character": start},
        "end": {"line": line, "character": end},
    }
    return {"range": between, "text": text}


@pytest.fixture
def session() -> Session:
    session = Session()
    assert session.heard(request(1, "initialize", {"initializationOptions": OPTIONS}))
    assert session.told({"jsonrpc": "2.0", "id": 1, "result": {"capabilities": {}}})
    assert session.heard(notification("initialized", {}))
    return session


def replayed(session: Session) -> list[tuple[str, Any]]:
    return [(message["method"], message.get("params")) for message in session.replay()]


class TestReplay:
    def test_texts_as_they_stand(self, session: Session) -> None:
        session.heard(opened(text="é🎉 = 1\r\ny = 2\r\n"))
        session.heard(changed(1, replaced(0, 3, 3, "x"), replaced(1, 4, 5, "33")))
        session.heard(opened("file:///b.py", "gone"))
        session.heard(
            notification("textDocument/didClose", {"textDocument": {"uri": "file:///b.py"}})
        )
        session.heard(opened("file:///c.py", "old"))
        session.heard(changed(7, {"text": "new"}, uri="file:///c.py"))
        messages = list(session.replay())
        assert messages[2:] == [
            opened(text="é🎉x = 1\r\ny = 33\r\n", version=1),
            opened("file:///c.py", "new", version=7),
        ]

    def test_first_the_handshake_then_the_settings(self, session: Session) -> None:
        session.heard(opened())
        change = "workspace/didChangeConfiguration"
        for n in (1, 2):
            session.heard(notification(change, {"settings": {"keystate": {"maxTokens": n}}}))
        folder = {"event": {"added": [{"uri": "file:///w", "name": "w"}], "removed": []}}
        session.heard(notification("workspace/didChangeWorkspaceFolders", folder))
        methods = [method for method, _ in replayed(session)]
        assert methods == [
            "initialize",
            "initialized",
            change,
            "workspace/didChangeWorkspaceFolders",
            "textDocument/didOpen",
        ]
        assert replayed(session)[0][1] == {"initializationOptions": OPTIONS}
        assert replayed(session)[2][1] == {"settings": {"keystate": {"maxTokens": 2}}}

    def test_before_initialized_only_initialize(self) -> None:
        session = Session()
        session.heard(request(1, "initialize", {}))
        session.heard(opened())
        assert [method for method, _ in replayed(session)] == ["initialize"]

    def test_notebooks_as_they_stand(self, session: Session) -> None:
        session.heard(notebook_opened("a", "x = 1", "y = 2"))
        session.heard(notebook_opened("b", "gone"))
        closed = {"notebookDocument": {"uri": "b"}, "cellTextDocuments": []}
        session.heard(notification("notebookDocument/didClose", closed))
        session.heard(
            notebook_changed(
                "a",
                structure={
                    "array": {"start": 1, "deleteCount": 1, "cells": [cell("a#2"), cell("a#3")]},
                    "didOpen": [item("a#2", "z = 3"), item("a#3", "é🎉 = 4")],
                    "didClose": [{"uri": "a#1"}],
                },
                textContent=[
                    {"document": {"uri": "a#3", "version": 5}, "changes": [replaced(0, 3, 3, "x")]}
                ],
            )
        )
        session.heard(notebook_changed("a", 9, data=[{**cell("a#2"), "kind": 1}]))
        expected = notebook_opened("a", "x = 1")
        expected["params"]["notebookDocument"] |= {
            "version": 9,
            "cells": [cell("a#0"), {**cell("a#2"), "kind": 1}, cell("a#3")],
        }
        texts = [item("a#2", "z = 3"), item("a#3", "é🎉x = 4", 5)]
        expected["params"]["cellTextDocuments"] += texts
        assert list(session.replay())[2:] == [expected]

    def test_a_notebook_costs_the_same_however_often_it_is_changed(self, session: Session) -> None:
        session.heard(notebook_opened("a", "x = 1"))
        for n in range(100):
            typed = {"document": {"uri": "a#0", "version": n}, "changes": [replaced(0, 5, 5, "1")]}
            session.heard(notebook_changed("a", n, textContent=[typed]))
        (message,) = list(session.replay())[2:]
        assert message["params"]["cellTextDocuments"] == [item("a#0", "x = 1" + "1" * 100, 99)]

    @pytest.mark.parametrize(
        "cells",
        [
            {"structure": {"array": {"start": 0, "deleteCount": 1}, "didClose": [{}]}},
            {"structure": {"array": {"start": "0", "deleteCount": "1"}}},
            {
                "structure": {"array": {"start": 0, "deleteCount": 1}},
                "textContent": [{"document": {"uri": "a#0", "version": 1}, "changes": [5]}],
            },
            {"data": [{}]},
            [],
        ],
    )
    def test_what_is_no_change_of_a_notebook_changes_nothing(
        self, session: Session, cells: Any
    ) -> None:
        session.heard(notebook_opened("a", "x = 1"))
        message = notebook_changed("a")
        message["params"]["change"]["cells"] = cells
        assert session.heard(message)
        (message,) = list(session.replay())[2:]
        assert message["params"]["cellTextDocuments"] == [item("a#0", "x = 1")]
        assert message["params"]["notebookDocument"]["cells"] == [cell("a#0")]

    @pytest.mark.parametrize(
        "params",
        [
            None,
            [],
            {"textDocument": {"uri": URI, "version": 1}, "contentChanges": [{"text": 5}]},
            {"textDocument": {"uri": URI, "version": 1}, "contentChanges": [{"range": {}}]},
            {"textDocument": {"uri": [], "version": 1}, "contentChanges": []},
            {"textDocument": {"uri": "file:///unknown", "version": 1}, "contentChanges": []},
        ],
    )
    def test_what_is_no_change_changes_nothing(self, session: Session, params: Any) -> None:
        session.heard(opened())
        assert session.heard(notification("textDocument/didChange", params))
        assert list(session.replay())[2:] == [opened()]


class TestAnswers:
    def test_of_a_replay_are_not_the_editors(self, session: Session) -> None:
        assert not session.told({"jsonrpc": "2.0", "id": 1, "result": {"capabilities": {}}})

    def test_come_once(self, session: Session) -> None:
        session.heard(request(2, "textDocument/inlineCompletion"))
        assert session.told({"jsonrpc": "2.0", "id": 2, "result": None})
        assert not session.told({"jsonrpc": "2.0", "id": 2, "result": None})

    def test_without_an_id_are_the_editors(self, session: Session) -> None:
        error = {"code": -32700, "message": "not JSON"}
        assert session.told({"jsonrpc": "2.0", "id": None, "error": error})

    def test_to_a_server_that_is_gone_go_nowhere(self, session: Session) -> None:
        answer = {"jsonrpc": "2.0", "id": "q", "result": [None]}
        assert not session.heard(answer)
        assert session.told(request("q", "workspace/configuration", {"items": []}))
        assert session.heard(answer)
        assert session.told(request("q", "workspace/configuration", {"items": []}))
        list(session.broken())
        assert not session.heard(answer)


class TestBroken:
    def test_what_waits_is_answered(self, session: Session) -> None:
        session.heard(request("a", "textDocument/inlineCompletion"))
        session.heard(request("b", "keystate/counters"))
        session.heard(request("c", "shutdown"))
        a, b, c = session.broken()
        assert a == {"jsonrpc": "2.0", "id": "a", "result": None}
        assert (b["id"], b["error"]["code"]) == ("b", -32801)
        assert c == {"jsonrpc": "2.0", "id": "c", "result": None}
        assert list(session.broken()) == []
        # Should the dead host's answer still be in the pipe.
        assert not session.told({"jsonrpc": "2.0", "id": "a", "result": {"items": []}})

    def test_initialize_waits_for_the_next_host(self) -> None:
        session = Session()
        session.heard(request(1, "initialize", {}))
        assert list(session.broken()) == []
        assert [method for method, _ in replayed(session)] == ["initialize"]
        assert session.told({"jsonrpc": "2.0", "id": 1, "result": {}})

    def test_progress_ends(self, session: Session) -> None:
        for token, kind in (("t", "begin"), ("t", "report"), (5, "begin"), (5, "end")):
            session.told(notification("$/progress", {"token": token, "value": {"kind": kind}}))
        assert list(session.broken()) == [
            notification("$/progress", {"token": "t", "value": {"kind": "end"}})
        ]

    def test_registrations_are_taken_back(self, session: Session) -> None:
        both = [{"id": "1", "method": "a/b", "registerOptions": {}}, {"id": "2", "method": "c/d"}]
        session.told(request("r", "client/registerCapability", {"registrations": both}))
        one = {"unregisterations": [{"id": "2", "method": "c/d"}]}
        session.told(request("u", "client/unregisterCapability", one))
        (message,) = session.broken()
        assert message["method"] == "client/unregisterCapability"
        assert message["params"] == {"unregisterations": [{"id": "1", "method": "a/b"}]}
        # Its answer is for no server.
        assert not session.heard({"jsonrpc": "2.0", "id": message["id"], "result": None})
