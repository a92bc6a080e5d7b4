"""Fit a suggestion to the text around it: nothing doubled, nothing beyond the current block."""

from __future__ import annotations

import re

_CLOSER = {"(": ")", "[": "]", "{": "}"}
_QUOTES = "\"'`"
_CLOSERS = frozenset(_CLOSER.values())
# What may be doubled without the rest of its line: what editors insert, and what follows it.
_PUNCTUATION = _CLOSERS | frozenset(_QUOTES + ";:,> ")
# Lines that go on with the block above them, at the indentation of the line that opened it.
_CONTINUES_BLOCK = re.compile(
    r"(?:else|elif|except|finally|catch|case|default|end|public|private|protected)\b"
)
_TAB_WIDTH = 4
_STRING_PREFIX = re.compile(r"(?<!\w)(?:[bfru]|[bf]r|r[bf])$", re.IGNORECASE)
# Brackets are paired within so many characters on either side of the cursor.
_PAIRED_CHARS = 1000
# A shorter rest of line stands inside other code by chance.
_MIN_WORD_REST_CHARS = 3


def trim(before: str, suggestion: str, after: str, newline: str = "\n") -> str:
    """Cut from a suggestion what does not belong between `before` and `after`; "" if nothing does.

    before: the cursor's line up to the cursor. after: the text from the cursor on, with as many
    following lines as are at hand. Line ends in the answer are `newline`, whatever the model
    wrote.
    """
    text = _with_newlines(suggestion)
    rest, _, below = _with_newlines(after).partition("\n")
    rest = rest.rstrip()
    text = _without_line_below(before, text, below)
    text = _within_block(before, text)
    if rest:
        text = _without_rest(before, text, rest)
        text = _fit_blanks(text, rest)
    else:
        text = text.rstrip()
    return text.replace("\n", newline) if text.strip() else ""


def _with_newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _without_line_below(before: str, text: str, below: str) -> str:
    """Cut at the line that stands below the cursor already.

    The same line has the same indentation. A closing bracket alone on it then closes what the
    document closes already.
    """
    line_below = next((line.rstrip() for line in below.split("\n") if line.strip()), None)
    if line_below is None:
        return text
    lines = text.split("\n")
    is_whole_line = not before.strip() and any(map(str.isalnum, line_below))
    if is_whole_line and (before + lines[0]).rstrip() == line_below:
        return ""
    for n, line in enumerate(lines[1:], start=1):
        if line.rstrip() == line_below:
            return "\n".join(lines[:n])
    return text


def _within_block(before: str, text: str) -> str:
    """Cut at the line that leaves the block in which the suggestion starts."""
    lines = text.split("\n")
    composed = [before + lines[0], *lines[1:]]
    first = next((n for n, line in enumerate(composed) if line.strip()), None)
    if first is None:
        return text
    base = _indent(composed[first])
    opened = _opens(composed[first])
    for n, line in enumerate(composed[first + 1 :], start=first + 1):
        code = line.strip()
        if not code or _indent(line) > base:
            continue
        if _indent(line) < base:
            return "\n".join(lines[:n])
        if not opened:
            # A statement beside the first one.
            continue
        closes = code[0] in _CLOSERS
        if not closes and not _CONTINUES_BLOCK.match(code):
            return "\n".join(lines[:n])
        if closes and not _opens(line):
            return "\n".join(lines[: n + 1])
    return text


def _opens(line: str) -> bool:
    return line.rstrip().endswith((":", *_CLOSER))


def _indent(line: str) -> int:
    line = line.expandtabs(_TAB_WIDTH)
    return len(line) - len(line.lstrip())


def _without_rest(before: str, text: str, rest: str) -> str:
    """Cut what the rest of the cursor's line says already.

    Of the cuts that can be meant, the one that leaves fewest brackets and quotes of the finished
    line without their partner; the deepest overlap with the rest where several do.
    """
    before = before[-_PAIRED_CHARS:]
    candidates = [text[:end] for end in _overlaps(text.rstrip(), rest)]
    contained = text.partition("\n")[0].find(rest)
    if contained >= 0 and len(rest) >= _MIN_WORD_REST_CHARS and any(map(str.isalnum, rest)):
        candidates.append(text[:contained])
    candidates.append(text)
    outer_closer = _first_outer_closer(before, text)
    if outer_closer is not None:
        candidates.append(text[:outer_closer])
    return min(candidates, key=lambda kept: _n_unpaired(before + kept + rest[:_PAIRED_CHARS]))


def _overlaps(text: str, rest: str) -> list[int]:
    """Where in `text` an end of it starts that `rest` starts with; the longest end first."""
    starts = []
    for n in range(min(len(text), len(rest)), 0, -1):
        doubled = rest[:n]
        may_be_cut = n == len(rest) or (doubled.strip() and _PUNCTUATION.issuperset(doubled))
        if may_be_cut and text.endswith(doubled):
            starts.append(len(text) - n)
    return starts


def _first_outer_closer(before: str, text: str) -> int | None:
    """Where `text` first closes what was open before it."""
    line = before + text
    outer = (at for at, opener in _pairs(line)[0] if at >= len(before) > opener)
    first = next(outer, None)
    return None if first is None else first - len(before)


def _n_unpaired(text: str) -> int:
    pairs, n_open = _pairs(text)
    return n_open + sum(opener < 0 for _, opener in pairs)


def _pairs(text: str) -> tuple[list[tuple[int, int]], int]:
    """Closing brackets and quotes with their openers' places, and the number still open.

    In any language, so roughly: strings in double and single quotes end with their line, an
    apostrophe inside a word is no quote. An opener's place is -1 where there is none.
    """
    pairs: list[tuple[int, int]] = []
    stack: list[tuple[str, int]] = []
    escaped = False
    for at, char in enumerate(text):
        open_char, opener = stack[-1] if stack else ("", -1)
        if escaped:
            escaped = False
        elif open_char and open_char in _QUOTES:
            if char == open_char:
                pairs.append((at, opener))
                stack.pop()
            elif char == "\n" and open_char != "`":
                stack.pop()
            escaped = char == "\\"
        elif char in _CLOSER or (char in _QUOTES and not _is_apostrophe(text, at)):
            stack.append((char, at))
        elif char in _CLOSERS:
            if _CLOSER.get(open_char) == char:
                pairs.append((at, opener))
                stack.pop()
            else:
                pairs.append((at, -1))
    return pairs, len(stack)


def _is_apostrophe(text: str, at: int) -> bool:
    inside_word = text[at - 1 : at].isalnum() and text[at + 1 : at + 2].isalnum()
    return text[at] == "'" and inside_word and not _STRING_PREFIX.search(text[max(at - 3, 0) : at])


def _fit_blanks(text: str, rest: str) -> str:
    """Drop trailing blanks, except those that set off the rest of the line."""
    bare = text.rstrip()
    blanks = text[len(bare) :]
    if "\n" in blanks:
        # A closing bracket keeps the line of its own that the model gave it.
        return bare + blanks[blanks.rindex("\n") :] if rest[0] in _CLOSERS else bare
    return bare if rest[0] in _PUNCTUATION else text
