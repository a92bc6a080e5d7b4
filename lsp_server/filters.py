"""Where nothing is suggested that nobody asked for, and why."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lsp_server.documents import Document
    from lsp_server.settings import Settings


def reason_off(settings: Settings, document: Document) -> str | None:
    """Why a document gets no suggestion unasked, for the user to read; None if it does."""
    if not settings.enabled:
        return "suggestions are switched off"
    language = document.language_id
    if not settings.languages.get(language, settings.languages.get("*", True)):
        return f"suggestions are switched off for {language}"
    if document.is_secret:
        return "the file's name says that it holds secrets"
    if document.n_chars > settings.max_file_chars:
        return f"the file is longer than {settings.max_file_chars:,} characters"
    glob = excluding_glob(settings.exclude, document.path, document.full_path)
    return None if glob is None else f"the file is excluded by {glob}"


def excluding_glob(globs: Iterable[str], *paths: str) -> str | None:
    """The first of these globs that any of a file's paths fits."""
    for glob in filter(None, globs):
        if any(map(_compiled(glob).fullmatch, paths)):
            return glob
    return None


@lru_cache(256)
def _compiled(glob: str) -> re.Pattern[str]:
    """A glob as a pattern of whole paths: `*`, `?`, `[abc]`, `{a,b}`, and `**` for any folders.

    Without a slash it fits files of that name in any folder; with one at its end, all in a folder.
    """
    glob = glob.replace("\\", "/").removeprefix("./")
    if "/" not in glob.rstrip("/"):
        glob = f"**/{glob}"
    if glob.endswith("/"):
        glob += "**"
    parts = _PARTS.findall(glob)
    depth, pattern = 0, ""
    for part in parts:
        if part == "{":
            depth += 1
            pattern += "(?:"
        elif part == "}" and depth:
            depth -= 1
            pattern += ")"
        elif part == "," and depth:
            pattern += "|"
        elif len(part) > 2 and part[0] == "[":
            inside, sign = part[1:-1], ""
            if inside[0] == "!":
                inside, sign = inside[1:], "^"
            inside = re.escape(inside).replace(r"\-", "-")
            pattern += f"[{sign}{inside}]"
        else:
            pattern += _WILD.get(part) or re.escape(part)
    try:
        return re.compile(pattern + ")" * depth, re.DOTALL)
    except re.error:
        # A range from z to a, say: then it is what it spells.
        return re.compile(re.escape(glob))


_PARTS = re.compile(r"\*\*/|\*\*|\*|\?|\[[^\]/]+\]|.", re.DOTALL)
_WILD = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
