"""What is said to the scripted server, and what it has received."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.editors.neovim.terminal import Terminal

NOTHING: dict[str, Any] = {"items": []}


def items(*texts: str, **more: Any) -> dict[str, Any]:
    """An answer."""
    return {"items": [{"insertText": text, **more} for text in texts]}


def received(editor: Terminal, method: str) -> list[Any]:
    """The parameters of what the server has received by that name."""
    messages = editor.ask("keystate/received") or []
    return [one["params"] for one in messages if one["method"] == method]


def until_received(editor: Terminal, method: str) -> list[Any]:
    """The same, once there is some."""
    return list(editor.until(lambda: received(editor, method), f"the server has {method}"))


def asked(editor: Terminal) -> list[Any]:
    """The requests for inline completion that an answer was written down for."""
    requests = received(editor, "textDocument/inlineCompletion")
    return [one for one in requests if one["position"]["character"]]


def until_asked(editor: Terminal, n: int) -> None:
    """Wait until there were n of them."""
    editor.until(lambda: len(asked(editor)) == n, f"it was asked {n} times")
