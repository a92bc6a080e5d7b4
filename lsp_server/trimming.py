"""Fit a suggestion to the text around it: nothing doubled, nothing beyond the current block."""

from __future__ import annotations

import re

from lsp_server.documents import with_unix_newlines
from lsp_server.indentation import reindented

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
_TRAILING_BLANKS = re.compile(r"[ \t]+\n")
_WORD = re.compile(r"\w+")
_OPENED_TWICE = re.compile(r"\"\"\"|'''|[\"'(\[{]")
# Words that are doubled without the rest of their line: fewer characters are chance.
_MIN_OVERLAP_CHARS = 4
# A shorter rest of line stands inside other code by chance.
_MIN_WORD_REST_CHARS = 3


def trim(
    before: str,
    suggestion: str,
    after: str,
    newline: str = "\n",
    indent_unit: str | None = None,
) -> str:
    """Cut from a suggestion what does not belong between `before` and `after`; "" if nothing does.

    before: the cursor's line up to the cursor. after: the text from the cursor on, with as many
    following lines as are at hand. Line ends in the answer are `newline`, and levels of
    indentation `indent_unit` (None: as they are), whatever the model wrote.
    """
    text = _TRAILING_BLANKS.sub("\n", with_unix_newlines(suggestion))
    rest, _, below = with_unix_newlines(after).partition("\n")
    rest = rest.rstrip()
    if _restates_word(text, before, rest):
        return ""
    text = _without_opener(before, text, rest)
    text = reindented(before, text, indent_unit)
    text = _without_line_below(before, text, rest, below)
    text = _within_block(before, text)
    if rest:
        text = _without_rest(before, text, rest)
        text = _fit_blanks(text, rest)
    else:
        text = text.rstrip()
    return text.replace("\n", newline) if text.strip() else ""


def _restates_word(text: str, before: str, rest: str) -> bool:
    """Whether a text goes on with the word, or the rest of one, that stands after the cursor."""
    word, first = _WORD.match(rest), _WORD.match(text)
    if word is None or first is None:
        return False
    is_inside_word = _WORD.match(before[-1:]) is not None
    return first[0].startswith(word[0]) if is_inside_word else first[0] == word[0]


def _without_opener(before: str, text: str, rest: str) -> str:
    """Cut a quote or bracket that the text opens once more: the one before the cursor is meant.

    A bracket only where the text leaves it open and the rest of the line closes one of the two.
    """
    opened = _OPENED_TWICE.match(text)
    if opened is None or not before.endswith(opened[0]):
        return text
    without = text[len(opened[0]) :]
    if opened[0] in _CLOSER:
        is_left_open = _pairs(text)[1] and rest.startswith(_CLOSER[opened[0]])
        return without if is_left_open and rest[1:2] != rest[0] else text
    still_open = _pairs(before[-_PAIRED_CHARS:])[1]
    return without if still_open and without[:1].isalnum() else text


def _without_line_below(before: str, text: str, rest: str, below: str) -> str:
    """Cut at the line that stands below the cursor already.

    The same line has the same indentation. A closing bracket alone on it then closes what the
    document closes already.
    """
    line_below = next((line.rstrip() for line in below.split("\n") if line.strip()), None)
    if line_below is None:
        return text
    lines = text.split("\n")
    if not rest and any(map(str.isalnum, line_below)):
        goes_on_with_it = before.strip() and lines[0].strip() == line_below.strip()
        if goes_on_with_it or (before + lines[0]).rstrip() == line_below:
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
    n_rest = len(rest)
    says_it_all = n_rest >= _MIN_OVERLAP_CHARS and text.rstrip().endswith(rest)
    if says_it_all and _is_between_words(text.rstrip(), rest, n_rest):
        return text.rstrip()[:-n_rest]
    candidates = [text[:end] for end in _overlaps(text.rstrip(), rest)]
    contained = _find_words(text.partition("\n")[0], rest)
    if contained >= 0 and len(rest) >= _MIN_WORD_REST_CHARS and any(map(str.isalnum, rest)):
        candidates.append(text[:contained])
    candidates.append(text)
    outer_closer = first_outer_closer(before, text)
    if outer_closer is not None:
        inside = text[:outer_closer]
        candidates += [inside[:end] for end in _overlaps(inside, rest)] + [inside]
    return min(candidates, key=lambda kept: _n_unpaired(before + kept + rest[:_PAIRED_CHARS]))


def _overlaps(text: str, rest: str) -> list[int]:
    """Where in `text` an end of it starts that `rest` starts with; the longest end first."""
    starts = []
    for n in range(min(len(text), len(rest)), 0, -1):
        doubled = rest[:n]
        may_be_cut = (
            n == len(rest)
            or (doubled.strip() and _PUNCTUATION.issuperset(doubled))
            or (n >= _MIN_OVERLAP_CHARS and _is_between_words(text, rest, n))
        )
        if may_be_cut and text.endswith(doubled):
            starts.append(len(text) - n)
    return starts


def _find_words(text: str, words: str) -> int:
    """Where words stand in a text that are not parts of longer ones, or -1."""
    if len(words) > len(text):
        return -1
    start = r"\b" if _WORD.match(words) else ""
    end = r"\b" if _WORD.match(words[-1:]) else ""
    found = re.search(start + re.escape(words) + end, text)
    return found.start() if found else -1


def _is_between_words(text: str, rest: str, n: int) -> bool:
    """Whether the last n characters of a text, the first n of the rest, hold whole words."""
    edges = (text[-n - 1 : len(text) - n + 1], rest[n - 1 : n + 1])
    cuts_a_word = any(len(edge) == 2 and _WORD.fullmatch(edge) for edge in edges)
    return any(map(str.isalnum, rest[:n])) and not cuts_a_word


def first_outer_closer(before: str, text: str) -> int | None:
    """Where `text` first closes a bracket or quote that was open before it on its line."""
    before = before[-_PAIRED_CHARS:]
    line = before + text
    outer = (at for at, opener in _pairs(line)[0] if at >= len(before) > opener)
    first = next(outer, None)
    return None if first is None else first - len(before)


def closers_for(text: str) -> str:
    """What closes the brackets and quotes that a text leaves open, the innermost first."""
    return "".join(_CLOSER.get(opener, opener) for opener in reversed(_pairs(text)[1]))


def _n_unpaired(text: str) -> int:
    pairs, still_open = _pairs(text)
    return len(still_open) + sum(opener < 0 for _, opener in pairs)


def _pairs(text: str) -> tuple[list[tuple[int, int]], str]:
    """Closing brackets and quotes with their openers' places, and the openers still open.

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
    return pairs, "".join(char for char, _ in stack)


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
