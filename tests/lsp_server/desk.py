"""A desk to test at what files say that are not open: a repository, documents, a clock."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from lsp_server.documents import Change, Document, Position
from lsp_server.settings import Settings
from lsp_server.syntax import language_id_of
from lsp_server.workspace_files import WorkspaceFiles

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT_S = 60
# What is typed, and how the tracked files go on from there.
END = "return quarterly_rebate("


def line(mark: str) -> str:
    return f"    {END}{mark})\n"


class Desk:
    """A repository, documents that are open, a clock, and what is read on its own thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.git("init", "-q")
        self.open: list[Document] = []
        self.now_s = 1000.0
        self.files = WorkspaceFiles(self.open, lambda: self.now_s)
        self.files.configure(Settings())

    def git(self, *arguments: str, folder: Path | None = None) -> None:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder)}
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments]
        subprocess.run(command, cwd=folder or self.folder, check=True, env=environment)

    def track(self, **marks: str) -> None:
        """Write Python files, each with a line that ends in its mark, and have git track them."""
        for name, mark in marks.items():
            (self.folder / f"{name}.py").write_text(line(mark))
        self.git("add", *(f"{name}.py" for name in marks))

    def document(
        self, path: str = "here.py", text: str = "", folder: Path | None = None
    ) -> Document:
        uri = ((folder or self.folder) / path).as_uri()
        document = Document(uri, language_id_of(path), 0, text, path)
        self.open.append(document)
        return document

    def close(self, document: Document) -> None:
        self.open.remove(document)
        self.files.forget(document)

    def passages(self, document: Document) -> str:
        """What is found once the thread has nothing left to do."""
        for _ in range(3):
            self.files.passages(document, END)
            self.files._worker().submit(int).result(TIMEOUT_S)
        return "\n".join(self.files.passages(document, END))


def edit(document: Document, text: str) -> None:
    document.apply(Change(text=text, range=(Position(0, 0), Position(0, 0))))
