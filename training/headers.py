"""Makes the headers that stand before a window: what the server says of the rest of the code.

The server finds definitions by parsing (`lsp_server/outline.py`); here regular expressions do, a
thousand files a second. What they give has the same form: lines of the source as they stand.
Outlines and snippets are for Python alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lsp_server.syntax import language_id_of, line_comment_of

if TYPE_CHECKING:
    import numpy as np

    from training.corpus import Corpus

MAX_OUTLINE_CHARS, MAX_IMPORT_CHARS = 600, 250
MAX_SNIPPET_CHARS, MAX_SNIPPET_FILES = 400, 3
# Files beside a sample's own that it may take definitions from.
MAX_NEIGHBOURS = 6
OMITTED = "...\n"

_IMPORT = re.compile(r"^(?:import|from) [^\n(\\]{3,110}\n", re.MULTILINE)
_DEFINITION = re.compile(
    r"^([ \t]*)(?:async def|def|class) (\w+)[^\n]*(?:(?<=[(,])\n[^\n]*){0,6}(?<=:)\n", re.MULTILINE
)
_WORD = re.compile(r"[A-Za-z_]\w{2,}")


def path_header(path: str) -> str:
    """Give a file's path as a comment line of its language, as the server does."""
    return f"{line_comment_of(language_id_of(path))} {path}\n"


@dataclass
class Headers:
    """Headers for samples of a corpus; definitions are remembered file by file."""

    corpus: Corpus
    _definitions: dict[int, dict[str, str]] = field(default_factory=dict)

    def snippets(self, index: int, window: str, rng: np.random.Generator) -> str:
        """Give top-level definitions of neighbouring files that are named in `window`."""
        lines = window.split("\n")
        start = int(rng.integers(max(len(lines) - 20, 1)))
        words = set(_WORD.findall("\n".join(lines[start : start + 20])))
        package = self.corpus.names[index].partition("/")[0]
        parts, left = list[str](), MAX_SNIPPET_CHARS
        for step in range(1, MAX_NEIGHBOURS // 2 + 1):
            for other in (index - step, index + step):
                if not 0 <= other < len(self.corpus) or len(parts) == MAX_SNIPPET_FILES:
                    continue
                if self.corpus.names[other].partition("/")[0] != package:
                    continue
                found = [s for name, s in self.definitions(other).items() if name in words]
                part = f"# {self.corpus.names[other]}\n{''.join(found[:4])}"
                if found and len(part) <= left:
                    parts.append(part)
                    left -= len(part)
        return "".join(parts)

    def definitions(self, index: int) -> dict[str, str]:
        """Give the header lines of a file's top-level definitions by name."""
        if index not in self._definitions:
            self._definitions[index] = {
                match[2]: match[0]
                for match in _DEFINITION.finditer(self.corpus[index])
                if not match[1] and len(match[0]) < 160 and len(match[2]) > 3
            }
        return self._definitions[index]


def outline(text: str, start: int, window: str) -> str:
    """Give the imports above `start`, what encloses it, and the definitions before it.

    Closed by a line of three dots; "" when there is nothing to tell.
    """
    words = set(_WORD.findall(window))
    chosen: list[tuple[int, str]] = []
    left = MAX_IMPORT_CHARS
    for match in _IMPORT.finditer(text, 0, start):
        if len(match[0]) <= left and not words.isdisjoint(_WORD.findall(match[0])[1:]):
            chosen.append((match.start(), match[0]))
            left -= len(match[0])
    left += MAX_OUTLINE_CHARS - MAX_IMPORT_CHARS
    indent = _indent_at(text, start)
    others = []
    for match in reversed(list(_DEFINITION.finditer(text, max(0, start - 20_000), start))):
        if len(match[1]) < indent and len(match[0]) <= left:
            indent = len(match[1])
            chosen.append((match.start(), match[0]))
            left -= len(match[0])
        else:
            others.append(match)
    for match in others:
        if len(match[0]) > left:
            break
        chosen.append((match.start(), match[0]))
        left -= len(match[0])
    return "".join(line for _, line in sorted(chosen)) + OMITTED if chosen else ""


def _indent_at(text: str, start: int) -> int:
    """Give the indentation of the first line from `start` on with something on it."""
    match = re.compile(r"[ \t]*(?=\S)").search(text, start)
    return 0 if match is None else len(match[0])
