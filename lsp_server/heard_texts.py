"""Texts as an editor has told of them, in LSP's words: a document's, and those of a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lsp_server.documents import Change, Documents, Position

if TYPE_CHECKING:
    from lsp_server.documents import Document


class HeardNotebook:
    """A notebook as it stands, which takes as much memory however often it is changed.

    What is not in the protocol's shape changes nothing, and raises TypeError, KeyError or
    AttributeError.
    """

    def __init__(self, opened: Any) -> None:
        """Take the parameters of `notebookDocument/didOpen`."""
        self._notebook = dict(opened["notebookDocument"])
        self._cells = list(self._notebook["cells"])
        self._texts = Documents()
        for text in opened["cellTextDocuments"]:
            self._open(text)

    def change(self, changed: Any) -> None:
        """Take the parameters of `notebookDocument/didChange`."""
        version, change = changed["notebookDocument"]["version"], changed["change"]
        told = change.get("cells") or {}
        cells = list(self._cells)
        gone: list[str] = []
        opened: list[Any] = []
        structure = told.get("structure")
        if structure is not None:
            array = structure["array"]
            end = array["start"] + array["deleteCount"]
            cells[array["start"] : end] = array.get("cells") or []
            gone = [closed["uri"] for closed in structure.get("didClose") or []]
            opened = structure.get("didOpen") or []
        for given in told.get("data") or []:
            cells = [given if cell["document"] == given["document"] else cell for cell in cells]
        contents = [
            (content["document"], [change_of(one) for one in content["changes"]])
            for content in told.get("textContent") or []
        ]
        self._cells = cells
        self._notebook["version"] = version
        if "metadata" in change:
            self._notebook["metadata"] = change["metadata"]
        # A cell whose language changes is closed and opened in one message.
        for uri in gone:
            self._texts.close(uri)
        for text in opened:
            self._open(text)
        for cell, changes in contents:
            self._texts.change(cell["uri"], cell["version"], changes)

    def opened(self) -> dict[str, Any]:
        """The parameters of a `didOpen` that says all of it."""
        return {
            "notebookDocument": {**self._notebook, "cells": self._cells},
            "cellTextDocuments": list(map(item_of, self._texts)),
        }

    def _open(self, text: Any) -> None:
        self._texts.open(text["uri"], text["languageId"], text["version"], text["text"])


def item_of(document: Document) -> dict[str, Any]:
    """A document as it stands, as LSP's TextDocumentItem."""
    return {
        "uri": document.uri,
        "languageId": document.language_id,
        "version": document.version,
        "text": document.text,
    }


def change_of(change: Any) -> Change:
    """A content change of LSP's; TypeError for what is none."""
    match change:
        case {
            "text": str(text),
            "range": {
                "start": {"line": int(first), "character": int(start)},
                "end": {"line": int(last), "character": int(end)},
            },
        }:
            return Change(text=text, range=(Position(first, start), Position(last, end)))
        case {"text": str(text)} if "range" not in change or change["range"] is None:
            return Change(text=text)
    raise TypeError("not a change")
