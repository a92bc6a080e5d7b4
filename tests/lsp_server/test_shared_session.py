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

    def test_notebooks_by_all_that_was_said_of_them(self, session: Session) -> None:
        def about(method: str, uri: str) -> dict[str, Any]:
            return notification(f"notebookDocument/{method}", {"notebookDocument": {"uri": uri}})

        session.heard(about("didOpen", "a"))
        session.heard(about("didOpen", "b"))
        session.heard(about("didChange", "a"))
        session.heard(about("didClose", "b"))
        assert list(session.replay())[2:] == [about("didOpen", "a"), about("didChange", "a")]

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
