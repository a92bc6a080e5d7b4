from __future__ import annotations

import pytest

from lsp_server.uris import path_in_prompts, path_of

UNREADABLE = "http://[::1/w/a.py"


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///w/a%20b.py", "/w/a b.py"),
        ("file:///c%3A/Users/a.py", "/c:/Users/a.py"),
        ("vscode-remote://ssh-remote+host/home/x.py", "/home/x.py"),
        ("untitled:Untitled-1", "Untitled-1"),
        ("", ""),
        (UNREADABLE, "a.py"),
    ],
)
def test_the_path_that_a_uri_names(uri: str, path: str) -> None:
    assert path_of(uri) == path


@pytest.mark.parametrize(
    ("uri", "roots", "path"),
    [
        ("file:///w/p/a.py", ["file:///w", "file:///w/p"], "a.py"),
        ("file:///w/p/a.py", ["file:///w"], "p/a.py"),
        ("file:///other/a.py", ["file:///w"], "a.py"),
        ("file:///w", ["file:///w"], "w"),
        ("file:///w/p/a.py", ["http://[::1/w", "file:///w"], "p/a.py"),
        (UNREADABLE, ["file:///w"], "a.py"),
    ],
)
def test_the_path_in_prompts(uri: str, roots: list[str], path: str) -> None:
    assert path_in_prompts(uri, roots) == path
