"""Brackets and quotes of code in any language, and their partners."""

from __future__ import annotations

import re

CLOSER = {"(": ")", "[": "]", "{": "}"}
CLOSERS = frozenset(CLOSER.values())
QUOTES = "\"'`"
_STRING_PREFIX = re.compile(r"(?<!\w)(?:[bfru]|[bf]r|r[bf])$", re.IGNORECASE)


def pairs(text: str) -> tuple[list[tuple[int, int]], list[int]]:
    """Give closing brackets and quotes with their openers' places, and where others are still open.

    In any language, so roughly: strings in double and single quotes end with their line, an
    apostrophe inside a word is no quote. An opener's place is -1 where there is none.
    """
    found: list[tuple[int, int]] = []
    stack: list[tuple[str, int]] = []
    escaped = False
    for at, char in enumerate(text):
        open_char, opener = stack[-1] if stack else ("", -1)
        if escaped:
            escaped = False
        elif open_char and open_char in QUOTES:
            if char == open_char:
                found.append((at, opener))
                stack.pop()
            elif char == "\n" and open_char != "`":
                stack.pop()
            escaped = char == "\\"
        elif char in CLOSER or (char in QUOTES and not _is_apostrophe(text, at)):
            stack.append((char, at))
        elif char in CLOSERS:
            if CLOSER.get(open_char) == char:
                found.append((at, opener))
                stack.pop()
            else:
                found.append((at, -1))
    return found, [at for _, at in stack]


def _is_apostrophe(text: str, at: int) -> bool:
    inside_word = text[at - 1 : at].isalnum() and text[at + 1 : at + 2].isalnum()
    return text[at] == "'" and inside_word and not _STRING_PREFIX.search(text[max(at - 3, 0) : at])
